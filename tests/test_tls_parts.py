"""Mutual TLS between the parts: who is let in, whom a caller believes, and new certificates under traffic."""

import shutil
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from services.shared import access
from services.shared.call import caller
from services.shared.certificates import Certificates, Material, secure_channel
from services.shared.channels import IDENTITY_HEADER, service_channel
from services.shared.service import Server, Service
from services.shared.settings import ServiceSettings
from services.shared.tokens import ServiceIdentity, TokenVerifier, load_service_keys
from strongroom.certificates import as_pem, read_certificates, read_pair
from strongroom.local.authority import Authority
from strongroom.local.pki import Pki
from strongroom.secrets.v1 import keys_pb2, keys_pb2_grpc
from tests.serving import ADMINISTRATOR, make_identities, make_token_maker

NAME = "secrets"
# Seconds until everybody has looked at the files again, by a clock that goes ten times as fast as ours.
_SPREAD = 0.4
# Seconds until a connection's certificate is looked at again.
_CONNECTION = 2.0


def _fast() -> float:
    return time.monotonic() * 10


class _Keys(keys_pb2_grpc.KeyServiceServicer):
    def CreateKek(self, _request: Any, context: grpc.ServicerContext) -> keys_pb2.CreateKekResponse:
        return keys_pb2.CreateKekResponse(kek_id=caller(context).id)


