"""What the server reports about itself: metrics in Prometheus' format, request ids, and JSON lines on stderr."""

from __future__ import annotations

import json
import logging
import re
import sys
import time
import uuid
from datetime import UTC, datetime
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")
LATENCIES_S: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
BATCH_SIZES: Final = (1, 2, 4, 8, 16, 32)
METHODS: Final = {"GET", "HEAD", "POST", "OPTIONS", "PUT", "PATCH", "DELETE"}

access_log: Final = logging.getLogger("automl_tl.server.access")


class Metrics:
    """Counters and timers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        labels = ("method", "endpoint")
        self.requests = Counter("tl_requests", "Requests.", (*labels, "status"), registry=self.registry)
        self.seconds = Histogram(
            "tl_request_seconds", "Time from headers to answer.", labels, buckets=LATENCIES_S, registry=self.registry
        )
        self.predictions = Counter("tl_predictions", "Images.", ("version", "decision"), registry=self.registry)
        self.batches = Histogram("tl_batch_images", "Images per batch.", buckets=BATCH_SIZES, registry=self.registry)
        self.queued = Gauge("tl_queued_images", "Images decoded or waiting.", registry=self.registry)
        self.replaced = Gauge("tl_version_changes", "Versions that replaced another.", registry=self.registry)
        self.failed = Gauge("tl_version_failures", "Versions that could not be loaded.", registry=self.registry)
        self.corrections = Counter("tl_corrections", "Images filed under a class.", ("label",), registry=self.registry)
        self.model = Gauge("tl_model", "1 for the current version.", ("name", "version", "alias"), registry=self.registry)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class Telemetry:
    """An ASGI application that gives each request an id, counts it, times it and logs it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap ``app``; its endpoints may add to ``scope["state"]["facts"]`` what the log shows."""
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s, status = time.perf_counter(), 500
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        facts: dict[str, Any] = {}
        scope.setdefault("state", {}).update(facts=facts, request_id=request_id)

        async def send_numbered(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_numbered)
        finally:
            elapsed_s = time.perf_counter() - started_s
            method = scope["method"] if scope["method"] in METHODS else "other"
            endpoint = getattr(scope.get("endpoint"), "__name__", "other")
            self._metrics.requests.labels(method, endpoint, status).inc()
            self._metrics.seconds.labels(method, endpoint).observe(elapsed_s)
            entry = {"method": scope["method"], "path": scope["path"], "status": status, "ms": round(1000 * elapsed_s, 1)}
            client = (scope.get("client") or ("", 0))[0]
            access_log.info("request", extra={"facts": {"request_id": request_id, "client": client, **entry, **facts}})


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, allow_nan=False)


def log_to_stderr(*, access: bool) -> None:
    """Write what the server and uvicorn log as JSON lines to stderr.

    Args:
        access: also one line per request.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    for name, level in (("automl_tl.server", logging.INFO), ("uvicorn.error", logging.WARNING)):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    access_log.disabled = not access
