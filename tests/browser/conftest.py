"""Pages of the real server in a real browser: chromium from the system, driven by Playwright; axe-core for accessibility.

``.ci/run`` installs chromium and axe-core, and requires them. Elsewhere a test is skipped without them:
``npm install --prefix .axe axe-core onnxruntime-web@1.30.0`` and any chromium on PATH are enough.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page, Request

AXE_FILE: Final = Path(__file__).parents[2] / ".axe" / "node_modules" / "axe-core" / "axe.min.js"
FLAGS: Final = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--use-fake-device-for-media-stream",  # a webcam that shows a moving pattern
    "--use-fake-ui-for-media-stream",  # ... without asking for permission
)
PHONE: Final = {"width": 360, "height": 740}
DESKTOP: Final = {"width": 1280, "height": 900}


def missing(what: str) -> NoReturn:
    """Skip the test."""
    pytest.skip(f"{what} is not installed")


@pytest.fixture(scope="module")  # not longer: while Playwright runs, no other test of this process can start an event loop
def browser() -> Iterator[Browser]:
    """A chromium without a window."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or missing("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        yield browser
        browser.close()


OpenPage = Callable[..., "Page"]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[OpenPage]:
    """Open a URL in a window of its own: ``open_page(url, **options of Browser.new_context)``.

    At the end the test fails if a page asked another host for anything, reported an error in its console, or raised one.
    """
    with ExitStack() as contexts:
        yield lambda url, **options: contexts.enter_context(_window(browser, url, {"viewport": DESKTOP, **options}))


@contextmanager
def _window(browser: Browser, url: str, options: dict[str, Any]) -> Iterator[Page]:
    context: BrowserContext = browser.new_context(reduced_motion="reduce", **options)
    context.set_default_timeout(15_000)
    problems: list[str] = []

    def check(request: Request) -> None:
        if not request.url.startswith((url.rstrip("/") + "/", "data:", "blob:")):
            problems.append(f"asked for {request.url}")

    page = context.new_page()
    page.on("request", check)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if is_problem(message.type, message.text) else None)
    page.goto(url)
    yield page
    context.close()
    assert not problems


def is_problem(kind: str, text: str) -> bool:
    """Whether a message of the console is an error or warning; requests that are answered with one are not."""
    return kind in ("error", "warning") and not text.startswith("Failed to load resource")


@pytest.fixture
def check_accessibility() -> Callable[[Page], None]:
    """Fail if axe-core finds a violation of WCAG or of good practice in the page as it is."""
    if not AXE_FILE.is_file():
        missing("axe-core")
    script = AXE_FILE.read_text(encoding="utf-8")

    def check(page: Page) -> None:
        page.evaluate(script)  # not a script element, which the page's own policy forbids
        violations = page.evaluate("async () => (await axe.run()).violations")
        found = [f"{one['id']}: {one['help']}: {node['html'][:200]}" for one in violations for node in one["nodes"]]
        assert not found

    return check
