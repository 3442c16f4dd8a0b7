from __future__ import annotations

import socket
import time
from queue import Queue
from threading import Event, Thread

import pytest

pytest.importorskip("starlette")

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from automl_tl.errors import ResourceError
from automl_tl.server import listener
from automl_tl.server.listener import Stop, listen, run, url_of
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


def accepts(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=20).close()
    except ConnectionError:
        return False
    return True


def test_run_answers_a_request_in_progress_before_it_ends() -> None:
    listening, stops, begun = listen("127.0.0.1", 0), Queue[Stop](), Event()

    async def count_bytes(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        body = await Request(scope, receive).body()
        await PlainTextResponse(str(len(body)))(scope, receive, send)

    address = listening.getsockname()
    thread = Thread(target=run, args=(count_bytes, listening), kwargs={"on_ready": stops.put})
    thread.start()
    with socket.create_connection(address, timeout=60) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 6\r\n\r\nabc")
        assert begun.wait(timeout=60)
        stops.get(timeout=60)()
        while accepts(address):
            time.sleep(0.05)  # connections without a pause would fill its backlog
        client.sendall(b"def")
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    thread.join(timeout=60)

    assert (answer[:15], answer[-1:], thread.is_alive()) == (b"HTTP/1.1 200 OK", b"6", False)
