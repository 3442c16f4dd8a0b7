"""Who may talk to a server, and how much they may send: Host, Origin and token checks, size and time limits, headers.

``Guard`` wraps any ASGI application. Against DNS rebinding, a request must name this machine in its Host header; against
requests from other web sites, a browser's Origin must be the server itself. There is no CORS.
"""

from __future__ import annotations

import asyncio
import hmac
import re
import socket
from collections.abc import Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BODY_BYTES: Final = 32 * 2**20  # a photograph of 100 megapixels, or one of 24 MiB in base64
MAX_BYTES_IN_FLIGHT: Final = 512 * 2**20  # of all bodies together
MAX_HEADER_BYTES: Final = 16 * 2**10
BODY_S: Final = 60.0  # a body of 32 MiB at 4.5 Mbit/s
RETRY_AFTER: Final = {"Retry-After": "1"}
HOST: Final = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([^\[\]:/@?#\s]+))(?::\d{1,5})?")
TOKEN: Final = re.compile(r"[\x21-\x7e]+")

CONTENT_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS: Final = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is an address that only this machine can reach."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """An ASGI application that lets only permitted requests through to another one, and adds security headers.

    The token is sent as ``Authorization: Bearer TOKEN``. A browser opens ``/?token=TOKEN`` once and gets a cookie.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        host: str,
        token: str | None = None,
        allow_hosts: Iterable[str] = (),
        open_paths: Iterable[str] = (),
    ) -> None:
        """Wrap ``app``.

        Args:
            app: whose errors with a status are raised as ``HTTPException``, as Starlette's are.
            host: address that the server listens on.
            token: required from every client; ``None``: no token.
            allow_hosts: further names in Host headers.
            open_paths: answered without the token.
        """
        self._app, self._token, self._open_paths = app, token, frozenset(open_paths)
        self._is_local = is_loopback(host)
        self._public_names = frozenset(map(str.lower, allow_hosts))
        names = {"localhost", *self._public_names}
        self._names = (
            names if self._is_local else {*names, host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}
        )
        self._bytes_in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_protected(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            answer = self._refuse(scope)
        except HTTPException as error:
            answer = error_response(error)
        if answer is not None:
            await answer(scope, receive, send_protected)
            return
        body = _LimitedBody(self, receive)
        try:
            await self._app(scope, body.receive, send_protected)
        finally:
            self._bytes_in_flight -= body.num_bytes

    def _refuse(self, scope: Scope) -> Response | None:
        """Return an answer that ends the request, or ``None``; raise ``HTTPException`` for an error."""
        headers = Headers(scope=scope)
        if sum(len(name) + len(value) + 4 for name, value in headers.raw) > MAX_HEADER_BYTES:  # h11 limits incomplete ones
            raise HTTPException(431, "The headers are too long.")
        if scope["http_version"] not in ("1.0", "1.1"):
            raise HTTPException(400, f"HTTP/{scope['http_version']} is not supported.")
        host = headers.get("host", "")
        if not self._is_allowed(host):
            raise HTTPException(421, f"Host {host[:100]!r} is not this server. Use its address, or start it with --allow-host.")
        origin = headers.get("origin", "").partition("://")[2].lower()
        is_own = origin == host.lower() or origin.partition(":")[0] in self._public_names  # a proxy may rewrite Host
        if "origin" in headers and not is_own:
            raise HTTPException(403, "Requests from other web sites are not answered.")
        if self._token is not None and scope["path"] not in self._open_paths and (answer := self._authenticate(scope, headers)):
            return answer
        encoding = headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise HTTPException(415, f"Content-Encoding {encoding[:40]!r} is not supported; send the body as it is.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            raise _too_large()
        return None

    def _is_allowed(self, host: str) -> bool:
        """Return whether a Host header names this machine. Rebinding needs a name: no address can be rebound."""
        if (match := HOST.fullmatch(host)) is None:
            return False
        name = (match[1] or match[2]).lower().rstrip(".")
        if name in self._names or name.endswith(".localhost"):
            return True
        try:
            address = ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._is_local

    def _authenticate(self, scope: Scope, headers: Headers) -> Response | None:
        """Return ``None`` with the right token, or the redirection that sets the cookie; otherwise raise ``HTTPException``."""
        request, cookie = Request(scope), f"tl_token_{(scope.get('server') or ('', 0))[1]}"
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer.strip()):
            return None
        if self._is_token(request.cookies.get(cookie, "")):
            return None
        given = request.query_params.get("token")
        if given is not None and scope["method"] == "GET" and self._is_token(given):
            rest = urlencode([pair for pair in parse_qsl(scope["query_string"].decode("latin-1")) if pair[0] != "token"])
            # A path that starts with two slashes would lead to another server.
            answer = RedirectResponse("/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else ""), status_code=303)
            answer.set_cookie(cookie, given, httponly=True, samesite="lax")
            return answer
        problem = "A wrong token." if bearer or given is not None else "A token is needed."
        advice = "Send `Authorization: Bearer TOKEN`, or open /?token=TOKEN in a browser."
        raise HTTPException(401, f"{problem} {advice}", headers={"WWW-Authenticate": "Bearer"})

    def _is_token(self, text: str) -> bool:
        assert self._token is not None
        return hmac.compare_digest(text.encode("utf-8", "surrogatepass"), self._token.encode())

    def take(self, num_bytes: int) -> None:
        """Count the bytes of a body that arrived; raise ``HTTPException`` if all bodies together are too large."""
        self._bytes_in_flight += num_bytes
        if self._bytes_in_flight > MAX_BYTES_IN_FLIGHT:
            raise HTTPException(503, "Too many requests at once. Try again later.", headers=RETRY_AFTER)


class _LimitedBody:
    """The body of one request, received within limits."""

    def __init__(self, guard: Guard, receive: Receive) -> None:
        self.num_bytes = 0
        self._guard, self._receive = guard, receive
        self._deadline = asyncio.get_running_loop().time() + BODY_S
        self._is_complete = False

    async def receive(self) -> MutableMapping[str, Any]:
        """Receive the next message; raise ``HTTPException`` if the body is too large or too slow."""
        try:
            async with asyncio.timeout_at(None if self._is_complete else self._deadline):
                message = await self._receive()
        except TimeoutError as error:
            raise HTTPException(
                408, f"The body did not arrive within {BODY_S:.0f} s.", headers={"Connection": "close"}
            ) from error
        if message["type"] == "http.request":
            self._is_complete = not message.get("more_body", False)
            size = len(message.get("body", b""))
            self.num_bytes += size
            self._guard.take(size)
            if self.num_bytes > MAX_BODY_BYTES:
                raise _too_large()
        return message


def error_response(error: HTTPException) -> Response:
    """Return the JSON answer for an error: ``{"error": text}``."""
    return JSONResponse({"error": error.detail}, error.status_code, headers=error.headers)


def _too_large() -> HTTPException:
    return HTTPException(413, f"The body is too large; at most {MAX_BODY_BYTES // 2**20} MiB are accepted.")
