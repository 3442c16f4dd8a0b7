"""The review page in a real browser: by keyboard and mouse, with reloads, killed servers and several windows."""

from __future__ import annotations

import csv
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("starlette")

from automl_tl.data.corrections import read_corrections
from automl_tl.server.review import ReviewServer
from automl_tl.server.security import Guard
from tests.browser.conftest import PHONE, OpenPage
from tests.optional import import_of_dev_group
from tests.server.planted_errors import content_of, planted_review, write_planted
from tests.server.toy_server import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

expect = import_of_dev_group("playwright.sync_api").expect
expect.set_options(timeout=15_000)
NUM_IMAGES, NUM_ERRORS = 120, 50


@dataclass(frozen=True)
class Reviewed:
    """A running page, and what is on disk."""

    url: str
    images: Path
    corrections: Path
    errors: dict[str, str]

    @property
    def decisions(self) -> dict[str, tuple[str, str]]:
        """Decision and label by path, as the file says."""
        if not self.corrections.exists():
            return {}
        rows = read_corrections(self.corrections).by_digest.values()
        return {row.path: (row.decision, row.label) for row in rows}


@pytest.fixture
def reviewed(tmp_path: Path) -> Iterator[Reviewed]:
    with started(tmp_path, NUM_IMAGES, NUM_ERRORS) as page:
        yield page


@pytest.fixture
def few(tmp_path: Path) -> Iterator[Reviewed]:
    with started(tmp_path, 24, 6) as page:
        yield page


