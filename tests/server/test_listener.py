from __future__ import annotations

import socket

import pytest

pytest.importorskip("starlette")

from automl_tl.errors import ResourceError
from automl_tl.server import listener
from automl_tl.server.listener import listen, url_of
from tests.server.toy_server import RunningServer, send


def test_listen_names_a_port_in_use() -> None:
    with listen("127.0.0.1", 0) as first, pytest.raises(ResourceError, match="Choose another with --host or --port"):
        listen("127.0.0.1", first.getsockname()[1])


def test_url_of_has_brackets_around_ipv6() -> None:
    with listen("::1", 0) as listening:
        assert url_of(listening) == f"http://[::1]:{listening.getsockname()[1]}"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nbad header\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000, 431),
    ],
)
def test_protocol_answers_malformed_requests(server: RunningServer, data: bytes, status: int) -> None:
    answer = send(server, data)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert b'{"error": ' in answer


def test_protocol_refuses_slow_headers(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEADER_S", 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: loc")
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 408 ")


def test_protocol_closes_silent_connections(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "HEADER_S", 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        assert client.recv(10) == b""
