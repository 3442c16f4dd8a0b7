"""Checks for every plugin: it can be loaded, and importing it is cheap."""

from __future__ import annotations

from typing import Final
from unittest import SkipTest

from automl_tl.plugin_host.catalog import SLOW_IMPORT_S
from automl_tl.testing.plugin_under_test import PluginUnderTest, lines_printed_by

MAX_TRIES: Final = 3  # the fastest import counts: a busy machine slows down any of them
IMPORT_SCRIPT: Final = """
import sys, time
from importlib.metadata import EntryPoint
import automl_tl.contracts
started_s = time.perf_counter()
plugin = EntryPoint("plugin", sys.argv[1], "plugins").load()
import_s = time.perf_counter() - started_s
if sys.argv[2] == "backbones":
    cards = [backbone.card for backbone in plugin()]
print(f"\\n{import_s:.3f} {'torch' in sys.modules}")
"""


def check_loads(plugin: PluginUnderTest) -> None:
    """The package declares this contract version, its name is valid and unique, and the entry point provides what it should."""
    entry = plugin.loaded.plugin
    if entry.needs:
        raise SkipTest(entry.needs)
    assert not entry.disabled, "it is disabled by TL_DISABLE_PLUGINS or --no-plugins"
    assert entry.problem is None, f"{entry.entry_point}: {entry.problem}"


def check_import_is_light(plugin: PluginUnderTest) -> None:
    """Importing the module and reading the cards does not import torch; the import takes less than 0.2 s."""
    plugin.require_loaded()
    import_s = float("inf")
    for _ in range(MAX_TRIES):
        *_, line = lines_printed_by(IMPORT_SCRIPT, plugin.entry.entry_point, plugin.entry.kind)
        seconds, has_torch = line.split()
        assert has_torch == "False", "torch is imported; import it inside the function that needs it"
        import_s = min(import_s, float(seconds))
        if import_s <= SLOW_IMPORT_S:
            return
    module = plugin.entry.entry_point.partition(":")[0]
    raise AssertionError(f"importing {module} takes {import_s:.2f} s, at most {SLOW_IMPORT_S} s is allowed")


PACKAGE_CHECKS = (check_loads, check_import_is_light)
