"""Listen for HTTP with uvicorn: bind before anything expensive, drop slow senders, stop gracefully on Ctrl-C or SIGTERM."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from automl_tl.errors import ResourceError
from automl_tl.server.security import BODY_S, MAX_HEADER_BYTES

HEADER_S: Final = 10.0  # for the request line and the headers
LINGER_S: Final = 2.0  # time for a client to read an error before the connection is closed
KEEP_ALIVE_S: Final = 30.0  # of an idle connection
SHUTDOWN_S: Final = 30.0  # for requests in progress


def listen(host: str, port: int) -> socket.socket:
    """Bind a socket, so that a port in use ends the command before a model is loaded.

    Args:
        host: name or address.
        port: 0 chooses a free one.

    Raises:
        ResourceError: the address is in use, unknown or not permitted.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)  # localhost has two addresses
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise ResourceError(f"Cannot listen on {host}, port {port}: {reason}. Choose another with --host or --port.") from error


def url_of(listening: socket.socket) -> str:
    """Return the URL of a bound socket."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


Stop = Callable[[], None]


def run(app: ASGIApp, listening: socket.socket, *, on_ready: Callable[[Stop], object] = lambda stop: None) -> None:
    """Serve until Ctrl-C or SIGTERM; requests in progress are answered first.

    Args:
        app: ASGI application.
        listening: a bound socket; closed at the end.
        on_ready: called when connections are accepted, with a function that stops the server as a signal does.
    """
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        loop="asyncio",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_keep_alive=int(KEEP_ALIVE_S),
        timeout_graceful_shutdown=int(SHUTDOWN_S),
    )
    _Server(config, on_ready).run(sockets=[listening])


class _Server(uvicorn.Server):
    """A server that reports when it is ready, and ends normally when a signal stops it."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[Stop], object]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready(self._stop)

    def _stop(self) -> None:
        self.should_exit = True

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals without raising them once more at the end, as uvicorn does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)


class PatientProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for each request; uvicorn's only timeout starts again with every byte.

    Headers that are late, too long or malformed are answered with 408, 431 or 400 before the connection is closed.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the deadline for the first request."""
        super().connection_made(transport)
        self._deadline = self.loop.call_later(HEADER_S, self._expire)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the deadline."""
        self._clear_deadline()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Pass data on, and keep the deadline of an incomplete request."""
        if self._is_refused:
            return
        before = self.conn.their_state
        super().data_received(data)
        after = self.conn.their_state
        if after is not before or self._deadline is None:
            self._clear_deadline()
            if after is h11.SEND_BODY:  # the application has a deadline of its own; this one ends what it left unread
                self._deadline = self.loop.call_later(BODY_S + LINGER_S, self._expire)
            elif after is h11.IDLE:
                self._deadline = self.loop.call_later(HEADER_S, self._expire)

    def send_400_response(self, msg: str) -> None:
        """Answer a malformed request."""
        is_too_long = len(self.conn.trailing_data[0]) > MAX_HEADER_BYTES
        self._refuse(431 if is_too_long else 400, "The headers are too long." if is_too_long else msg)

    def _clear_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _expire(self) -> None:
        self._deadline = None
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self._refuse(408, f"The headers did not arrive within {HEADER_S:.0f} s.")
        else:
            self.transport.close()

    def _refuse(self, status: int, text: str) -> None:
        """Send an error, and read on for a moment: closing at once could discard the answer on its way."""
        self._is_refused = True
        self._clear_deadline()
        body = json.dumps({"error": text}, allow_nan=False).encode()
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(LINGER_S, self.transport.close)
