"""A real browser for tests, and a page of it that records what must not happen."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from docs.page import open_browser

# Chromium then shows a test picture as its camera, and asks nobody whether a page may use it.
FAKE_CAMERA = "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"


@contextmanager
def start_browser() -> Iterator[Browser]:
    """Run Chromium with an empty profile, or skip the test if it is missing."""
    if shutil.which("chromium") is None:
        pytest.skip("Chromium is not installed")
    expect.set_options(timeout=30_000)  # in milliseconds; a busy machine needs more than 5,000
    with open_browser(*FAKE_CAMERA) as browser:
        yield browser


@contextmanager
def open_page(browser: Browser, url: str, path: str = "/", **options: Any) -> Iterator[Page]:
    """Open a page of the service at ``url`` in a new profile.

    Afterwards, check that it had no error, broke no content security policy and sent no request to
    another host.
    """
    context = browser.new_context(**options)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda message: faults.append(message.text) if is_fault(message) else None)
    page.on("request", lambda request: faults.append(request.url) if is_away(request.url) else None)

    def is_fault(message: Any) -> bool:
        # The browser writes such a line for every 4xx, and the tests provoke some.
        return message.type == "error" and "Failed to load resource" not in message.text

    def is_away(address: str) -> bool:
        return not address.startswith((url + "/", "data:", "blob:" + url))

    page.goto(url + path)
    yield page
    assert faults == []
    context.close()
