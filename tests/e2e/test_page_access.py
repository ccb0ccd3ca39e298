"""The pages for everybody: keyboard, screen reader, phone, API keys, below a path, offline."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from service.api.keys import new_key
from tests.e2e.browser import open_page
from tests.e2e.server import ROOT, Server, serving
from tests.e2e.test_page import CUT, ITEMS, choose

AXE = ROOT / "build/node_modules/axe-core/axe.min.js"  # .ci/run puts it there
TINY = ROOT / "models/resnet-8-tiny"
KEY, LINE = new_key("alice")
PHONE: dict[str, Any] = {
    "viewport": {"width": 360, "height": 740},
    "has_touch": True,
    "is_mobile": True,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the shipped models."""
    with serving(device="cpu") as running:
        yield running


@pytest.fixture
def guarded(linear_folder: Path, tmp_path: Path) -> Iterator[Server]:
    """A server that asks for a key."""
    path = tmp_path / "keys"
    path.write_text(LINE)
    with serving(device="cpu", models=linear_folder, api_keys_file=path) as running:
        yield running


def wait_for_models(page: Page) -> None:
    """Wait until the page knows the models."""
    expect(page.locator("#models a").first).to_be_visible()


def show_everything(page: Page) -> Iterator[str]:
    """Show each state of the page in turn; yield its name."""
    wait_for_models(page)
    yield "start"
    page.get_by_role("button", name="Drawing of a mug").click()
    expect(page.locator("#bars li")).to_have_count(10)
    expect(page.locator("#answer")).not_to_have_attribute("aria-busy", "true")
    yield "answer"
    page.get_by_label("Model", exact=True).select_option("resnet-8")
    expect(page.get_by_role("img", name="Box around the item")).to_be_visible()
    yield "box"
    page.locator("#files").set_input_files(CUT)
    expect(page.get_by_role("alert")).to_be_visible()
    yield "problem"
    page.locator("#files").set_input_files([*ITEMS[:3], CUT])
    expect(page.locator("#count")).to_contain_text("4 of 4")
    yield "table"
    page.locator("#models a").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    yield "card"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser: Browser, server: Server, scheme: Any) -> None:
    """Every state of the page keeps all rules of axe-core, best practices included."""
    if not AXE.is_file():
        pytest.skip("axe-core is missing: npm install --prefix build axe-core")
    with open_page(browser, server.url, color_scheme=scheme) as page:
        for state in show_everything(page):
            page.evaluate(AXE.read_text(encoding="utf-8"))
            violations = page.evaluate("axe.run().then((results) => results.violations)")
            found = [(rule["id"], [node["html"] for node in rule["nodes"]]) for rule in violations]
            assert found == [], state


def test_page_fits_a_phone(browser: Browser, server: Server) -> None:
    """On a phone nothing is wider than the screen, and buttons are large enough for a finger."""
    with open_page(browser, server.url, **PHONE) as page:
        for state in show_everything(page):
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width <= PHONE["viewport"]["width"], state
        page.keyboard.press("Escape")
        for button in page.get_by_role("button").all():
            box = button.bounding_box()
            is_link = button.get_attribute("class") == "link"
            assert is_link or box is None or min(box["width"], box["height"]) >= 40


def test_phone_opens_its_own_camera(browser: Browser, server: Server) -> None:
    """On a phone, "Take a photo" is a file chooser that asks for the camera at the back."""
    with open_page(browser, server.url, **PHONE) as page:
        with page.expect_file_chooser() as chooser:
            page.get_by_role("button", name="Take a photo").tap()
        assert chooser.value.element.get_attribute("capture") == "environment"
        chooser.value.set_files(ITEMS[0])
        expect(page.locator("#bars li")).to_have_count(10)


def test_keyboard_reaches_everything(browser: Browser, server: Server) -> None:
    """The tab key reaches every control in order; Enter works; the answer is announced."""
    with open_page(browser, server.url) as page:
        wait_for_models(page)
        reached = []
        for _ in range(14):
            page.keyboard.press("Tab")
            reached.append(
                page.evaluate("document.activeElement.id || document.activeElement.tagName")
            )
            if page.evaluate("document.activeElement.dataset.name") == "sneaker.jpg":
                page.keyboard.press("Enter")
                expect(page.get_by_role("status")).to_contain_text("Sneaker")
        assert reached[:3] == ["A", "choose", "photograph"]
        assert reached[3:11] == ["BUTTON"] * 6 + ["model", "coverage"]
        assert reached[11:] == ["heat", "A", "copy"]
        assert "One of the 10 classes" in (page.get_by_role("status").text_content() or "")


