"""Local HTTP servers: one serves files from memory, one never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

__all__ = ["REFUSED", "File", "Trap", "serving", "silence"]

REFUSED: Final = "http://127.0.0.1:9"  # the discard port, which is closed


class File:
    """Content of a response, with its status and headers."""

    def __init__(self, content: bytes, headers: Mapping[str, str] | None = None, *, status: int = 200) -> None:
        self.content, self.headers, self.status = content, dict(headers or {}), status


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


@contextmanager
def serving(files: Mapping[str, File]) -> Iterator[str]:
    """Serve ``files`` by path, and 404 otherwise; yields the address."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_content=False)

        def do_GET(self) -> None:
            self._answer(with_content=True)

        def _answer(self, *, with_content: bool) -> None:
            file = files.get(self.path, File(b"", status=404))
            self.send_response(file.status)
            for name, value in file.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(file.content)))
            self.end_headers()
            if with_content:
                self.wfile.write(file.content)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def silence() -> Iterator[str]:
    """Accept connections and never answer; yields the address."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
