"""A server that most tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.server.toy_server import RunningServer


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    """A server of colors@production; tests must not move the alias."""
    from tests.server.toy_server import serving  # needs the extra [serve], unlike the tests that are skipped without it

    with serving() as started:
        yield started
