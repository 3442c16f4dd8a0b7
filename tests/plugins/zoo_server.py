"""A real HTTP server on the loopback that serves files from memory, and one that accepts and never answers."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

__all__ = ["REFUSED", "File", "serving", "silence"]

REFUSED: Final = "http://127.0.0.1:9"  # the discard port: nobody listens


class File:
    """Content with the headers that it is sent with."""

    def __init__(self, content: bytes, **headers: str) -> None:
        self.content = content
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def serving(files: Mapping[str, File]) -> Iterator[str]:
    """Address of a server that serves ``files`` by path, everything else is 404."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_content=False)

        def do_GET(self) -> None:
            self._answer(with_content=True)

        def _answer(self, *, with_content: bool) -> None:
            file = files.get(self.path)
            content = b"" if file is None else file.content
            self.send_response(404 if file is None else 200)
            for name, value in ({} if file is None else file.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if with_content:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

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
    """Address of a server that lets everybody connect and answers nobody."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
