"""The file in a form: found in any cut of the stream, whole or not at all."""

import io
import os
import time
from collections.abc import Iterator

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from services.models.multipart import FormInvalid, form_file, is_form

BOUNDARY = "0123456789abcdef"
CONTENT_TYPE = f"multipart/form-data; boundary={BOUNDARY}"


def part(name: str, data: bytes, filename: str | None = "scorer.pkl") -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + data + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()


def cut(body: bytes, size: int) -> Iterator[bytes]:
    return (body[start : start + size] for start in range(0, len(body), size))


def read(body: bytes, size: int = 1 << 20, content_type: str = CONTENT_TYPE) -> tuple[str, bytes]:
    file = form_file(content_type, cut(body, size), "model_file")
    return file.filename, b"".join(file.body)


@pytest.mark.row("S0.8")
@settings(max_examples=150, deadline=None)
@given(
    st.one_of(st.binary(max_size=300), st.text(alphabet="\r\n-0123456789abcdef", max_size=200).map(str.encode)),
    st.integers(1, 80),
)
def test_any_bytes_come_through_in_any_pieces(data: bytes, size: int) -> None:
    if f"\r\n--{BOUNDARY}".encode() in b"\r\n" + data:
        return
    body = part("comment", b"passed over", None) + part("model_file", data) + part("more", b"x", "other.bin") + END
    assert read(body, size) == ("scorer.pkl", data)


@pytest.mark.row("S0.8")
def test_what_a_common_client_sends_is_read() -> None:
    data = os.urandom(100_000)
    request = requests.Request("POST", "http://x", files={"model_file": ("größe 1.npz", io.BytesIO(data))}).prepare()
    assert isinstance(request.body, bytes)
    assert read(request.body, 777, request.headers["content-type"]) == ("größe 1.npz", data)


def test_a_name_is_utf_8() -> None:
    assert read(part("model_file", b"x", "größe.pkl") + END)[0] == "größe.pkl"
    broken = part("model_file", b"x", "NAME").replace(b"NAME", b"\xff\xfe")
    with pytest.raises(FormInvalid):
        read(broken + END)


FILE = part("model_file", b"weights" * 1000)


@pytest.mark.row("S0.8")
@pytest.mark.parametrize("cut_off", [1, 5, len(END), len(END) + 1, len(END) + 2, len(END) + 500, len(FILE)])
def test_a_form_that_was_cut_off_is_refused(cut_off: int) -> None:
    with pytest.raises(FormInvalid):
        read((FILE + END)[:-cut_off] if cut_off > 2 else (FILE + END).rstrip()[:-cut_off])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        END,
        b"no form at all",
        FILE + FILE + END,
        part("other", b"x") + END,
        part("model_file", b"x", None) + END,
        part("model_file", b"x", "") + END,
        part("x", b"", None) * 100 + FILE + END,
        FILE.replace(b"Content-Disposition", b"X-" + b"a" * 5000 + b": y\r\nContent-Disposition") + END,
        FILE.replace(b"Content-Disposition", b"X-a: b\r\n" * 20 + b"Content-Disposition") + END,
        FILE.replace(b"form-data", b"attachment") + END,
        FILE.replace(b"--0123", b"--0124") + END,
    ],
)
def test_what_is_not_one_file_in_a_form_is_refused(body: bytes) -> None:
    with pytest.raises(FormInvalid):
        read(body, 64)


@pytest.mark.parametrize(
    "content_type",
    ["multipart/form-data", "multipart/form-data; boundary=", f"multipart/form-data; boundary={'a' * 71}"],
)
def test_a_form_names_its_boundary(content_type: str) -> None:
    assert is_form(content_type)
    with pytest.raises(FormInvalid):
        read(FILE + END, content_type=content_type)


@pytest.mark.parametrize(
    ("content_type", "form"), [(CONTENT_TYPE.title(), True), ("application/octet-stream", False), ("", False)]
)
def test_a_form_is_known_by_its_content_type(content_type: str, *, form: bool) -> None:
    assert is_form(content_type) is form


def test_an_error_never_quotes_the_body() -> None:
    with pytest.raises(FormInvalid) as caught:
        read(b"--secret-bytes\r\n" + FILE)
    assert "secret" not in str(caught.value.message)
    assert caught.value.__cause__ is None


def test_a_hostile_form_costs_no_more_than_a_long_one() -> None:
    """Beginnings of the boundary over and over, which a parser might look at twice."""
    near = f"\r\n--{BOUNDARY[:-1]}".encode() * 400_000
    began = time.perf_counter()
    assert read(part("model_file", near) + END, 65536)[1] == near
    assert time.perf_counter() - began < 8
