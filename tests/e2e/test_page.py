"""The page at `/` in a real browser: images in, answers out."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from service.api.page.routes import FOLDER
from service.client.rows import read_rows
from tests.e2e.browser import open_page
from tests.e2e.server import ROOT, Server, serving
from tests.service.images import fault

BOOT, CUT = ROOT / "tests/data/faults/exif-rotated.jpg", ROOT / "tests/data/faults/truncated.jpg"
SNEAKER, MUG = FOLDER / "files/sneaker.jpg", FOLDER / "files/mug.jpg"
ITEMS = sorted((ROOT / "tests/data/fashion-mnist-sample").glob("*.png"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server with the shipped models."""
    with serving(device="cpu") as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The page, when it knows the models."""
    with open_page(browser, server.url) as opened:
        expect(opened.get_by_role("link", name="garments")).to_be_visible()
        yield opened


def choose(page: Page, *paths: Path) -> None:
    """Choose files of the disk."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose images").click()
    chooser.value.set_files(list(paths))


def ask(server: Server, path: Path, query: str) -> dict[str, Any]:
    """Return the API's answer to a file."""
    command = ["curl", "-s", "-F", f"file=@{path}", f"{server.url}/predict?{query}"]
    output = subprocess.run(command, capture_output=True, text=True, check=True)
    answer: dict[str, Any] = json.loads(output.stdout)
    return answer


def transfer(page: Page, path: Path) -> Any:
    """Return a DataTransfer with a file, as a drop or a paste has it."""
    return page.evaluate_handle(
        """([content, name]) => {
          const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
          const transfer = new DataTransfer();
          transfer.items.add(new File([bytes], name, { type: "image/jpeg" }));
          return transfer;
        }""",
        [b64encode(path.read_bytes()).decode(), path.name],
    )


def test_answer_is_shown_in_full(page: Page, server: Server) -> None:
    """A chosen image gets its class, bars of all classes, the set, times, model and heat map."""
    answer = ask(server, MUG, "coverage=0.95")
    choose(page, MUG)
    expect(page.locator("#answer-class")).to_have_text(answer["class_name"])
    expect(page.locator("#answer-share")).to_have_text(f"{answer['probability']:.1%}"[:-1] + " %")
    expect(page.locator("#known")).to_have_text("Probably none of the 10 classes")
    best = sorted(answer["probabilities"], key=lambda name: -answer["probabilities"][name])
    assert page.locator("#bars .name").all_text_contents() == best
    widths = page.locator("#bars .fill").evaluate_all("all => all.map((fill) => fill.style.width)")
    shares = [answer["probabilities"][name] * 100 for name in best]
    assert [float(width.rstrip("%")) for width in widths] == pytest.approx(shares, abs=0.06)
    expect(page.locator("#set")).to_have_text(f"Set at 95 %: {', '.join(answer['prediction_set'])}")
    marked = page.locator("#bars .in-set .name").all_text_contents()
    assert marked == answer["prediction_set"]
    times = page.locator("#step-list dd").all_text_contents()
    assert len(times) == 5
    assert all(time.endswith(" ms") for time in times)
    expect(page.locator("#words .note")).to_have_text("Answered by garments 3 on CPU")
    expect(page.locator("#upload-picture")).to_be_visible()
    heat_map = page.get_by_role("img", name="Heat map")
    expect(heat_map).to_be_visible()
    assert heat_map.bounding_box() == page.locator("#seen-picture").bounding_box()
    page.get_by_label("Heat map: where").uncheck()
    expect(heat_map).to_be_hidden()
    expect(page.get_by_role("img", name="as the model saw it")).to_be_visible()


@pytest.mark.parametrize("way", ["sample", "drop", "paste", "photo"])
def test_images_come_in_many_ways(page: Page, way: str) -> None:
    """A sample, a dropped file, a pasted one and a photo of the camera get an answer."""
    if way == "sample":
        page.get_by_role("button", name="Drawing of a sneaker").click()
    elif way == "drop":
        page.dispatch_event("#drop", "drop", {"dataTransfer": transfer(page, SNEAKER)})
    elif way == "paste":
        page.evaluate(
            """(data) => document.dispatchEvent(
              new ClipboardEvent("paste", { clipboardData: data }))""",
            transfer(page, SNEAKER),
        )
    else:
        page.get_by_role("button", name="Take a photo").click()
        expect(page.locator("#video")).not_to_have_js_property("videoWidth", 0)
        page.get_by_role("button", name="Take the photo").click()
    expect(page.locator("#bars li")).to_have_count(10)
    name = "photo.jpg" if way == "photo" else "sneaker.jpg"
    expect(page.locator("#upload-caption")).to_have_text(name)
    if way != "photo":
        expect(page.locator("#answer-class")).to_have_text("Sneaker")
    expect(page.get_by_role("link", name="Save the image")).to_have_count(
        1 if way in ("paste", "photo") else 0
    )


