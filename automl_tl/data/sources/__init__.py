"""Where images come from: folders, tables, archives, data sets as other libraries keep them. One interface, ``Source``."""

from __future__ import annotations

from automl_tl.data.sources.opening import open_source
from automl_tl.data.sources.source import Entry, Source

__all__ = ["Entry", "Source", "open_source"]
