"""What the registry says of changes, as tables and lines for people, on stdout."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape

from automl_tl.cli.render import result, table

if TYPE_CHECKING:
    from automl_tl_registry import AliasChange
    from automl_tl_registry.comparison import Difference

__all__ = ["show_alias_change", "show_difference"]


def show_alias_change(change: AliasChange) -> None:
    """Where an alias went, and what the gates said."""
    if change.gates:
        rows = ((gate.gate, gate.verdict, gate.text) for gate in change.gates)
        result.print(table("gate", "verdict", "figures", rows=rows))
    was = "unset" if change.previous is None else f"{change.name}@{change.previous}"
    now = "unset" if change.version is None else f"{change.name}@{change.version}"
    how = "" if change.changed else " (it was there already)"
    result.print(f"{change.name}@{change.alias}: {was} -> [bold]{now}[/]{how}{' (forced)' if change.forced else ''}")
    for note in change.notes:
        result.print(escape(note))


def show_difference(difference: Difference) -> None:
    """What lies between two versions, the images that changed sides last."""
    changes = [
        (kind, change.key, "-" if change.before is None else change.before, "-" if change.after is None else change.after)
        for kind, group in (
            ("settings", difference.settings),
            ("data", difference.data),
            ("metrics", difference.metrics),
        )
        for change in group
    ]
    result.print(table("", "what", difference.before, difference.after, rows=changes))
    for word, classes in (("new", difference.classes_added), ("gone", difference.classes_removed)):
        if classes:
            result.print(f"classes {word}: {escape(', '.join(classes))}")
    if difference.images is not None:
        added, removed = (sum(map(len, each.values())) for each in (difference.images.added, difference.images.removed))
        relabeled, moved = len(difference.images.relabeled), len(difference.images.moved)
        result.print(f"images: {added} added, {removed} removed, {relabeled} relabeled, {moved} moved to another part")
    if difference.comparison is not None:
        both = difference.comparison
        result.print(
            f"on the {both.num_images} images that both were tested on: {both.gained} newly right, {both.lost} newly wrong, "
            f"difference {100 * both.difference:+.1f} points "
            f"({100 * both.interval[0]:+.1f} to {100 * both.interval[1]:+.1f}), McNemar p {both.p_value:.2g}"
        )
    rows = ((image.digest[:12], image.label, image.before, image.after, image.kind) for image in difference.changed)
    if difference.changed:
        result.print(table("image", "label", difference.before, difference.after, "", rows=rows))
