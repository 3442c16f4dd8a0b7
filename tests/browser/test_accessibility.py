"""The accessibility check of the other tests finds what it should."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from tests.browser.conftest import OpenPage

if TYPE_CHECKING:
    from playwright.sync_api import Page

GOOD = "data:text/html,<!doctype html><html lang='en'><title>t</title><main><h1>Images</h1><img alt='a flower'></main></html>"


def test_check_accessibility_accepts_a_described_image(
    open_page: OpenPage, check_accessibility: Callable[[Page], None]
) -> None:
    check_accessibility(open_page(GOOD))


def test_check_accessibility_rejects_an_image_without_description(
    open_page: OpenPage, check_accessibility: Callable[[Page], None]
) -> None:
    page = open_page(GOOD.replace(" alt='a flower'", ""))

    with pytest.raises(AssertionError, match="image-alt"):
        check_accessibility(page)
