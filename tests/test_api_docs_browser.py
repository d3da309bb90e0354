"""The documentation pages in a real browser: a person enters a key, tries a call and sees the answer."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from strongroom.client import Client
from tests import browser as browsers
from tests.stack import Stack

# Seconds in milliseconds, on a machine that does other things too.
_PATIENCE = 60_000
expect.set_options(timeout=_PATIENCE)


@pytest.fixture(scope="module", name="browser")
def _browser() -> Iterator[Browser]:
    with browsers.running() as browser:
        yield browser


@pytest.fixture(name="page")
def _page(browser: Browser) -> Iterator[Page]:
    """A page that tells of every request to anybody else and of every violation of its policy."""
    with browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(_PATIENCE)
        yield page


class _Watch:
    """What a page asks of others, and what its policy forbids it."""

    def __init__(self, page: Page, stack: Stack) -> None:
        self.elsewhere: list[str] = []
        self.errors: list[str] = []
        self._own = stack.url
        page.on("request", lambda request: self._asked(request.url))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    def _asked(self, url: str) -> None:
        if not url.startswith((f"{self._own}/", "data:")):
            self.elsewhere.append(url)


@pytest.mark.slow
@pytest.mark.row("S0.9")
@pytest.mark.row("S1.6")
def test_a_key_is_entered_and_calls_are_tried(stack: Stack, page: Page) -> None:
    with Client(stack.url, api_key=stack.admin_key) as client:
        client.secrets.put("api-docs/browser/db", {"user": "scorer"})
    watch = _Watch(page, stack)
    page.goto(f"{stack.url}/docs#/TokenService/GetCaller")
    operation = page.locator("#operations-TokenService-GetCaller")
    assert _tried(operation, "401")["reason"] == "CREDENTIAL_MISSING"

    page.locator("button.authorize").click()
    page.locator(".dialog-ux input").first.fill(stack.admin_key)
    page.locator(".dialog-ux button.authorize").first.click()
    page.locator(".dialog-ux button.btn-done").first.click()
    assert _tried(operation, "200")["principal"].startswith("key:")

    # A name of several parts is asked for as it is.
    page.locator("#operations-tag-SecretService").click()
    operation = page.locator("#operations-SecretService-GetSecret")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_placeholder("name", exact=True).fill("api-docs/browser/db")
    assert _tried(operation, "200")["data"] == {"user": "scorer"}

    # The key is in the page's memory alone, and nobody else was asked anything.
    stored = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert stack.admin_key not in stored
    assert watch.elsewhere == []
    assert [error for error in watch.errors if "401" not in error] == []


@pytest.mark.row("S1.6")
def test_the_page_to_read_works_without_a_network(stack: Stack, page: Page) -> None:
    watch = _Watch(page, stack)
    page.goto(f"{stack.url}/redoc")
    expect(page.locator("h1").first).to_contain_text("Strongroom")
    expect(page.get_by_text("CreateSecret").or_(page.get_by_text("Creates a secret")).first).to_be_attached()
    # ReDoc's own mark is the one thing it would load from elsewhere; the policy does not let it.
    assert all("redoc" in url and url.endswith("logo-mini.svg") for url in watch.elsewhere)
    assert all("logo-mini.svg" in error for error in watch.errors)


def _tried(operation: Locator, status: str) -> Any:
    """Clicks on Execute. Returns the answer that is shown once it has that status."""
    operation.get_by_role("button", name="Execute").click()
    shown = operation.locator(".live-responses-table tr.response")
    expect(shown.locator(".response-col_status")).to_contain_text(status)
    return json.loads(shown.locator(".response-col_description code").first.inner_text())
