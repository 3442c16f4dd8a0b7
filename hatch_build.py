"""What the package index shows of a release: the README with links that work without the checkout, and the project's links.

hatchling runs this when it builds. Both follow from one setting in pyproject.toml, the address of the public repository.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

RELATIVE_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?://|#)([^)]+)\)", re.DOTALL)
PAGES = {
    "Homepage": "",
    "Documentation": "/blob/HEAD/docs/guide.md",
    "Changelog": "/blob/HEAD/CHANGELOG.md",
    "Source": "",
    "Issues": "/issues",
}


class IndexPage(MetadataHookInterface):
    """Fills in ``readme`` and ``urls``; without an address, links to files become their text."""

    def update(self, metadata: dict[str, Any]) -> None:
        """See ``MetadataHookInterface``."""
        repository = self.config["repository"].rstrip("/")

        def absolute(link: re.Match[str]) -> str:
            mark, text, target = link.groups()
            if not repository:
                return "" if mark else text
            return f"{mark}[{text}]({repository}/{'raw' if mark else 'blob'}/HEAD/{target})"

        readme = RELATIVE_LINK.sub(absolute, Path(self.root, "README.md").read_text(encoding="utf-8"))
        metadata["readme"] = {"content-type": "text/markdown", "text": readme}
        metadata["urls"] = {name: repository + page for name, page in PAGES.items()} if repository else {}
