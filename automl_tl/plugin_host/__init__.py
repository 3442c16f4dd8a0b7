"""Plugin host: finds, loads and isolates backbone providers and strategies. Built-in plugins take the same path.

``discovery`` reads package metadata only; ``catalog`` imports a plugin when its name is requested; ``isolation`` wraps every
call into a plugin. An exception in a plugin becomes a table row or an error that names the plugin and the cause.
"""

from automl_tl.plugin_host.catalog import Catalog
from automl_tl.plugin_host.discovery import discover
from automl_tl.plugin_host.isolation import LEVELS, PLUS, LoadedBackbone, LoadedStrategy, PluginEntry

__all__ = ["LEVELS", "PLUS", "Catalog", "LoadedBackbone", "LoadedStrategy", "PluginEntry", "discover"]
