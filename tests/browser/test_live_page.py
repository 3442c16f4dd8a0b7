"""The live page of the real server, used as people use it: by mouse, keyboard and screen reader, on a phone and at night."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import PHONE, OpenPage
from tests.e2e.conftest import Fitted, colors, fitted  # noqa: F401 - fixtures
from tests.fakes import colored_pixels

pytest.importorskip("starlette")

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Locator, Page, Request, Route

RNG = np.random.default_rng(3)
BROKEN = b"\x89PNG\r\n\x1a\nand then nothing that belongs to an image"


@pytest.fixture(scope="module")
def inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server files corrections."""
    return tmp_path_factory.mktemp("inbox")


@pytest.fixture(scope="module")
def live_page(fitted: Fitted, inbox: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:  # noqa: F811
    """URL of ``tl serve color-cards@production --collect INBOX``."""
    from automl_tl.server.serve import Access, serve
    from automl_tl.server.served_model import ServingOptions

    ready: Queue[tuple[str, Callable[[], object]]] = Queue()
    options = {
        "access": Access(port=0),
        "options": ServingOptions(registry=fitted.home / "registry"),
        "collect": inbox,
        "on_ready": lambda serving, stop: ready.put((serving.url, stop)),
    }
    thread = Thread(target=serve, args=("color-cards@production",), kwargs=options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_HOME", str(tmp_path_factory.mktemp("home")))
        thread.start()
        url, stop = ready.get(timeout=120)
    yield url
    stop()
    thread.join()


def png(pixels: np.ndarray) -> bytes:
    target = BytesIO()
    Image.fromarray(pixels).save(target, "PNG")
    return target.getvalue()


def red(name: str = "red.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": png(colored_pixels("red", RNG))}


def green(name: str = "green.png") -> FilePayload:
    return {"name": name, "mimeType": "image/png", "buffer": png(colored_pixels("green", RNG))}


def stripes() -> FilePayload:
    """An image unlike any color card."""
    pixels = np.zeros((80, 80, 3), dtype=np.uint8)
    pixels[:, ::8] = pixels[::8] = 255
    return {"name": "stripes.png", "mimeType": "image/png", "buffer": png(pixels)}


def broken() -> FilePayload:
    return {"name": "broken.png", "mimeType": "image/png", "buffer": BROKEN}


def card(page: Page, name: str) -> Locator:
    return page.get_by_role("article", name=name, exact=True)


def label(scope: Locator) -> Locator:
    return scope.get_by_role("heading", level=3)


def choose(page: Page, *files: FilePayload) -> None:
    """Choose files and wait for every answer."""
    page.get_by_label("Choose images", exact=True).set_input_files(list(files))
    page.wait_for_function("() => !document.querySelector('.pending')")


def test_live_page_predicts_a_chosen_image(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)

    choose(page, red())

    answer = card(page, "red.png")
    assert re.fullmatch(r"red \d+(\.\d)?%", label(answer).inner_text())
    bars = answer.get_by_role("list", name="Most probable classes").get_by_role("listitem").all_inner_texts()
    assert [bar.split("\n")[0] for bar in bars] == ["red", "green"]
    assert sum(float(bar.split("\n")[-1].strip("<%")) for bar in bars) == pytest.approx(100, abs=0.2)


def test_live_page_predicts_several_files_and_counts_them(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)

    choose(page, red("1.png"), green("2.png"), red("3.png"), green("4.png"), red("5.png"), broken())

    assert page.get_by_role("article").count() == 6
    assert page.locator("#counts").inner_text() == "6 images: 5 answered, 1 without result."
    assert "6 images: 5 answered, 1 without result." in page.get_by_role("status").inner_text()
    assert [label(card(page, f"{number}.png")).inner_text().split()[0] for number in (1, 2, 3)] == ["red", "green", "red"]


def test_live_page_shows_an_error_at_its_file_and_tries_again(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)

    choose(page, broken(), green())

    answer = card(page, "broken.png")
    assert label(answer).inner_text() == "No result"
    assert answer.locator(".reason").inner_text().startswith("truncated")
    assert label(card(page, "green.png")).inner_text().startswith("green")
    with page.expect_response("**/api/predict*") as response:
        answer.get_by_role("button", name="Try again").click()
    assert response.value.status == 400


def test_live_page_predicts_dropped_files_and_folders(open_page: OpenPage, live_page: str, tmp_path: Path) -> None:
    for path, image in {"folder/1.png": red(), "folder/sub/2.png": green(), "folder/.hidden": broken(), "3.png": red()}.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(image["buffer"])
    page = open_page(live_page)
    browser, where = page.context.new_cdp_session(page), {"x": 300, "y": 200}
    data = {"items": [], "files": [str(tmp_path / "folder"), str(tmp_path / "3.png")], "dragOperationsMask": 1}

    for kind in ("dragEnter", "dragOver"):
        browser.send("Input.dispatchDragEvent", {"type": kind, **where, "data": data})
    assert page.locator("body.dragging").count() == 1
    browser.send("Input.dispatchDragEvent", {"type": "drop", **where, "data": data})

    page.get_by_text("3 images: 3 answered.", exact=True).wait_for()
    assert page.locator(".file").all_inner_texts() == ["1.png", "2.png", "3.png"]
    assert page.locator("body.dragging").count() == 0


def test_live_page_predicts_a_pasted_image(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate(
        """bytes => navigator.clipboard.write(
            [new ClipboardItem({ "image/png": new Blob([new Uint8Array(bytes)], { type: "image/png" }) })])""",
        list(red()["buffer"]),
    )

    page.keyboard.press("Control+V")

    assert label(page.get_by_role("article")).filter(has_text=re.compile("^red")).inner_text()


def test_live_page_says_that_pasted_text_is_no_image(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page, permissions=["clipboard-read", "clipboard-write"])
    page.evaluate("() => navigator.clipboard.writeText('hello')")

    page.keyboard.press("Control+V")

    page.get_by_role("status").get_by_text("The clipboard holds no image.").wait_for(state="attached")
    assert page.get_by_role("article").count() == 0


def test_live_page_webcam_predicts_one_frame_at_a_time(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page, permissions=["camera"])
    in_flight: set[Request] = set()
    most = num_answers = 0

    def start(request: Request) -> None:
        nonlocal most
        if "/api/predict" in request.url:
            in_flight.add(request)
            most = max(most, len(in_flight))

    def end(request: Request) -> None:
        nonlocal num_answers
        num_answers += request in in_flight
        in_flight.discard(request)

    page.on("request", start)
    page.on("requestfinished", end)

    page.get_by_role("button", name="Use the webcam").click()
    for _ in range(4):
        page.wait_for_event("requestfinished", lambda request: "/api/predict" in request.url)

    assert most == 1
    assert num_answers >= 4
    assert label(page.locator("#webcam-answer")).inner_text() != "Starting …"


def test_live_page_webcam_keeps_a_frame_and_is_off_when_hidden(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page, permissions=["camera"])
    page.get_by_role("button", name="Use the webcam").click()
    page.wait_for_event("requestfinished", lambda request: "/api/predict" in request.url)

    page.get_by_role("button", name="Keep this frame").click()
    page.get_by_role("article").get_by_text(re.compile("^webcam .*jpg$")).wait_for()
    track = page.evaluate_handle("() => document.querySelector('video').srcObject.getVideoTracks()[0]")
    page.evaluate(  # a headless window cannot be covered by another
        """() => {
            Object.defineProperty(document, "hidden", { value: true });
            document.dispatchEvent(new Event("visibilitychange"));
        }"""
    )

    assert track.evaluate("track => track.readyState") == "ended"
    assert not page.locator("video").is_visible()
    assert "switched off" in page.get_by_role("alert").inner_text()
    assert page.get_by_role("button", name="Use the webcam").is_visible()


def test_live_page_explains_with_heatmap_and_training_images(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)
    choose(page, red())
    answer = card(page, "red.png")

    answer.get_by_role("button", name="Explain").click()

    heatmap = answer.get_by_role("img", name="Heatmap of the evidence for red")
    heatmap.wait_for()
    assert heatmap.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    neighbors = answer.get_by_role("img", name="Training image of red")
    assert neighbors.count() == 4
    assert neighbors.first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 10
    button = answer.get_by_role("button", name="Hide explanation")
    assert button.get_attribute("aria-expanded") == "true"
    button.click()
    assert not heatmap.is_visible()


def test_live_page_shows_an_image_unlike_the_training_images_as_such(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)

    choose(page, stripes())

    answer = card(page, "stripes.png")
    assert label(answer).inner_text() == "Unlike the training images"
    assert "out of distribution" in answer.locator(".reason").inner_text()
    assert page.locator("#counts").inner_text() == "1 image: 1 unlike the training images."
    assert answer.get_by_role("list", name="Most probable classes, not an answer").is_visible()


def test_live_page_shows_an_abstained_image_as_not_sure(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)

    def withhold(route: Route) -> None:
        response = route.fetch()
        changes = {"decision": "not sure", "reason": "confidence 51%, but an error rate of at most 5% requires more than 90%"}
        route.fulfill(response=response, json={**response.json(), **changes})

    page.route("**/api/predict*", withhold)
    choose(page, red())

    answer = card(page, "red.png")
    assert label(answer).inner_text() == "Not sure"
    assert "requires more than 90%" in answer.locator(".reason").inner_text()


def test_live_page_waits_and_retries_while_the_server_is_busy(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)
    busy = [{"status": 503, "headers": {"Retry-After": "1"}, "json": {"error": "busy"}}]
    page.route("**/api/predict*", lambda route: route.fulfill(**busy.pop()) if busy else route.continue_())

    page.get_by_label("Choose images", exact=True).set_input_files([red()])
    page.get_by_text("The server is busy; next try in 1 s").wait_for()

    label(card(page, "red.png")).filter(has_text=re.compile("^red")).wait_for()


def test_live_page_says_that_the_server_does_not_answer(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)
    page.route("**/api/predict*", lambda route: route.abort("connectionrefused"))

    choose(page, red())

    assert "does not answer" in card(page, "red.png").locator(".reason").inner_text()


def test_live_page_shows_the_facts_and_the_limits_of_the_model(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)

    facts = page.get_by_role("complementary", name="About this model")
    facts.get_by_text("95% confidence interval").wait_for()

    assert page.get_by_role("heading", level=1).inner_text() == "color-cards@production"
    text = facts.inner_text()
    for fact in ("production", "lite/efficientnet_lite0", "green", "red", "test images", "What this model does not know"):
        assert fact in text
    assert "2 classes and nothing else" in text


def test_live_page_sends_the_right_class(open_page: OpenPage, live_page: str, inbox: Path) -> None:
    page = open_page(live_page)
    wrong = red()
    choose(page, wrong)
    answer = card(page, "red.png")

    answer.get_by_role("button", name="Wrong?").click()
    answer.get_by_label("Correct class").select_option("green")
    answer.get_by_role("button", name="Send").click()

    answer.get_by_text("Saved as “green”").wait_for()
    assert [file.read_bytes() for file in inbox.rglob("green/*")] == [wrong["buffer"]]


def test_live_page_sends_a_new_class_even_if_the_server_forgot_the_image(
    open_page: OpenPage, live_page: str, inbox: Path
) -> None:
    page = open_page(live_page)
    choose(page, stripes())
    forgotten = [{"status": 404, "json": {"error": "no longer in memory"}}]
    page.route("**/api/feedback", lambda route: route.fulfill(**forgotten.pop()) if forgotten else route.continue_())
    answer = card(page, "stripes.png")

    answer.get_by_role("button", name="Name the class").click()
    answer.get_by_label("Correct class").select_option("Another class …")
    answer.get_by_label("Name of the class").fill("stripes")
    answer.get_by_label("Name of the class").press("Enter")

    answer.get_by_text("Saved as “stripes”").wait_for()
    assert [file.read_bytes() for file in inbox.rglob("stripes/*")] == [stripes()["buffer"]]


def test_live_page_updates_the_facts_when_another_version_answers(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)
    page.get_by_text("95% confidence interval").wait_for()

    def promote(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "version": "color-cards@2"})

    page.route("**/api/predict*", promote)
    with page.expect_request("**/api/model"):
        choose(page, red())


def test_live_page_works_by_keyboard_alone(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)
    page.on("filechooser", lambda _: None)  # from now on; otherwise Playwright may look for it too late

    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "What it does not know"
    page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    assert chooser.value.is_multiple()
    chooser.value.set_files([green()])
    label(card(page, "green.png")).filter(has_text=re.compile("^green")).wait_for()
    for name in ("Use the webcam", "Clear", "Explain"):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == name
    page.keyboard.press("Enter")
    page.get_by_role("img", name="Heatmap of the evidence for green").wait_for()
    assert page.evaluate("document.activeElement.textContent") == "Hide explanation"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.tagName") == "SELECT"
    page.keyboard.press("r")  # chooses red
    assert page.get_by_label("Correct class").input_value() == "red"
    outline = page.get_by_label("Correct class").evaluate("element => getComputedStyle(element).outlineStyle")
    assert outline == "solid"


def test_live_page_clears_results(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page)
    choose(page, red(), green())

    page.get_by_role("button", name="Clear").click()

    assert page.get_by_role("article").count() == 0
    assert not page.get_by_role("heading", name="Results").is_visible()


def test_live_page_fits_a_phone(open_page: OpenPage, live_page: str) -> None:
    page = open_page(live_page, viewport=PHONE, has_touch=True, is_mobile=True, permissions=["camera"])
    choose(page, red(f"{'a very long name ' * 8}.png"), red("x" * 120 + ".png"), broken(), stripes())

    page.get_by_role("button", name="Explain").first.click()
    page.get_by_role("button", name="Hide explanation").wait_for()
    page.get_by_role("button", name="Use the webcam").click()
    page.wait_for_event("requestfinished", lambda request: "/api/predict" in request.url)

    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    outside = page.evaluate(
        """() => [...document.querySelectorAll("main *, aside *, header *")]
            .filter((one) => one.checkVisibility() && !one.closest(".unseen"))
            .filter((one) => one.getBoundingClientRect().right > innerWidth + 1)
            .map((one) => one.outerHTML.slice(0, 100))"""
    )
    assert not outside


def test_live_page_is_dark_at_night(open_page: OpenPage, live_page: str) -> None:
    brightness = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"

    assert min(open_page(live_page, color_scheme="light").evaluate(brightness)) > 230
    assert max(open_page(live_page, color_scheme="dark").evaluate(brightness)) < 40


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_live_page_is_accessible(
    open_page: OpenPage, live_page: str, color_scheme: str, check_accessibility: Callable[[Page], None]
) -> None:
    page = open_page(live_page, color_scheme=color_scheme, permissions=["camera"])
    check_accessibility(page)

    choose(page, red(), broken(), stripes())
    card(page, "red.png").get_by_role("button", name="Explain").click()
    page.get_by_role("button", name="Hide explanation").wait_for()
    card(page, "red.png").get_by_role("button", name="Wrong?").click()
    page.get_by_role("button", name="Use the webcam").click()
    page.wait_for_event("requestfinished", lambda request: "/api/predict" in request.url)

    check_accessibility(page)
