"""Pushing to the Hugging Face Hub, here a loopback server that speaks the endpoints of an upload."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.fakes import write_colors


class Hub(BaseHTTPRequestHandler):
    """Keeps the files of commits; every file is sent inside the commit, not by LFS."""

    files: dict[str, bytes]
    tokens: set[str]

    def do_POST(self) -> None:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self._chunk, b""))
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.tokens.add(self.headers.get("Authorization", ""))
        host = f"http://{self.headers['Host']}"
        if self.path == "/api/repos/create":
            self._answer({"url": f"{host}/team/flowers", "name": "team/flowers"})
        elif "/preupload/" in self.path:
            paths = [file["path"] for file in json.loads(body)["files"]]
            self._answer({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in body.splitlines()]
            values = [line["value"] for line in lines if line["key"] == "file"]
            self.files.update({value["path"]: base64.b64decode(value["content"]) for value in values})
            self._answer({"commitUrl": f"{host}/team/flowers/commit/1", "commitOid": "1", "success": True})
        else:
            self._answer({"errors": [], "warnings": []})

    def do_GET(self) -> None:
        self._answer({"id": "team/flowers", "sha": "1", "siblings": []})

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""

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


@pytest.fixture
def hub() -> Iterator[tuple[type[Hub], str]]:
    handler = type("NewHub", (Hub,), {"files": {}, "tokens": set()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    yield handler, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_push_uploads_the_folder_that_timm_loads(hub: tuple[type[Hub], str], tmp_path: Path) -> None:
    handler, endpoint = hub
    images = write_colors(tmp_path / "images", 12)
    environment = {**os.environ, "TL_HOME": str(tmp_path / "home"), "HF_ENDPOINT": endpoint, "HF_TOKEN": "hf_loopback"}

    def tl(*arguments: str) -> str:
        command = [sys.executable, "-m", "automl_tl", *arguments]
        ended = subprocess.run(command, capture_output=True, encoding="utf-8", env=environment, timeout=300, check=False)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    network = ("--backbone", "lite/efficientnet_lite0", "--strategy", "linear_probe")
    tl("auto", "fit", str(images), "--name", "flowers", *network)
    printed = tl("registry", "push", "flowers", "hf://team/flowers")

    assert {"config.json", "model.safetensors", "README.md", "predict.py"} <= set(handler.files)
    assert json.loads(handler.files["config.json"])["label_names"] == ["green", "red"]
    assert handler.tokens == {"Bearer hf_loopback"}
    assert f"{endpoint}/team/flowers" in printed
