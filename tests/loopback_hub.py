"""A Hugging Face Hub on the loopback interface: uploads by commit, downloads by resolve, and the ways in which these break."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """State of the server: repositories by name, files by path, faults by repository, and what was asked.

    Faults: an HTTP status ("404", "401", "500"), "cut" (each response ends after a third of the file), "cut once",
    "reset" (connections are reset after a tenth), "short" (fewer bytes than announced), "damaged" (other bytes),
    "slow" (1 kB at a time).
    """

    def __init__(self) -> None:
        self.endpoint = ""
        self.weights: dict[str, bytes] = {}  # model.safetensors of each repository
        self.faults: dict[str, str] = {}
        self.files: dict[str, bytes] = {}  # of commits
        self.tokens: set[str] = set()
        self.requests: list[tuple[str, str, str]] = []  # method, repository, range


@contextmanager
def open_hub(pause: Callable[[], object] = lambda: time.sleep(0.02)) -> Iterator[Hub]:
    """Serve a hub until the context ends.

    Args:
        pause: between the pieces of a slow response.
    """
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub, Handler.pause = hub, staticmethod(pause)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    pause: Callable[[], object]

    def do_HEAD(self) -> None:
        self._resolve(with_content=False)

    def do_GET(self) -> None:
        if "/resolve/" in self.path:
            self._resolve(with_content=True)
        else:
            self._answer({"id": "team/flowers", "sha": "1", "siblings": []})

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        host = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self._answer({"url": f"{host}/team/flowers", "name": "team/flowers"})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            self.hub.files.update({value["path"]: base64.b64decode(value["content"]) for value in values})
            self._answer({"commitUrl": f"{host}/team/flowers/commit/1", "commitOid": "1", "success": True})
        else:
            self._answer({"errors": [], "warnings": []})

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

    def _resolve(self, *, with_content: bool) -> None:
        repository, _, rest = self.path.strip("/").partition("/resolve/")
        content, fault = self.hub.weights.get(repository), self.hub.faults.get(repository, "")
        asked = self.headers.get("Range", "")
        self.hub.requests.append((self.command, repository, asked))
        if content is None or not rest.endswith("/model.safetensors"):
            return self._refuse(404, "EntryNotFound" if content else "RepoNotFound")
        if fault.isdigit():
            return self._refuse(int(fault), {"401": "GatedRepo", "404": "EntryNotFound"}.get(fault, ""))
        start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
        body = content[start:]
        if fault == "short":
            body = content[start : len(content) // 2]
            if start >= len(content) // 2:
                return self._refuse(416, "")
        self.send_response(206 if with_content and asked else 200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(body) if with_content else len(content)))
        self.end_headers()
        if with_content:
            with suppress(ConnectionError):  # of a client that gives up
                self._send(body, fault, len(content))
        return None

    def _send(self, body: bytes, fault: str, size: int) -> None:
        if fault == "reset":
            self.wfile.write(body[: size // 10])
            self.close_connection = True
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif fault.startswith("cut"):
            self.wfile.write(body[: size // 3])
            self.close_connection = True
            if fault == "cut once":
                self.hub.faults.clear()
        elif fault == "damaged":
            self.wfile.write(bytes(len(body)))
        elif fault == "slow":
            for start in range(0, len(body), 1000):
                self.wfile.write(body[start : start + 1000])
                self.pause()
        else:
            self.wfile.write(body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
            self.send_header("X-Error-Message", "Access to this model is restricted." if status == 401 else "Not here.")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _chunk(self) -> bytes:
        data = self.rfile.read(int(self.rfile.readline(), 16))
        self.rfile.readline()
        return data

    def _answer(self, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
