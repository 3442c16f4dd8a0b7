"""The model card: Markdown built from the facts only; unknown facts are omitted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from automl_tl_registry.values import Facts, ModelVersion

__all__ = ["model_card"]


def model_card(version: ModelVersion) -> str:
    """Return the model card of a version; it depends only on the version, not on its current aliases."""
    facts = version.facts
    lines = [f"# {version.ref}", "", f"Image classifier for {len(facts.classes)} classes: {_listed(facts.classes)}.", ""]
    lines += _table("Evaluation", _measured(facts))
    lines += _table("Training", _made(version))
    for title, content in (("Data", facts.data), ("Environment", facts.environment), ("Lineage", facts.lineage)):
        lines += _table(title, _flat(content))
    lines += _table("Preprocessing", _flat(facts.preprocessing))
    lines += _table(
        "Files", [(role, f"{blob.size_bytes:,} bytes, sha256 `{blob.digest}`") for role, blob in sorted(version.blobs.items())]
    )
    if facts.notes:
        lines += ["## Notes", "", *(_plain(line) for line in facts.notes.splitlines()), ""]
    return "\n".join(lines)


def _measured(facts: Facts) -> list[tuple[str, str]]:
    metrics = facts.metrics
    low, high = metrics.interval
    rows = [("accuracy", f"{metrics.accuracy:.1%} (confidence interval {low:.1%} to {high:.1%}, n = {metrics.num_images})")]
    if facts.latency_ms is not None:
        rows.append(("latency", f"{facts.latency_ms:.3g} ms per image"))
    return rows + list(_flat(metrics.model_extra or {}))


def _made(version: ModelVersion) -> list[tuple[str, str]]:
    facts = version.facts
    rows = [
        ("backbone", facts.backbone),
        ("strategy", facts.strategy),
        ("parent", version.parent),
        ("published", f"{version.created_at:%Y-%m-%d %H:%M} UTC by {version.actor}"),
        ("model digest", facts.model_digest),
        ("total time", None if facts.seconds is None else f"{facts.seconds:.0f} s"),
        ("imported from manifest", version.origin),
    ]
    return [(key, value) for key, value in rows if value is not None]


def _flat(content: Mapping[str, JsonValue], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in sorted(content.items()):
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            yield prefix + key, _listed([str(each) for each in value])
        elif value is not None:
            yield prefix + key, f"{value:.4g}" if isinstance(value, float) else str(value)


def _listed(words: list[str], most: int = 20) -> str:
    shown = ", ".join(_plain(word) for word in words[:most])
    return f"{shown} and {len(words) - most} more" if len(words) > most else shown


def _table(title: str, rows: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> list[str]:
    filled = [f"| {_plain(key)} | {_plain(value)} |" for key, value in rows]
    return [f"## {title}", "", "| Fact | Value |", "| --- | --- |", *filled, ""] if filled else []


def _plain(text: str) -> str:
    """Return ``text`` on one line, without control characters or anything that Markdown reads as a table, tag or link."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return visible.replace("|", "\\|").replace("<", "&lt;").replace("[", "\\[")