def _check(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    return b"asked"


@dataclass
class Running:
    """A service that speaks TLS, and what a part needs to call it."""

    pki: Pki
    identities: Path
    address: str

    def identity(self, part: str, certificate: str = "") -> ServiceIdentity:
        """A part with its own token, and with its own certificate or another's."""
        identity = ServiceIdentity.load(part, self.identities)
        return ServiceIdentity(part, identity.key, Certificates(self.pki.folder, certificate or part, _fast))

    def create(self, part: str = "models", certificate: str = "", audience: str = NAME) -> str:
        """Who a part is to the service."""
        with service_channel(self.address, audience, self.identity(part, certificate)) as channel:
            return str(
                keys_pb2_grpc.KeyServiceStub(channel)
                .CreateKek(keys_pb2.CreateKekRequest(kek_id="kek"), timeout=10)
                .kek_id
            )

    def shown(self) -> bytes:
        """The certificate that a new connection gets to see (DER)."""
        host, _, port = self.address.partition(":")
        context = ssl.create_default_context(cafile=str(self.pki.authorities))
        context.load_cert_chain(self.pki.of("gateway"))
        context.set_alpn_protocols(["h2"])
        context.check_hostname = False
        with socket.create_connection((host, int(port)), 10) as plain, context.wrap_socket(plain) as secured:
            found = secured.getpeercert(binary_form=True)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("parts")
    pki = Pki(folder / "pki", pause=lambda _: time.sleep(_SPREAD))
    pki.init([])
    identities = make_identities(folder / "keys")
    tokens = make_token_maker()
    verifier = TokenVerifier(NAME, tokens.access_keys, load_service_keys(identities), lambda _: False)

    def register(server: grpc.Server) -> None:
        keys_pb2_grpc.add_KeyServiceServicer_to_server(_Keys(), server)
        service, _, method = access.CHECK_METHOD.strip("/").rpartition("/")
        handler = grpc.unary_unary_rpc_method_handler(_check)
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))

    service = Service(
        NAME,
        ["strongroom.secrets.v1.KeyService"],
        register,
        verifier,
        certificates=Certificates(pki.folder, NAME, _fast),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("services.shared.service._CONNECTION_SECONDS", _CONNECTION)
        server = Server(service, ServiceSettings(secrets_listen="127.0.0.1:0"))
    server.start()
    yield Running(pki, identities, f"127.0.0.1:{server.port}")
    server.stop(grace=1)


def refused(call: Callable[[], object]) -> tuple[grpc.StatusCode, str]:
    """Code and reason of a call that must fail; no reason where no service answered."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    status, info = rpc_status.from_call(caught.value), error_details_pb2.ErrorInfo()
    if status is not None and status.details:
        status.details[0].Unpack(info)
    return caught.value.code(), info.reason


def health(channel: grpc.Channel) -> object:
    return health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)


UNREACHED = (grpc.StatusCode.UNAVAILABLE, "")


def test_a_part_is_known_by_its_certificate_and_its_token(running: Running) -> None:
    assert running.create("models") == "models"
    assert running.create("auth") == "auth"


def test_a_token_of_a_service_counts_with_its_own_certificate_alone(running: Running) -> None:
    """A stolen key of the models service opens nothing to who has another certificate."""
    for certificate in ("auth", "gateway"):
        refusal = refused(lambda certificate=certificate: running.create("models", certificate))
        assert refusal == (grpc.StatusCode.PERMISSION_DENIED, "PEER_UNKNOWN")


def test_without_a_certificate_nobody_is_let_in(running: Running) -> None:
    authorities = running.pki.authorities.read_bytes()
    override = [("grpc.ssl_target_name_override", "secrets.strongroom.internal")]
    with grpc.insecure_channel(running.address) as channel:
        assert refused(lambda: health(channel)) == UNREACHED
    with grpc.secure_channel(running.address, grpc.ssl_channel_credentials(authorities), override) as channel:
        assert refused(lambda: health(channel)) == UNREACHED


def test_what_callers_are_shown_is_no_certificate_of_a_part(running: Running) -> None:
    assert refused(lambda: running.create("models", "edge")) == UNREACHED


def test_certificates_of_another_authority_count_for_nothing(running: Running, tmp_path: Path) -> None:
    other = Pki(tmp_path / "other")
    other.init([])
    with pytest.raises(grpc.RpcError) as caught, _channel(running, other.of("models")) as channel:
        health(channel)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    stranger = Running(other, running.identities, running.address)
    assert refused(stranger.create) == UNREACHED, "nor does the caller believe the service"


def test_of_an_authority_that_serves_others_too_only_parts_are_let_in(running: Running, tmp_path: Path) -> None:
    own = running.pki._load()
    file = tmp_path / "payroll.pem"
    file.touch(mode=0o600)
    file.write_bytes(own.issue("payroll", [], datetime.now(UTC)))
    with _channel(running, file) as channel:
        assert refused(lambda: health(channel)) == (grpc.StatusCode.PERMISSION_DENIED, "PEER_UNKNOWN")


def test_a_caller_speaks_to_the_part_it_means_alone(running: Running) -> None:
    """Whoever sits at the address of auth without auth's certificate hears no token."""
    assert refused(lambda: running.create("models", audience="auth")) == UNREACHED


def test_only_the_gateway_asks_about_credentials(running: Running) -> None:
    with _channel(running, running.pki.of("gateway")) as channel:
        assert channel.unary_unary(access.CHECK_METHOD)(b"", timeout=5) == b"asked"
    with _channel(running, running.pki.of("models")) as channel:
        ask = channel.unary_unary(access.CHECK_METHOD)
        assert refused(lambda: ask(b"", timeout=5)) == (grpc.StatusCode.PERMISSION_DENIED, "PEER_UNKNOWN")


def test_the_certificate_opens_nothing_without_a_token(running: Running) -> None:
    with _channel(running, running.pki.of("models")) as channel:
        create = keys_pb2_grpc.KeyServiceStub(channel).CreateKek
        request = keys_pb2.CreateKekRequest(kek_id="kek")
        assert refused(lambda: create(request, timeout=5))[0] is grpc.StatusCode.UNAUTHENTICATED
        forged = [(IDENTITY_HEADER, make_token_maker().token(NAME, ADMINISTRATOR))]
        assert refused(lambda: create(request, timeout=5, metadata=forged))[0] is grpc.StatusCode.UNAUTHENTICATED


def _channel(running: Running, certificate: Path) -> grpc.Channel:
    """What whoever has this certificate sees of the service, with all the trust it needs."""
    pair = read_pair(certificate)
    material = Material(pair.chain, pair.key, as_pem(read_certificates(running.pki.authorities)))
    return secure_channel(running.address, NAME, material, [])


@pytest.mark.row("S3.10")
def test_rotation_under_traffic_loses_no_call(running: Running, tmp_path: Path) -> None:
    """And a certificate of an authority that is distrusted afterwards opens nothing any more."""
    shutil.copy(running.pki.of("models"), tmp_path / "models.pem")
    with _channel(running, tmp_path / "models.pem") as channel:
        health(channel)
    before, failures, calls = running.shown(), [], [0]
    stop = threading.Event()
    identity = running.identity("models")

    def work(*, reconnecting: bool) -> None:
        channel = service_channel(running.address, NAME, identity)
        try:
            while not stop.is_set():
                if reconnecting:
                    channel.close()
                    channel = service_channel(running.address, NAME, identity)
                keys_pb2_grpc.KeyServiceStub(channel).CreateKek(keys_pb2.CreateKekRequest(kek_id="kek"), timeout=10)
                calls[0] += 1
        except grpc.RpcError as error:
            failures.append(f"{error.code()} {error.details()}")
        finally:
            channel.close()

    threads = [threading.Thread(target=work, kwargs={"reconnecting": number % 2 == 0}) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        running.pki.rotate()
        time.sleep(_SPREAD)
        rotated = running.shown()
        running.pki.rotate_authority(distrust=True)
        time.sleep(_SPREAD)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert calls[0] > 100
    assert len({before, rotated, running.shown()}) == 3
    assert running.shown() == read_pair(running.pki.of(NAME)).fingerprint
    with _channel(running, tmp_path / "models.pem") as channel:
        assert refused(lambda: health(channel)) == UNREACHED


def test_a_connection_ends_with_the_trust_in_its_certificate(running: Running, tmp_path: Path) -> None:
    """Whoever has stolen the authority's key made themselves a gateway, and keeps the connection open."""
    forged = tmp_path / "gateway.pem"
    forged.touch(mode=0o600)
    forged.write_bytes(running.pki._load().issue("gateway", [], datetime.now(UTC)))
    with _channel(running, forged) as channel:
        ask = channel.unary_unary(access.CHECK_METHOD)
        assert ask(b"", timeout=5) == b"asked"
        running.pki.rotate_authority(distrust=True)
        time.sleep(2 * _CONNECTION)
        assert refused(lambda: ask(b"", timeout=5)) == UNREACHED


def test_an_authority_is_no_certificate_of_a_part(running: Running) -> None:
    assert isinstance(running.pki._load(), Authority)
    with _channel(running, running.pki.folder / "authority.pem") as channel:
        assert refused(lambda: health(channel))[0] in (
            grpc.StatusCode.UNAVAILABLE,
            grpc.StatusCode.PERMISSION_DENIED,
        )
