"""Where images come from: folders, tables, archives, data sets as other libraries store them. One interface, ``Source``."""

from __future__ import annotations

from automl_tl.data.sources.archives import is_archive, open_archive
from automl_tl.data.sources.manifests import LIST_SUFFIXES, OpenTable, read_list
from automl_tl.data.sources.opening import open_source
from automl_tl.data.sources.source import Entry, Source

__all__ = ["LIST_SUFFIXES", "Entry", "OpenTable", "Source", "is_archive", "open_archive", "open_source", "read_list"]