def test_camera_can_be_left(page: Page) -> None:
    """Without a photo, the camera's picture is closed and nothing is sent."""
    page.get_by_role("button", name="Take a photo").click()
    page.get_by_role("dialog", name="Camera").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator("#answer")).to_be_hidden()


def test_grey_model_shows_the_box_of_the_item(page: Page, server: Server) -> None:
    """The model can be chosen; a grey model's answer has the box where the API says it is."""
    answer = ask(server, SNEAKER, "explain=true&model=resnet-8")
    choose(page, SNEAKER)
    page.get_by_label("Model", exact=True).select_option("resnet-8")
    expect(page.locator("#words .note")).to_have_text("Answered by resnet-8 3 on CPU")
    box = page.get_by_role("img", name="Box around the item").bounding_box()
    picture = page.locator("#upload-picture").bounding_box()
    assert box is not None
    assert picture is not None
    left, top, right, bottom = answer["explanation"]["item_box"]
    assert box["x"] - picture["x"] == pytest.approx(left * picture["width"], abs=1)
    assert box["y"] - picture["y"] == pytest.approx(top * picture["height"], abs=1)
    assert box["width"] == pytest.approx((right - left) * picture["width"], abs=1)
    assert box["height"] == pytest.approx((bottom - top) * picture["height"], abs=1)
    expect(page.get_by_role("img", name="Heat map")).to_be_hidden()


def test_slider_sets_the_coverage(page: Page, server: Server) -> None:
    """The slider has the range of the models; each step asks again and shows the new set."""
    slider = page.get_by_label("Coverage of the set")
    assert (slider.get_attribute("min"), slider.get_attribute("max")) == ("0.8", "0.99")
    choose(page, MUG)
    slider.press("End")
    names = ask(server, MUG, "coverage=0.99")["prediction_set"]
    expect(page.locator("#set")).to_have_text(f"Set at 99 %: {', '.join(names)}")
    slider.press("Home")
    expect(page.locator("#set-coverage")).to_have_text("80 %")
    expect(page.locator("#curl")).to_contain_text("coverage=0.8")


def test_problem_is_shown_in_the_words_of_the_service(page: Page, server: Server) -> None:
    """A rejected image shows title, detail and request id; the next image gets its answer."""
    problem = ask(server, CUT, "")
    choose(page, CUT)
    alert = page.get_by_role("alert")
    expect(alert).to_contain_text(problem["title"])
    expect(alert).to_contain_text(problem["detail"])
    expect(alert).to_contain_text("Request ")
    choose(page, SNEAKER)
    expect(page.locator("#answer-class")).to_have_text("Sneaker")
    expect(alert).to_be_hidden()


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        ({"status": 200, "body": "<html>"}, "The answer broke off"),
        ({"status": 502, "body": '{"message": "no upstream"}'}, "Status 502"),
        ({"status": 502, "body": "<html>"}, "Status 502"),
    ],
)
def test_answer_of_something_else_is_a_problem(
    page: Page, answer: dict[str, Any], shown: str
) -> None:
    """What a proxy answers instead of the service is shown as a problem, in words."""
    page.route("**/predict?*", lambda route: route.fulfill(**answer))
    choose(page, SNEAKER)
    expect(page.get_by_role("alert")).to_contain_text(shown)
    expect(page.get_by_role("alert")).not_to_contain_text("undefined")


def test_older_browsers_send_the_options(page: Page) -> None:
    """Safari 16 has no URLSearchParams.size; the request still asks for an explanation."""
    page.evaluate("Object.defineProperty(URLSearchParams.prototype, 'size', {value: undefined})")
    choose(page, SNEAKER)
    expect(page.get_by_role("img", name="Heat map")).to_be_visible()


def test_table_of_many_images(page: Page, server: Server, tmp_path: Path) -> None:
    """Many images fill a table; the CSV is a file of the batch client; a row can be opened."""
    paths = [*ITEMS[:8], CUT, SNEAKER]
    choose(page, *paths)
    expect(page.locator("#count")).to_contain_text("10 of 10 images, 1 failed")
    assert page.locator("#progress").evaluate("bar => bar.value === bar.max")
    assert page.locator("#rows th").all_text_contents() == [path.name for path in paths]
    with page.expect_download() as download:
        page.get_by_role("button", name="Download CSV").click()
    download.value.save_as(tmp_path / "predictions.csv")
    rows = read_rows(tmp_path / "predictions.csv")
    assert [row.path for row in rows] == [path.name for path in paths]
    for path, row, text in zip(
        paths, rows, page.locator("#rows tr").all_text_contents(), strict=True
    ):
        answer = ask(server, path, "")
        if path == CUT:
            assert (row.error_title, row.error_detail) == (answer["title"], answer["detail"])
            assert f"{answer['title']}: {answer['detail']}" in text
            continue
        assert row.class_name == answer["class_name"]
        assert row.probabilities == pytest.approx(answer["probabilities"], abs=1e-3)
        assert row.in_distribution == answer["in_distribution"]
        assert row.model == "/".join(answer["model"].values())
        assert f"{answer['class_name']}{answer['probability']:.1%}"[:-1] in text
    page.get_by_role("button", name=SNEAKER.name, exact=True).click()
    expect(page.locator("#answer-class")).to_have_text("Sneaker")
    expect(page.locator("#rows tr")).to_have_count(len(paths))


