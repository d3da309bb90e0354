"""The file in a form, as it arrives: `multipart/form-data` (RFC 7578, in RFC 2046's framing).

python-multipart finds the boundaries; here is what it leaves open: which part is the file, and that the form came
whole. Never holds more than the piece it is given.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from services.shared.errors import InvalidArgument
from strongroom.chunking import Buffer

# Parts of a form, of which one is wanted; each costs time.
_MOST_PARTS = 64
_MOST_HEADERS = 16
_MOST_HEADER_BYTES = 4096
# RFC 2046, section 5.1.1.
_MOST_BOUNDARY = 70

FORM = "multipart/form-data"


class FormInvalid(InvalidArgument):
    """The body is no form with the file in it, or not all of one."""

    reason = "FORM_INVALID"


@dataclass(frozen=True)
class FormFile:
    """A file in a form. `body` is to be exhausted: it raises FormInvalid at its end if the form did not come whole."""

    filename: str
    body: Iterator[Buffer] = field(repr=False)


def is_form(content_type: str) -> bool:
    """Whether a body of this content type is a form."""
    return content_type.partition(";")[0].strip().lower() == FORM


def form_file(content_type: str, pieces: Iterator[Buffer], name: str) -> FormFile:
    """The one part of that name, which has a filename. Reads up to its beginning.

    Args:
        content_type: with the boundary.
        pieces: the form, cut anywhere.

    Raises:
        FormInvalid: also from `body`, for what comes later.
    """
    form = _Form(_boundary(content_type), pieces, name)
    form.read_until_file()
    return FormFile(form.filename, form.data())


def _boundary(content_type: str) -> bytes:
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not 0 < len(boundary) <= _MOST_BOUNDARY:
        raise FormInvalid("The content type of a form names its boundary, of 1 to 70 characters.")
    return boundary


class _Form:
    """Feeds the parser and keeps what it says of the last piece."""

    def __init__(self, boundary: bytes, pieces: Iterator[Buffer], name: str) -> None:
        self.filename = ""
        self._pieces = pieces
        self._name = name.encode()
        self._parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value = bytearray(), bytearray()
        self._found = self._inside = self._ended = False
        self._waiting: deque[bytes] = deque()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin_part,
                "on_header_field": lambda data, start, end: self._field.extend(data[start:end]),
                "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                "on_header_end": self._end_header,
                "on_headers_finished": self._begin_data,
                "on_part_data": self._take_data,
                "on_part_end": self._end_part,
                "on_end": self._end,
            },
            max_header_count=_MOST_HEADERS,
            max_header_size=_MOST_HEADER_BYTES,
        )

    def read_until_file(self) -> None:
        while not self._found:
            if not self._feed():
                raise FormInvalid(f"The form has no file `{self._name.decode()}`, or ends before it.")

    def data(self) -> Iterator[bytes]:
        while True:
            while self._waiting:
                yield self._waiting.popleft()
            if not self._feed():
                break
        if not self._ended:
            raise FormInvalid("The form ends before its last boundary: it did not come whole.")

    def _feed(self) -> bool:
        """Parses the next piece; False at the end."""
        piece = next(self._pieces, None)
        if piece is None:
            return False
        try:
            self._parser.write(bytes(piece))
        except FormParserError:
            # Its text quotes the body.
            raise FormInvalid("The body is no multipart form with the boundary of its content type.") from None
        return True

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > _MOST_PARTS:
            raise FormInvalid(f"A form has at most {_MOST_PARTS} parts.")
        self._headers = {}

    def _end_header(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def _begin_data(self) -> None:
        disposition, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        if disposition != b"form-data" or options.get(b"name") != self._name:
            return
        if self._found:
            raise FormInvalid(f"The form has more than one file `{self._name.decode()}`: send one at a time.")
        try:
            # RFC 7578, section 5.1: UTF-8, whatever HTTP's headers are in.
            self.filename = options.get(b"filename", b"").decode()
        except UnicodeDecodeError:
            raise FormInvalid("The file's name is no UTF-8.") from None
        if not self.filename:
            raise FormInvalid(f"`{self._name.decode()}` is a file, with a name: curl -F {self._name.decode()}=@FILE")
        self._found = self._inside = True

    def _take_data(self, data: bytes, start: int, end: int) -> None:
        if self._inside:
            self._waiting.append(data[start:end])

    def _end_part(self) -> None:
        self._inside = False

    def _end(self) -> None:
        self._ended = True
