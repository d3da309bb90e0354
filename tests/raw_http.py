"""Requests byte for byte as an attacker writes them, which no well-behaved client sends."""

import http.client
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass

from tests.stack import Stack
from tests.test_gateway_rest import Answer

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_HEADERS, _RESET, _SETTINGS, _PING, _GOAWAY = 1, 3, 4, 6, 7
_MAX_CONCURRENT_STREAMS = 3
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1


def send(stack: Stack, request: bytes) -> Answer:
    """The first answer over HTTP/1.1; a connection that is closed without one is status 0."""
    host, _, port = stack.target.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(request)
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        except (ConnectionError, http.client.BadStatusLine):
            return Answer(0, {}, b"")


def request(line: str, *headers: str, body: bytes = b"", host: str = "strongroom") -> bytes:
    """`line` is `GET /path`; headers are whole lines."""
    return "\r\n".join([f"{line} HTTP/1.1", f"host: {host}", "connection: close", *headers, "", ""]).encode() + body


@dataclass(frozen=True)
class Http2Outcome:
    """`status` of the answer, 0 if the stream or the connection was reset."""

    status: int


def send_http2(stack: Stack, headers: list[tuple[str, str]]) -> Http2Outcome:
    """A request of nothing but headers, in this order: every header is a literal without indexing (RFC 7541, 6.2.2)."""
    block = b"".join(b"\x00" + _string(name) + _string(value) for name, value in headers)
    host, _, port = stack.target.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        connection.sendall(_frame(_HEADERS, _END_STREAM | _END_HEADERS, 1, block))
        stream = connection.makefile("rb")
        while frame := _read(stream):
            kind, payload = frame
            if kind in (_RESET, _GOAWAY):
                return Http2Outcome(0)
            if kind == _HEADERS:
                return Http2Outcome(_status(payload))
    return Http2Outcome(0)


def open_streams(stack: Stack, headers: list[tuple[str, str]], more: int) -> bool:
    """Opens as many streams as the server says a connection may have, and so many more, none of which ends.

    Whether the connection lives: it answers when it is asked for a sign of life (PING) after the last of them.
    """
    block = b"".join(b"\x00" + _string(name) + _string(value) for name, value in headers)
    host, _, port = stack.target.partition(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(_PREFACE + _frame(_SETTINGS, 0, 0, b""))
        stream = connection.makefile("rb")
        with suppress(ConnectionError):
            while frame := _read(stream):
                kind, payload = frame
                if kind == _SETTINGS and payload:
                    allowed = dict(struct.iter_unpack(">HI", payload))[_MAX_CONCURRENT_STREAMS]
                    numbers = range(1, 2 * (allowed + more), 2)
                    opened = b"".join(_frame(_HEADERS, _END_HEADERS, number, block) for number in numbers)
                    # It holds from its acknowledgement on (RFC 9113, section 6.5.3).
                    connection.sendall(_frame(_SETTINGS, _ACK, 0, b"") + opened + _frame(_PING, 0, 0, bytes(8)))
                elif kind == _PING:
                    return True
    return False


def _string(text: str) -> bytes:
    data = text.encode("latin-1")
    assert len(data) < 127
    return bytes([len(data)]) + data


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def _read(stream: object) -> tuple[int, bytes] | None:
    head = stream.read(9)  # type: ignore[attr-defined]
    if len(head) < 9:
        return None
    return head[3], stream.read(int.from_bytes(head[:3], "big"))  # type: ignore[attr-defined]


def _status(block: bytes) -> int:
    """An answer's first header is `:status`: indexed (RFC 7541, appendix A), or a literal with that name."""
    while block[0] & 0xE0 == 0x20:  # a table size update
        block = block[1:]
    indexed = {0x88: 200, 0x89: 204, 0x8A: 206, 0x8B: 304, 0x8C: 400, 0x8D: 404, 0x8E: 500}
    if block[0] in indexed:
        return indexed[block[0]]
    length, data = block[1] & 0x7F, block[2:]
    if block[1] & 0x80:
        return int(_digits(data[:length]))
    return int(data[:length])


def _digits(data: bytes) -> str:
    """Three digits in Huffman's code (RFC 7541, appendix B): 0 to 2 have five bits, the others six."""
    bits = "".join(f"{byte:08b}" for byte in data)
    text = ""
    while len(text) < 3:
        if bits[:5] in ("00000", "00001", "00010"):
            text, bits = text + str(int(bits[:5], 2)), bits[5:]
        else:
            text, bits = text + str(int(bits[:6], 2) - 0b011001 + 3), bits[6:]
    return text