@contextmanager
def started(folder: Path, num_images: int, num_errors: int) -> Iterator[Reviewed]:
    images, corrections = folder / "colors", folder / "colors.corrections.csv"
    errors = write_planted(images, num_images, num_errors)
    (images / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno image")
    app = ReviewServer(*planted_review(images), corrections, images).app()
    with running(Guard(app, host="127.0.0.1")) as port:
        yield Reviewed(f"http://127.0.0.1:{port}/", images, corrections, errors)


def opened(open_page: OpenPage, url: str, **options: object) -> Page:
    page = open_page(url, **options)
    page.locator("body[data-ready]").wait_for()
    return page


def press(page: Page, key: str, times: int = 1) -> None:
    """Press a key as fast as a machine can; nothing waits for the page."""
    for _ in range(times):
        page.keyboard.press(key)


def wait_for_decisions(page: Page, number: int) -> None:
    expect(page.locator("#counts")).to_contain_text(re.compile(rf"^{number} of "))


def test_review_page_corrects_50_planted_errors_by_keyboard(reviewed: Reviewed, open_page: OpenPage) -> None:
    before = content_of(reviewed.images)
    page = opened(open_page, reviewed.url)

    press(page, "a", NUM_ERRORS // 2)
    wait_for_decisions(page, NUM_ERRORS // 2)
    page.reload()
    page.locator("body[data-ready]").wait_for()
    expect(page.locator("#place")).to_have_text(f"{NUM_ERRORS // 2 + 1} of {NUM_ERRORS + 1}")
    press(page, "Enter", NUM_ERRORS // 2)
    press(page, "x")  # the broken file
    page.get_by_role("heading", name="Every image of this selection has a decision").wait_for()

    assert reviewed.decisions == {path: ("relabel", true) for path, true in reviewed.errors.items()} | {
        "red/broken.png": ("exclude", "")
    }
    assert content_of(reviewed.images) == before
    expect(page.locator("#done-command")).to_contain_text(f"--corrections {reviewed.corrections}")


def test_review_page_shows_suggestion_reason_and_typical_images(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url)

    path = page.locator("#path").inner_text()
    true, label = few.errors[path], path.split("/")[0]
    expect(page.get_by_role("heading", level=2)).to_have_text(f"Labeled {label}. Is it {true}?")
    expect(page.locator("#reasons")).to_contain_text(f"A judge of colors says {true} (9")
    expect(page.get_by_role("button", name=f"Accept: {true}")).to_be_enabled()
    expect(page.get_by_role("img", name=f"Typical {true}")).to_have_count(4)
    expect(page.get_by_role("img", name=f"Image {path}")).to_have_js_property("naturalWidth", 24)


def test_review_page_keeps_excludes_and_chooses_by_number(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url)
    paths = []

    for key in ("k", "x", "2"):
        paths.append(page.locator("#path").inner_text())
        place = page.locator("#place").inner_text()
        press(page, key)
        expect(page.locator("#place")).not_to_have_text(place)

    labels = [path.split("/")[0] for path in paths]
    expected = ("keep", "") if labels[2] == "green" else ("relabel", "green")
    assert few.decisions == dict(zip(paths, [("keep", ""), ("exclude", ""), expected], strict=True))


def test_review_page_finds_classes_by_name_and_makes_new_ones(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url)
    first = page.locator("#path").inner_text()

    press(page, "c")
    page.keyboard.type("vio")
    expect(page.get_by_role("listbox", name="Classes").get_by_role("option")).to_have_text(["New class “vio”"])
    page.keyboard.type("let")
    press(page, "Enter")
    wait_for_decisions(page, 1)
    second = page.locator("#path").inner_text()
    press(page, "/")
    page.keyboard.type("LET")
    expect(page.get_by_role("listbox", name="Classes").get_by_role("option").first).to_have_text("violet")
    press(page, "Enter")
    wait_for_decisions(page, 2)

    assert few.decisions == {first: ("relabel", "violet"), second: ("relabel", "violet")}


def test_review_page_undoes_its_own_decisions_in_order(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url)
    first = page.locator("#path").inner_text()
    press(page, "k")
    press(page, "x")
    wait_for_decisions(page, 2)

    page.reload()
    page.locator("body[data-ready]").wait_for()
    press(page, "u")
    wait_for_decisions(page, 1)
    press(page, "Control+z")
    wait_for_decisions(page, 0)

    expect(page.locator("#path")).to_have_text(first)
    assert few.decisions == {}
    with few.corrections.open(newline="", encoding="utf-8") as file:
        assert [row["decision"] for row in csv.DictReader(file)] == ["keep", "exclude", "undo", "undo"]


def test_review_page_undo_brings_an_earlier_decision_back(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url)
    first = page.locator("#path").inner_text()
    press(page, "k")
    wait_for_decisions(page, 1)

    press(page, "ArrowLeft")
    expect(page.locator("#badge")).to_have_text("Kept")
    press(page, "x")
    expect(page.locator("#counts")).to_contain_text("1 excluded")
    press(page, "u")

    expect(page.locator("#badge")).to_have_text("Kept")
    assert few.decisions == {first: ("keep", "")}


def test_review_page_shows_decisions_of_another_window(few: Reviewed, open_page: OpenPage) -> None:
    one, two = opened(open_page, few.url), opened(open_page, few.url)
    first = one.locator("#path").inner_text()

    press(one, "k")
    expect(two.locator("#badge")).to_have_text("Kept")
    press(two, "x")
    wait_for_decisions(two, 1)
    press(one, "ArrowLeft")
    expect(one.locator("#badge")).to_have_text("Excluded")
    press(two, "u")

    expect(one.locator("#badge")).to_have_text("Kept")
    assert few.decisions == {first: ("keep", "")}


def test_review_page_does_not_undo_what_another_window_decided_later(few: Reviewed, open_page: OpenPage) -> None:
    one, two = opened(open_page, few.url), opened(open_page, few.url)
    first = one.locator("#path").inner_text()
    press(one, "k")
    expect(two.locator("#badge")).to_have_text("Kept")
    press(two, "x")
    press(one, "ArrowLeft")
    expect(one.locator("#badge")).to_have_text("Excluded")

    press(one, "ArrowRight")
    press(one, "u")

    expect(one.get_by_role("status")).to_have_text("Nothing to undo in this window.")
    assert few.decisions == {first: ("exclude", "")}


def test_review_page_filters_by_kind_class_and_status(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url)

    page.get_by_label("Kind").select_option(label="Broken files (1)")
    expect(page.get_by_role("heading", level=2)).to_have_text("This file cannot be used")
    expect(page.locator("#broken")).to_contain_text("truncated")
    page.get_by_label("Kind").select_option(label="All images (25)")
    page.locator("#label").select_option("blue")
    expect(page.locator("#path")).to_have_text(re.compile("^blue/"))
    expect(page.locator("#place")).to_have_text(re.compile(r"^1 of \d$"))
    press(page, "k")
    wait_for_decisions(page, 1)
    page.get_by_label("Status").select_option("decided")
    expect(page.locator("#place")).to_have_text("1 of 1")
    page.reload()

    expect(page.locator("#place")).to_have_text("1 of 1")
    expect(page.locator("#badge")).to_have_text("Kept")


def test_review_page_decides_in_the_grid(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url)

    press(page, "g")
    cards = page.locator(".card")
    expect(cards).to_have_count(7)
    expect(cards.nth(0)).to_be_focused()
    press(page, "a")
    expect(cards.nth(0)).to_contain_text("Relabeled")
    expect(cards.nth(1)).to_be_focused()
    press(page, "ArrowRight")
    press(page, "x")
    expect(cards.nth(2)).to_contain_text("Excluded")
    press(page, "Enter")

    expect(page.locator("#place")).to_have_text("4 of 7")
    assert len(few.decisions) == 2


def test_review_page_loads_a_large_queue_in_parts(reviewed: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, reviewed.url)
    page.goto(f"{reviewed.url}#kind=all&view=grid")
    sizes: list[int] = []
    page.on("request", lambda request: sizes.append(request.url.count(",") + 1) if "/api/items" in request.url else None)

    page.reload()
    page.locator("body[data-ready]").wait_for()
    expect(page.locator(".card")).to_have_count(48)
    page.get_by_role("button", name="Next page").click()
    expect(page.locator("#page-place")).to_have_text("Page 2 of 3")

    assert sizes == [48, 48]


def test_review_page_can_turn_single_keys_off(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url)

    press(page, "?")
    page.get_by_label("Keys decide").uncheck()
    page.get_by_role("button", name="Close").click()
    press(page, "x")
    page.get_by_role("button", name="Keep").click()
    wait_for_decisions(page, 1)

    assert [decision for decision, _ in few.decisions.values()] == ["keep"]


def test_review_page_is_dark_at_night(few: Reviewed, open_page: OpenPage) -> None:
    brightness = "() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3).map(Number)"

    assert min(opened(open_page, few.url, color_scheme="light").evaluate(brightness)) > 230
    assert max(opened(open_page, few.url, color_scheme="dark").evaluate(brightness)) < 40


def test_review_page_fits_a_phone(few: Reviewed, open_page: OpenPage) -> None:
    page = opened(open_page, few.url, viewport=PHONE, has_touch=True, is_mobile=True)

    page.get_by_role("button", name="Accept").tap()
    wait_for_decisions(page, 1)
    expect(page.get_by_role("button", name="Exclude")).to_be_in_viewport()
    for view in ("single", "grid"):
        page.get_by_text(view.capitalize(), exact=True).tap()
        assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_review_page_is_accessible(
    few: Reviewed, open_page: OpenPage, color_scheme: str, check_accessibility: Callable[[Page], None]
) -> None:
    page = opened(open_page, few.url, color_scheme=color_scheme)
    press(page, "a")
    wait_for_decisions(page, 1)
    check_accessibility(page)
    press(page, "ArrowLeft")
    expect(page.locator("#badge")).not_to_be_empty()
    check_accessibility(page)

    for key in ("c", "?"):
        press(page, key)
        expect(page.get_by_role("dialog")).to_be_visible()
        check_accessibility(page)
        press(page, "Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
    press(page, "g")
    expect(page.locator(".card").first).to_be_visible()
    check_accessibility(page)
    page.get_by_label("Kind").select_option(label="Broken files (1)")
    page.get_by_text("Single", exact=True).click()
    expect(page.locator("#broken")).to_be_visible()
    check_accessibility(page)
    press(page, "x")
    expect(page.locator("#done")).to_be_visible()
    check_accessibility(page)


@contextmanager
def review_process(images: Path, port: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The real command, and its first line of output."""
    command = [sys.executable, "-m", "automl_tl", "review", str(images), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_review_survives_kill_9_in_the_middle(browser: Browser, tmp_path: Path) -> None:
    images = tmp_path / "colors"
    errors = write_planted(images, 60, 6, side_px=48)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/"

    with review_process(images, port) as (process, line):
        assert url.rstrip("/") in line
        page = browser.new_page()  # not open_page, which allows no failed request
        page.goto(url)
        page.locator("body[data-ready]").wait_for()
        press(page, "a", 3)
        wait_for_decisions(page, 3)
        process.kill()  # SIGKILL
        process.wait()
        saved = read_corrections(tmp_path / "colors.corrections.csv").by_digest
        press(page, "a")
        expect(page.get_by_role("alert")).to_contain_text("Not saved yet")
        press(page, "x")  # passed over while the server is away

    with review_process(images, port):
        expect(page.get_by_role("alert")).to_be_hidden()
        wait_for_decisions(page, 4)
        place = page.locator("#place").inner_text()
        page.reload()
        expect(page.locator("#place")).to_have_text(place)
        page.close()

    rows = read_corrections(tmp_path / "colors.corrections.csv").by_digest
    assert len(saved) == 3
    assert saved.items() <= rows.items()
    assert {row.path: row.label for row in rows.values()}.items() <= errors.items()
