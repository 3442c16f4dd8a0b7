"""The static files of a page, read once at the start: no path is ever opened for a client."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml",
}


class Assets:
    """The files of ``folder`` with a known type, by name."""

    def __init__(self, folder: Path) -> None:
        self._files = {
            file.name: (file.read_bytes(), MEDIA_TYPES[file.suffix])
            for file in sorted(folder.glob("*"))
            if file.suffix in MEDIA_TYPES
        }

    def answer(self, name: str) -> Response:
        """Return the file ``name``; raise ``HTTPException`` if there is none."""
        if name not in self._files:
            raise HTTPException(404, f"No file {name[:100]!r}.")
        content, media_type = self._files[name]
        return Response(content, media_type=media_type)

    async def endpoint(self, request: Request) -> Response:
        """Answer for a route with the parameter ``name``, such as ``/static/{name}``."""
        return self.answer(request.path_params["name"])