def test_table_can_be_cancelled(page: Page) -> None:
    """Cancel stops the requests; answered rows stay, and the others say that they are cancelled."""
    choose(page, *[BOOT] * 200)
    cancel = page.get_by_role("button", name="Cancel")
    expect(page.locator("#rows td").first).not_to_have_text("…")
    cancel.click()
    expect(page.locator("#count")).to_contain_text("then cancelled")
    expect(cancel).to_be_hidden()
    texts = page.locator("#rows tr").all_text_contents()
    assert 0 < sum("Cancelled" in text for text in texts) < 200
    assert not any("…" in text for text in texts)


def test_table_can_be_replaced(page: Page) -> None:
    """New images take the place of a table that is still filling."""
    choose(page, *[BOOT] * 100)
    expect(page.locator("#rows td").first).not_to_have_text("…")
    choose(page, *ITEMS[:3])
    expect(page.locator("#count")).to_contain_text("3 of 3 images")
    assert page.locator("#rows th").all_text_contents() == [path.name for path in ITEMS[:3]]


def test_overload_is_waited_for(browser: Browser, linear_folder: Path) -> None:
    """Images of a table that get 429 or 503 are sent again when the service says so."""
    with (
        serving(device="cpu", models=linear_folder, max_uploads_in_flight=1) as busy,
        open_page(browser, busy.url) as page,
    ):
        expect(page.get_by_role("link", name="linear")).to_be_visible()
        choose(page, *ITEMS[:12])
        expect(page.locator("#count")).to_contain_text("12 of 12 images")
        expect(page.locator("#count")).not_to_contain_text("failed")


def test_samples_are_for_models_of_garments(
    page: Page, browser: Browser, linear_folder: Path
) -> None:
    """A page whose models know no garments offers no garments to try."""
    expect(page.get_by_role("link", name="garments")).to_be_visible()
    expect(page.get_by_role("group", name="Samples")).to_be_visible()
    with (
        serving(device="cpu", models=linear_folder) as other,
        open_page(browser, other.url) as without,
    ):
        expect(without.get_by_role("link", name="linear")).to_be_visible()
        expect(without.get_by_role("group", name="Samples")).to_be_hidden()


def test_command_does_the_same(page: Page, tmp_path: Path) -> None:
    """The shown command, run in a shell beside the files, gets the answers that the page shows."""
    page.get_by_role("button", name="Grey boot").click()
    expect(page.locator("#answer-class")).to_have_text("Ankle boot")
    assert run(page, tmp_path)["class_name"] == "Ankle boot"
    named = tmp_path / 'it\'s; "a" $HOME, `sneaker`\\.jpg'
    named.write_bytes(SNEAKER.read_bytes())
    choose(page, named)
    expect(page.locator("#answer-class")).to_have_text("Sneaker")
    answer = run(page, tmp_path)
    assert answer["class_name"] == "Sneaker"
    assert answer["explanation"]["heat_map"]
    assert answer["prediction_set"] == ["Sneaker"]


def test_command_for_many_images_does_the_same(page: Page, tmp_path: Path) -> None:
    """For a table, the command is a loop over the files."""
    for path in ITEMS[:2]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    choose(page, *ITEMS[:2])
    expect(page.locator("#count")).to_contain_text("2 of 2 images")
    command = page.locator("#curl").text_content() or ""
    output = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert output.stdout.count('"class_name"') == 2


def run(page: Page, folder: Path) -> dict[str, Any]:
    """Run the shown command in a folder; return the JSON that it prints."""
    command = page.locator("#curl").text_content() or ""
    output = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True)
    answer: dict[str, Any] = json.loads(output.stdout)
    return answer


def test_models_cards_and_documentation_are_linked(page: Page, server: Server) -> None:
    """Each model's link opens its card; the other link leads to /docs."""
    for name in ("resnet-8", "garments"):
        page.get_by_role("link", name=name).click()
        expect(page.get_by_role("dialog", name="Model card")).to_be_visible()
        card = page.get_by_label("Text of the card").text_content()
        assert card == server.get(f"/models/{name}/card").text
        page.get_by_role("button", name="Close").click()
    page.get_by_role("link", name="API documentation").click()
    expect(page).to_have_url(f"{server.url}/docs")


def test_heic_without_a_preview_is_answered(page: Page) -> None:
    """A file that the browser cannot show is still sent, and its caption says so."""
    pytest.importorskip("pillow_heif")
    file = {"name": "photo.heic", "mimeType": "", "buffer": fault("photo.heic")}
    page.locator("#files").set_input_files(file)  # type: ignore[arg-type]
    expect(page.locator("#bars li")).to_have_count(10)
    expect(page.locator("#upload-caption")).to_contain_text("this browser cannot show it")
