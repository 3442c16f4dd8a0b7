from __future__ import annotations

import socket

import pytest
from huggingface_hub import InferenceClient

pytest.importorskip("starlette")

from automl_tl.server import security
from automl_tl.server.security import MAX_BODY_BYTES, is_loopback
from tests.server.toy_server import RED, RunningServer, send, serving


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:80", "LOCALHOST.", "[::1]:8000", "127.1.2.3", "app.localhost"])
def test_guard_accepts_names_of_this_machine(server: RunningServer, host: str) -> None:
    assert server.request("GET", "/v2", Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "192.168.1.1", "8.8.8.8:80", "localhost@evil", "", "[::1", "a b", "x:99999999"],
)
def test_guard_refuses_other_hosts(server: RunningServer, host: str) -> None:
    answered = server.request("GET", "/v2", Host=host)

    assert answered.status in {400, 421}
    assert "error" in answered.json


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1", "http://[", ""])
def test_guard_refuses_requests_from_other_sites(server: RunningServer, origin: str) -> None:
    assert server.request("POST", "/", RED, Origin=origin).status == 403


def test_guard_accepts_its_own_origin(server: RunningServer) -> None:
    assert server.request("POST", "/", RED, Origin=server.url).status == 200


def test_guard_sets_headers_that_forbid_other_origins(server: RunningServer) -> None:
    headers = server.request("GET", "/api/model").headers

    assert "default-src 'none'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert not any(name.startswith("access-control") for name in headers)
    assert "server" not in headers


def test_guard_requires_the_token_except_for_probes() -> None:
    with serving(token="s3cret") as server:
        refused = server.request("POST", "/", RED)
        wrong = server.request("POST", "/", RED, Authorization="Bearer other")
        accepted = server.request("POST", "/", RED, Authorization="bearer s3cret")
        probe = server.request("GET", "/v2/health/ready")
        metrics = server.request("GET", "/metrics")

    assert [one.status for one in (refused, wrong, accepted, probe, metrics)] == [401, 401, 200, 200, 401]
    assert refused.headers["www-authenticate"] == "Bearer"
    assert "token is needed" in refused.json["error"]


def test_guard_accepts_the_token_of_hugging_faces_client() -> None:
    with serving(token="s3cret") as server:
        (first, _) = InferenceClient(model=server.url, token="s3cret").image_classification(RED)

    assert first.label == "red"


def test_guard_gives_a_browser_a_cookie_for_the_token() -> None:
    with serving(token="s3cret") as server:
        entered = server.request("GET", "//evil.example/?token=s3cret&theme=dark")
        cookie = entered.headers["set-cookie"].partition(";")[0]
        page = server.request("GET", "/api/model", Cookie=cookie)
        wrong = server.request("GET", "/?token=s3cre")

    assert (entered.status, entered.headers["location"]) == (303, "/evil.example/?theme=dark")
    assert "httponly" in entered.headers["set-cookie"].lower()
    assert (page.status, wrong.status) == (200, 401)


def test_guard_refuses_a_declared_length_before_the_body(server: RunningServer) -> None:
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % (MAX_BODY_BYTES + 1)

    assert send(server, head).startswith(b"HTTP/1.1 413 ")


def test_guard_counts_a_body_without_length(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MAX_BODY_BYTES", 1000)
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"

    assert send(server, head + 3 * (b"190\r\n" + b"x" * 400 + b"\r\n") + b"0\r\n\r\n").startswith(b"HTTP/1.1 413 ")


def test_guard_refuses_more_bytes_than_memory_for_all_bodies(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "MAX_BYTES_IN_FLIGHT", 10)
    refused = server.request("POST", "/", RED)
    monkeypatch.undo()

    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    assert server.request("POST", "/", RED).status == 200


def test_guard_refuses_a_body_that_arrives_too_slowly(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(security, "BODY_S", 0.05)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nabc")
        answer = client.recv(4096)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"connection: close" in answer.lower()


def test_guard_refuses_long_headers_that_arrive_at_once(server: RunningServer) -> None:
    assert server.request("GET", "/v2", Cookie="a" * 20_000).status == 431


def test_guard_refuses_compressed_bodies(server: RunningServer) -> None:
    assert server.request("POST", "/", RED, Content_Encoding="gzip").status == 415


@pytest.mark.parametrize(("host", "expected"), [("127.0.0.1", True), ("::1", True), ("0.0.0.0", False), ("my-machine", False)])
def test_is_loopback_knows_addresses_of_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
