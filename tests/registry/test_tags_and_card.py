from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl_registry import Metrics, Registry
from automl_tl_registry.errors import InvalidNameError
from tests.registry.registry_fakes import publish


def test_tag_adds_and_removes_tags(registry: Registry, work: Path) -> None:
    publish(registry, work)
    registry.tag("insects@1", add=["paper", "team:bio"])

    tagged = registry.tag("insects", add=["best"], remove=["paper", "never"])

    assert tagged.tags == ("best", "team:bio")
    assert [each.ref for each in registry.versions(tag="team:bio")] == ["insects@1"]
    assert registry.versions(tag="paper") == []
    assert registry.tag("insects", add=["best"]) == tagged
    assert len(registry.events()) == 3


@pytest.mark.parametrize("tag", ["", "a b", "a/b", "\x07", "x" * 129])
def test_tag_rejects_malformed_tags(registry: Registry, work: Path, tag: str) -> None:
    publish(registry, work)

    with pytest.raises(InvalidNameError, match="tag"):
        registry.tag("insects", add=[tag])


def test_card_escapes_facts(registry: Registry, work: Path) -> None:
    publish(
        registry, work, notes="line | one\n<script>", classes=["a|b", "c\x1b[31m", "d\\"], environment={"os": {"name": "Linux"}}
    )

    card = registry.card("insects@1")

    assert "accuracy | 90.0% (confidence interval 85.0% to 95.0%, n = 100)" in card
    assert "| os.name | Linux |" in card
    assert "\x1b" not in card
    assert "<script>" not in card
    assert "a\\|b, c \\[31m, d\\\\." in card


def test_card_starts_with_the_headline_and_missed_classes(registry: Registry, work: Path) -> None:
    extra = {"balanced_accuracy": 0.5, "headline": "balanced_accuracy", "warnings": ["wasp: 0 of 9 found"]}
    publish(registry, work, metrics=Metrics(accuracy=0.9, interval=(0.8, 1.0), num_images=90, **extra))

    rows = registry.card("insects@1").partition("## Evaluation")[2].splitlines()

    assert rows[4].startswith("| balanced accuracy | 50.0%")
    assert rows[5].startswith("| accuracy | 90.0%")
    assert rows[6] == "| missed class | wasp: 0 of 9 found |"
