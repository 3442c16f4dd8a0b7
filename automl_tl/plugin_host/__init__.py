"""Plugin host: discover, load, validate and isolate backbone providers and fine-tuning strategies.

Built-in plugins take the same path as third-party ones. ``discovery`` reads package metadata only; ``loading`` imports a
plugin when its name is requested (or the catalog is listed); ``isolation`` wraps every later call into plugin code. An
exception in a plugin becomes a table row or an error that names the plugin, distribution, entry point and cause.
"""

from automl_tl.plugin_host.catalog import Catalog
from automl_tl.plugin_host.discovery import discover
from automl_tl.plugin_host.ensemble import PLUS, ensemble
from automl_tl.plugin_host.entries import InstalledEntry, PluginEntry
from automl_tl.plugin_host.isolation import LoadedBackbone, LoadedStrategy

__all__ = ["PLUS", "Catalog", "InstalledEntry", "LoadedBackbone", "LoadedStrategy", "PluginEntry", "discover", "ensemble"]
