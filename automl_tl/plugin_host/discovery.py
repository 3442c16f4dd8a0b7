"""Installed plugins, from package metadata alone: no plugin is imported here."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from importlib.metadata import Distribution, distributions
from typing import Final

from automl_tl.contracts import CONTRACT_VERSION
from automl_tl.plugin_host.catalog import Catalog
from automl_tl.plugin_host.isolation import HOST, Kind, PluginEntry, normal

GROUPS: Final[dict[str, Kind]] = {
    "automl_tl.backbones": "backbones",
    "automl_tl.strategies": "strategy",
    "automl_tl.executors": "executor",
}
CONTRACT_GROUP: Final = "automl_tl.contract"
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
DISABLE_VARIABLE: Final = "TL_DISABLE_PLUGINS"
ALL_PLUGINS: Final = "*"


def discover(*, only_host: bool = False) -> Catalog:
    """Return the catalog of the installed entry points; ``only_host`` disables all third-party ones.

    ``TL_DISABLE_PLUGINS`` disables entry points or distributions by name, separated by commas (``*``: all third-party ones).
    Of two plugins with one name the built-in one is used; of two third-party plugins, none.
    """
    disabled = _disabled_names() | ({ALL_PLUGINS} if only_host else set())
    plugins = [_with_disabled(plugin, disabled) for distribution in _distributions() for plugin in _entries(*distribution)]
    kinds = list(GROUPS.values())
    plugins.sort(key=lambda plugin: (kinds.index(plugin.kind), normal(plugin.distribution), plugin.name))
    return Catalog(_without_collision(plugin, plugins) for plugin in plugins)


def unknown_names(plugins: Collection[PluginEntry]) -> list[str]:
    """Return the names in ``TL_DISABLE_PLUGINS`` that match none of ``plugins``."""
    known = {plugin.name for plugin in plugins} | {normal(plugin.distribution) for plugin in plugins} | {ALL_PLUGINS}
    return sorted(name for name in _disabled_names() if name not in known and normal(name) not in known)


def disable(*names: str) -> None:
    """Add ``names`` to ``TL_DISABLE_PLUGINS``, for this process and its children."""
    os.environ[DISABLE_VARIABLE] = ",".join(sorted(_disabled_names() | set(names)))


def name_problem(name: str) -> str | None:
    """Return why an entry point cannot have this name, or ``None``."""
    rule = "lower-case letters, digits and underscores, starting with a letter"
    return None if NAME.fullmatch(name) else f"its name {name!r} does not consist of {rule}"


def _disabled_names() -> set[str]:
    return {name.strip() for name in os.environ.get(DISABLE_VARIABLE, "").split(",") if name.strip()}


def _distributions() -> Iterator[tuple[str, str, Distribution]]:
    """Yield name, version and distribution of packages with our entry points; the first on ``sys.path`` hides others."""
    seen = set()
    for distribution in distributions():
        try:
            text = distribution.read_text("entry_points.txt") or ""
        except (OSError, ValueError):  # not text, so not installed by pip
            continue
        if not any(group in text for group in GROUPS):
            continue
        try:
            name, version = distribution.metadata["Name"] or "unknown", distribution.metadata["Version"] or "unknown"
        except Exception:  # after a broken uninstall, METADATA is missing; the exception depends on the Python version
            name = version = "unknown"
        if normal(name) not in seen:
            seen.add(normal(name))
            yield name, version, distribution


def _entries(name: str, version: str, distribution: Distribution) -> Iterator[PluginEntry]:
    """Yield an entry per entry point; if they are unreadable, one with that problem."""
    try:
        points = list(distribution.entry_points)
    except Exception as error:  # one malformed file must not hide the others
        problem = f"its entry_points.txt can't be read: {error}"
        yield PluginEntry(kind="strategy", name=name, distribution=name, version=version, entry_point="-", problem=problem)
        return
    contract_problem = _contract_problem([point.value for point in points if point.group == CONTRACT_GROUP], name)
    for point in points:
        if point.group in GROUPS:
            yield PluginEntry(
                kind=GROUPS[point.group],
                name=point.name,
                distribution=name,
                version=version,
                entry_point=point.value,
                problem=contract_problem or name_problem(point.name),
            )


def _contract_problem(declared: Collection[str], distribution: str) -> str | None:
    """Return why a distribution that declares these contract versions is unusable, or ``None``."""
    expected = f"v{CONTRACT_VERSION}"
    if expected in declared:
        return None
    if not declared:
        advice = f'its pyproject.toml needs [project.entry-points."{CONTRACT_GROUP}"] version = "{expected}"'
        return f"it declares no contract version; this {HOST} implements {expected}; {advice}"
    is_newer = any(version[1:].isdigit() and int(version[1:]) > CONTRACT_VERSION for version in declared)
    outdated = HOST if is_newer else distribution
    return (
        f"it is written for contract {', '.join(declared)}; this {HOST} implements {expected}; "
        f"try `pip install --upgrade {outdated}`"
    )


def _with_disabled(plugin: PluginEntry, disabled: Collection[str]) -> PluginEntry:
    is_named = plugin.name in disabled or normal(plugin.distribution) in {normal(name) for name in disabled}
    return plugin.model_copy(update={"disabled": is_named or (ALL_PLUGINS in disabled and not plugin.is_built_in)})


def _without_collision(plugin: PluginEntry, plugins: Collection[PluginEntry]) -> PluginEntry:
    """Return ``plugin`` with a problem if another distribution provides a plugin of its kind and name."""
    others = [
        other.distribution
        for other in plugins
        if other.is_sound
        and (other.kind, other.name) == (plugin.kind, plugin.name)
        and other.distribution != plugin.distribution
    ]
    if not (plugin.is_sound and others) or plugin.is_built_in:
        return plugin
    problem = f"the name {plugin.name!r} is also used by {', '.join(others)}; {DISABLE_VARIABLE}={others[0]} disables that one"
    return plugin.model_copy(update={"problem": problem})
