"""The test module that ``tl plugins check`` runs with pytest."""

from automl_tl.testing import Check


def test_contract(check: Check) -> None:
    """Run one check of the plugin under test."""
    check()
