"""A provider that does not answer takes no secret of Strongroom's own, and no key, with it."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread

import grpc
import pytest

from tests.audit_trails import eventually
from tests.provider_installation import WithProviders
from tests.provider_kinds import Fields, private
from tests.secrets_installation import refusal

pytestmark = pytest.mark.row("S4.2")


class Silent:
    """A server that takes every connection and says nothing."""

    def __init__(self) -> None:
        self.connections: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for one in (self._listening, *self.connections):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                self.connections.append(self._listening.accept()[0])


@pytest.fixture
def silent() -> Iterator[Silent]:
    server = Silent()
    yield server
    server.close()


def test_a_provider_that_hangs_takes_half_of_the_threads_at_most(silent: Silent, tmp_path: Path) -> None:
    sign_in = {"method": "token", "token": private(tmp_path, "t")}
    bao: Fields = {"kind": "openbao", "endpoint": silent.url, "mount": "kv", "sign_in": sign_in}
    installation = WithProviders(tmp_path, {}, {"bao": bao})
    installation.settings = installation.settings.model_copy(update={"workers": 4, "caller_workers": 4})
    with installation.served() as served, ThreadPoolExecutor(2) as pool:
        served.secrets("CreateSecret", name="here", data={"n": 1})
        # The one connection that is there already asks whether the provider is well.
        eventually(lambda: len(silent.connections) == 1)
        hanging = [pool.submit(served.secrets, "GetSecret", name="there", provider="bao") for _ in range(2)]
        eventually(lambda: len(silent.connections) == 3)
        refused = refusal(lambda: served.secrets("GetSecret", name="there", provider="bao"))
        assert refused == (grpc.StatusCode.RESOURCE_EXHAUSTED, "PROVIDERS_BUSY")
        assert served.secrets("GetSecret", name="here").data["n"] == 1
        silent.close()
        assert {refusal(one.result) for one in hanging} == {(grpc.StatusCode.UNAVAILABLE, "PROVIDER_UNAVAILABLE")}
        assert refusal(lambda: served.secrets("GetSecret", name="there", provider="bao"))[1] == "PROVIDER_UNAVAILABLE"
