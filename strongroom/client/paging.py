"""Listings, page after page."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from strongroom.connection import Connection
from strongroom.retries import Repeat

if TYPE_CHECKING:
    import grpc


class _Asked(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


Asked = TypeVar("Asked", bound=_Asked)
Page = TypeVar("Page", bound=_Page)


def pages(
    connection: Connection, method: "grpc.UnaryUnaryMultiCallable[Asked, Page]", request: Asked
) -> Iterator[Page]:
    """The pages of a listing, each fetched when it is asked for. Changes the request."""
    while True:
        page = connection.call(method, request, repeat=Repeat.SAFE)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
