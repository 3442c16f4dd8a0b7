"""What is installed, from metadata alone: no plugin is imported here."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Final

from automl_tl.contracts import CONTRACT_VERSION
from automl_tl.plugin_host.catalog import Catalog
from automl_tl.plugin_host.entries import HOST, InstalledEntry, Kind, PluginEntry, cause, normal

__all__ = [
    "ALL_PLUGINS",
    "DISABLE_VARIABLE",
    "contract_problem",
    "declared_contracts",
    "discover",
    "name_problem",
    "normal",
    "switch_off",
    "unknown_names",
]

GROUPS: Final[dict[str, Kind]] = {"automl_tl.backbones": "backbones", "automl_tl.strategies": "strategy"}
CONTRACT_GROUP: Final = "automl_tl.contract"
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
DISABLE_VARIABLE: Final = "TL_DISABLE_PLUGINS"
ALL_PLUGINS: Final = "*"


def discover(*, only_host: bool = False) -> Catalog:
    """Catalog of the installed entry points.

    ``TL_DISABLE_PLUGINS`` (names of entry points or distributions, separated by commas; ``*``: all but ours) switches plugins
    off, ``only_host`` all but ours. Of two plugins with one name ours stays; if neither is ours, both are left out.
    """
    off = switched_off() | ({ALL_PLUGINS} if only_host else set())
    found = [entry for distribution in _distributions() for entry in _entries(*distribution)]
    found = [_switched(entry, off) for entry in sorted(found, key=lambda entry: _order(entry.plugin))]
    return Catalog(_without_collisions(found))


def switched_off() -> set[str]:
    """The names in ``TL_DISABLE_PLUGINS``."""
    return {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()}


def unknown_names(offers: Collection[PluginEntry]) -> list[str]:
    """The names in ``TL_DISABLE_PLUGINS`` that none of ``offers`` has: misspelt, most likely."""
    known = {plugin.name for plugin in offers} | {normal(plugin.distribution) for plugin in offers} | {ALL_PLUGINS}
    return sorted(name for name in switched_off() if name not in known and normal(name) not in known)


def switch_off(*names: str) -> None:
    """Add ``names`` to ``TL_DISABLE_PLUGINS``, for this process and those that it starts."""
    os.environ[DISABLE_VARIABLE] = ",".join(sorted(switched_off() | set(names)))


def _distributions() -> Iterator[tuple[str, str, Distribution]]:
    """Name, version and distribution of those that mention us; what comes first on ``sys.path`` hides its name further down."""
    seen = set()
    for distribution in distributions():
        if _mentions_us(distribution):
            name, version = _identity(distribution)
            if normal(name) not in seen:
                seen.add(normal(name))
                yield name, version, distribution


def _mentions_us(distribution: Distribution) -> bool:
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except (OSError, ValueError):  # bytes that are no text: nothing that pip would have installed
        return False
    return any(group in text for group in GROUPS)


def _identity(distribution: Distribution) -> tuple[str, str]:
    """Name and version; what is left of a broken uninstall may have neither."""
    try:
        return distribution.metadata["Name"] or "unknown", distribution.metadata["Version"] or "unknown"
    except Exception:  # without a METADATA file importlib.metadata raises what differs between versions of Python
        return "unknown", "unknown"


def _entries(name: str, version: str, distribution: Distribution) -> Iterator[InstalledEntry]:
    """One entry per entry point; a distribution whose entry points can't be read is one entry with that problem."""
    try:
        points = list(distribution.entry_points)
    except Exception as error:  # one malformed file must not hide everybody else
        problem = f"its entry_points.txt can't be read: {cause(error)}"
        plugin = PluginEntry(kind="strategy", name=name, distribution=name, version=version, entry_point="-", problem=problem)
        yield InstalledEntry(plugin, EntryPoint(name, "", "automl_tl.strategies"))
        return
    declared = declared_contracts(points)
    for point in points:
        if point.group in GROUPS:
            plugin = PluginEntry(
                kind=GROUPS[point.group],
                name=point.name,
                distribution=name,
                version=version,
                entry_point=point.value,
                problem=contract_problem(declared, name) or name_problem(point.name),
            )
            yield InstalledEntry(plugin, point)


def declared_contracts(points: Iterable[EntryPoint]) -> list[str]:
    """The contract versions that a distribution with these entry points says it is written for."""
    return [point.value for point in points if point.group == CONTRACT_GROUP]


def contract_problem(declared: Collection[str], distribution: str) -> str | None:
    """Why a distribution that declares these contract versions can't take part, or ``None``. It may declare several."""
    expected = f"v{CONTRACT_VERSION}"
    if expected in declared:
        return None
    said = f"is written for contract {', '.join(declared)}" if declared else "declares no contract version"
    newer = any(value[1:].isdigit() and int(value[1:]) > CONTRACT_VERSION for value in declared)
    advice = (
        f"`pip install --upgrade {HOST}` may bring it"
        if newer
        else f"`pip install --upgrade {distribution}` may bring a version for it"
        if declared
        else f'its pyproject.toml needs [project.entry-points."{CONTRACT_GROUP}"] version = "{expected}"'
    )
    return f"it {said}; this {HOST} speaks {expected}; {advice}"


def name_problem(name: str) -> str | None:
    """Why an entry point can't have this name, or ``None``."""
    if NAME.fullmatch(name):
        return None
    return f"its name {name!r} is not made of lower-case letters, digits and underscores, a letter first"


def _order(plugin: PluginEntry) -> tuple[int, str, str]:
    return (list(GROUPS.values()).index(plugin.kind), normal(plugin.distribution), plugin.name)


def _switched(entry: InstalledEntry, off: Collection[str]) -> InstalledEntry:
    plugin = entry.plugin
    named = plugin.name in off or normal(plugin.distribution) in {normal(name) for name in off}
    if named or (ALL_PLUGINS in off and not plugin.is_ours):
        return replace(entry, plugin=plugin.model_copy(update={"switched_off": True}))
    return entry


def _without_collisions(found: Collection[InstalledEntry]) -> Iterator[InstalledEntry]:
    """Entries with a problem where two that would take part have one name."""
    rivals = defaultdict(list)
    for entry in found:
        if entry.plugin.is_sound:
            rivals[entry.plugin.kind, entry.plugin.name].append(entry.plugin.distribution)
    for entry in found:
        plugin = entry.plugin
        others = [other for other in rivals[plugin.kind, plugin.name] if other != plugin.distribution]
        if plugin.is_sound and others and not plugin.is_ours:
            theirs = ", ".join(sorted(others))
            problem = (
                f"the name {plugin.name!r} is also offered by {theirs}; {DISABLE_VARIABLE}={others[0]} leaves that one out"
            )
            yield replace(entry, plugin=plugin.model_copy(update={"problem": problem}))
        else:
            yield entry
