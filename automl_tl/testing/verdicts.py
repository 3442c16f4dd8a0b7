"""How a check ends, if not well."""

from __future__ import annotations

__all__ = ["CheckFailed", "NotApplicable", "Unreachable", "require"]


class CheckFailed(AssertionError):
    """The plugin breaks a promise; the text says what was found, what was expected and what to do."""


class Unreachable(Exception):
    """The check could not even start, because of what another check reports."""

    def __init__(self, other_check: str, why: str) -> None:
        super().__init__(f"see {other_check}: {why}")


class NotApplicable(Exception):
    """There is nothing to check, whatever the plugin does: no GPU here, no weights here, nothing that is trained in steps."""


def require(holds: bool, text: str) -> None:
    """Fail the check with ``text`` unless it ``holds``."""
    if not holds:
        raise CheckFailed(text)
