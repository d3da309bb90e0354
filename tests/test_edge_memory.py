"""What the gateway keeps for callers who ask and do not read: pages need no credential and are not counted."""

import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from strongroom.local.errors import StartError
from strongroom.local.policy import Policy
from tests.stack import RunningStack, Stack
from tests.test_gateway_rest import call

LIMIT_MB = 256
# The largest page has 1.7 MB: three times the limit.
STREAMS = 450
# More at a time are refused.
AT_A_TIME = 8

_HEADERS, _SETTINGS, _ENDS = 1, 4, 5  # RFC 9113, sections 6.2 and 6.5; END_STREAM and END_HEADERS
_INITIAL_WINDOW_SIZE = 4


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("memory") / "data"
    with RunningStack(folder, STRONGROOM_GATEWAY_MEMORY_MB=str(LIMIT_MB)) as running:
        yield running


def resident_mb(stack: Stack) -> int:
    status = Path(f"/proc/{stack.state['pids']['gateway']}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) >> 10


def frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def literal(name: str, value: str) -> bytes:
    """A header as RFC 7541, section 6.2.2 has it, in no table."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def test_who_asks_for_pages_and_reads_none_fills_no_memory(stack: Stack) -> None:
    [page] = list(Path("services/auth/pages/assets").glob("swagger-ui-*.js"))
    target = {":method": "GET", ":path": f"/docs/assets/{page.name}", ":scheme": "http", ":authority": stack.target}
    headers = b"".join(literal(name, value) for name, value in target.items())
    host, _, port = stack.target.partition(":")
    most = 0
    with socket.create_connection((host, int(port))) as idle:
        # Of the bodies of answers nothing may be sent.
        nothing = frame(_SETTINGS, 0, 0, struct.pack(">HI", _INITIAL_WINDOW_SIZE, 0))
        idle.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + nothing)
        for number in range(STREAMS):
            idle.sendall(frame(_HEADERS, _ENDS, 2 * number + 1, headers))
            if number % AT_A_TIME == 0:
                time.sleep(0.1)
                most = max(most, resident_mb(stack))
        time.sleep(1)
        assert max(most, resident_mb(stack)) < 1.5 * LIMIT_MB
        assert call(stack, "GET", "/health").status == 200


@pytest.mark.parametrize("text", ["1", "-1", "much"])
def test_too_little_memory_is_refused_at_the_start(text: str) -> None:
    with pytest.raises(StartError, match="STRONGROOM_GATEWAY_MEMORY_MB is a number of MiB, 128 or more"):
        Policy.read({"STRONGROOM_GATEWAY_MEMORY_MB": text})


def test_half_of_the_memory_is_the_gateways_unless_it_is_said() -> None:
    assert Policy.read({"STRONGROOM_GATEWAY_MEMORY_MB": "300"}).memory_bytes == 300 << 20
    assert Policy.read({}).memory_bytes >= 128 << 20
