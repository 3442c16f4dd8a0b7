"""A web server on loopback whose answers fail at random: errors, lost connections and bodies that end early."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from urllib.parse import unquote

FAILURES = ("status", "lost", "short")


class WebServer(ThreadingHTTPServer):
    """Serves ``files`` by path. ``broken`` paths answer 500; of the others the first request or a random share fails."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes], failing: float = 0.0, *, fail_first: bool = False) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.failing, self.chance = files, failing, random.Random(5)
        self.fail_first, self.broken = fail_first, set[str]()
        self.requests: list[str] = []
        self.authorizations: set[str | None] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: WebServer

    def do_GET(self) -> None:
        server, path = self.server, unquote(self.path.partition("?")[0]).removeprefix("/")
        server.requests.append(path)
        server.authorizations.add(self.headers["Authorization"])
        fails = server.requests.count(path) == 1 if server.fail_first else server.chance.random() < server.failing
        failure = FAILURES[len(server.requests) % len(FAILURES)] if fails else ""
        content = server.files.get(path)
        if failure == "lost":
            self.connection.close()
            return
        if content is None or failure == "status" or path in server.broken:
            self.send_error(404 if content is None else 500)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{sha256(content).hexdigest()}"')
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if failure == "short" else content)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def web_server(files: dict[str, bytes], failing: float = 0.0, *, fail_first: bool = False) -> Iterator[WebServer]:
    """Run a server while the context is open.

    Args:
        files: content by path.
        failing: share of answers that fail.
        fail_first: let the first request for each path fail instead.
    """
    with WebServer(files, failing, fail_first=fail_first) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


if __name__ == "__main__":  # python -m tests.data.web_server FOLDER [SHARE]: to try by hand
    import sys
    from pathlib import Path

    root = Path(sys.argv[1])
    contents = {file.relative_to(root).as_posix(): file.read_bytes() for file in root.rglob("*") if file.is_file()}
    with web_server(contents, float(sys.argv[2]) if len(sys.argv) > 2 else 0.0) as running:
        print(running.url, flush=True)
        sys.stdin.read()
