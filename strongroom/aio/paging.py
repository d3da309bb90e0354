"""Listings, page after page."""
# Made from strongroom/client/paging.py by `make clients`. Change it there.

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from strongroom.aio.connection import AsyncConnection
from strongroom.client.paging import Asked, Page
from strongroom.retries import Repeat

if TYPE_CHECKING:
    import grpc


async def pages(
    connection: AsyncConnection, method: "grpc.aio.UnaryUnaryMultiCallable[Asked, Page]", request: Asked
) -> AsyncIterator[Page]:
    """The pages of a listing, each fetched when it is asked for. Changes the request."""
    while True:
        page = await connection.call(method, request, repeat=Repeat.SAFE)
        yield page
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token
