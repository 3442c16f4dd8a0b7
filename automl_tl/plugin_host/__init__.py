"""Entry points -> Catalog: finds what is installed, checks it, fences in what is broken, explains.

Ours are found in the same way as anybody's. ``discovery`` reads metadata alone; ``loading`` imports a plugin when it is
asked for (or listed); ``guarded`` stands between the host and the plugin's code ever after. Whatever a plugin raises, then
or later, becomes a row or an error that names plugin, distribution, entry point and cause.
"""

from automl_tl.plugin_host.discovery import discover
from automl_tl.plugin_host.guarded import OfferedBackbone, OfferedStrategy
from automl_tl.plugin_host.installed import Catalog
from automl_tl.plugin_host.offers import Entry, Offer
from automl_tl.plugin_host.together import PLUS, together

__all__ = ["PLUS", "Catalog", "Entry", "Offer", "OfferedBackbone", "OfferedStrategy", "discover", "together"]