def test_key_stays_in_its_tab(browser: Browser, guarded: Server) -> None:
    """With API keys on, the page asks for one; only this tab knows it, until it is forgotten."""
    with open_page(browser, guarded.url) as page:
        field = page.get_by_label("Your key")
        expect(field).to_be_focused()
        field.fill("wrong")
        field.press("Enter")
        expect(page.get_by_text("The service does not know this key.")).to_be_visible()
        field.fill(KEY)
        field.press("Enter")
        expect(field).to_be_hidden()
        choose(page, ITEMS[0])
        expect(page.locator("#bars li")).to_have_count(3)
        expect(page.locator("#curl")).to_contain_text('-H "Authorization: Bearer $KEY"')
        page.get_by_role("link", name="linear 1").first.click()
        expect(page.get_by_label("Text of the card")).to_have_text("# linear\n")
        page.keyboard.press("Escape")
        assert page.evaluate("localStorage.length") == 0
        assert page.context.cookies() == []
        assert KEY not in page.content()
        other = page.context.new_page()
        other.goto(guarded.url)
        expect(other.get_by_label("Your key")).to_be_visible()
        page.reload()
        wait_for_models(page)
        page.get_by_role("button", name="Forget the API key").click()
        expect(field).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0


def test_revoked_key_stops_a_folder(browser: Browser, guarded: Server) -> None:
    """If the service does not know the key any more, the page sends no more images and asks."""
    with open_page(browser, guarded.url) as page:
        field = page.get_by_label("Your key")
        field.fill(KEY)
        field.press("Enter")
        wait_for_models(page)
        page.evaluate("sessionStorage.setItem(sessionStorage.key(0), 'revoked')")
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.method))
        page.locator("#files").set_input_files(ITEMS[:20])
        expect(field).to_be_visible()
        expect(page.locator("#count")).to_contain_text("4 failed")
        expect(page.locator("#count")).to_contain_text("then cancelled")
        assert sent.count("POST") == 4


@pytest.mark.parametrize("path", ["/shop/fashion", "/shop/fashion/"])
def test_pages_work_below_a_path(browser: Browser, path: str) -> None:
    """Below SERVICE_ROOT_PATH the page and /docs work, with or without a slash at the end."""
    with (
        serving(device="cpu", models=TINY, root_path="/shop/fashion") as below,
        open_page(browser, below.url, path) as page,
    ):
        wait_for_models(page)
        page.get_by_role("button", name="Grey boot").click()
        expect(page.locator("#bars li")).to_have_count(10)
        expect(page.locator("#curl")).to_contain_text(f"{below.url}/shop/fashion/predict?")
        page.get_by_role("link", name="API documentation").click()
        expect(page.get_by_text("Classify one image")).to_be_visible()


def test_model_without_sets_has_no_slider(browser: Browser, linear_folder: Path) -> None:
    """If a model has no prediction sets, no coverage is offered or sent, and answers come."""
    with (
        serving(device="cpu", models=linear_folder) as plain,
        open_page(browser, plain.url) as page,
    ):
        wait_for_models(page)
        expect(page.get_by_label("Coverage of the set")).to_be_hidden()
        choose(page, ITEMS[0])
        expect(page.locator("#bars li")).to_have_count(3)
        expect(page.locator("#set")).to_be_hidden()


def test_documentation_works_without_the_internet(browser: Browser, server: Server) -> None:
    """Swagger UI shows the routes and sends requests, with files of this service alone."""
    with open_page(browser, server.url, "/docs") as page:
        page.get_by_text("Whether the service accepts uploads").click()
        page.get_by_role("button", name="Try it out").click()
        page.get_by_role("button", name="Execute").click()
        status = page.locator(".live-responses-table .response-col_status:not(.col_header)")
        expect(status).to_contain_text("200")
