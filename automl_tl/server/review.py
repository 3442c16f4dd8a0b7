"""The review page: the queue, the images and the decisions of ``tl review`` over HTTP.

An image is addressed by its place in the queue or by its digest, never by a path, and only what the scan has read is served.
Each decision is on disk before it is answered, in a corrections file that other windows and processes may write too.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from functools import lru_cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from shlex import quote
from threading import BoundedSemaphore, Lock
from typing import Any, Final, Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from automl_tl.data.corrections import Correction, append_correction, parse_rows
from automl_tl.data.decode import decode
from automl_tl.data.sources.source import Source
from automl_tl.errors import DataError, UndecodableError
from automl_tl.runtime.threads import num_cores
from automl_tl.server.assets import Assets
from automl_tl.server.security import error_response
from automl_tl.values import Decision, Value
from automl_tl.workflows.review import KINDS, ReviewItem, ReviewQueue

MAX_ITEMS: Final = 100  # details of images in one answer
SIDES_PX: Final = {"thumbnail": 336, "full": 2048}  # twice the width of a card; a large screen
NUM_CACHED: Final = 128  # drawn images, at most some 50 MiB
FOREVER: Final = {"Cache-Control": "private, max-age=31536000, immutable"}  # a digest never has other bytes


class PostedDecision(Value):
    """What the page sends."""

    digest: str
    decision: Decision
    label: str | None = None
    run: str = ""
    seen: int = 0


class Decisions:
    """The decisions in a corrections file, and the order in which this process saw them change. Thread-safe."""

    def __init__(self, file: Path, places: Mapping[str, int]) -> None:
        self.run = secrets.token_hex(8)
        self._file, self._places = file, places
        self._stamp: tuple[int, int, int] | None = None
        self._known = b""  # the rows of the file that were read
        self._current: dict[int, Correction] = {}
        self._changes: list[int] = []
        self._lock = Lock()

    def changes(self, run: str, seen: int) -> dict[str, Any]:
        """Return the decisions that a page does not know yet.

        Args:
            run: of the server that the page has asked before.
            seen: number of changes that the page knows of that run.
        """
        with self._lock:
            self._refresh()
            places = dict.fromkeys(self._changes[seen:] if run == self.run else self._current)
            rows = [(place, *self._decision(place)) for place in places]
            return {"run": self.run, "seen": len(self._changes), "changes": rows}

    def _decision(self, place: int) -> tuple[str | None, str | None]:
        row = self._current.get(place)
        return (row.decision, row.label or None) if row else (None, None)

    def of(self, place: int) -> Correction | None:
        """Return the decision about the image at a place of the queue, if there is one."""
        with self._lock:
            self._refresh()
            return self._current.get(place)

    def counts(self) -> Counter[str]:
        """Return the number of images by decision."""
        with self._lock:
            self._refresh()
            return Counter(row.decision for row in self._current.values())

    def labels(self) -> set[str]:
        """Return the classes that images were given."""
        with self._lock:
            self._refresh()
            return {row.label for row in self._current.values() if row.decision == "relabel"}

    def _refresh(self) -> None:
        """Read what was appended to the file since the last time; all of it if anything else has changed."""
        try:
            stat = self._file.stat()
            stamp = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
            content = self._known if stamp == self._stamp else self._file.read_bytes()
        except FileNotFoundError:
            stamp, content = None, b""
        if stamp == self._stamp:
            return
        current = dict(self._current)
        if not content.startswith(self._known):
            self._known, current = b"", {}
        rows, num_bytes = parse_rows(content[len(self._known) :], self._file, is_later=bool(self._known))
        for row in rows:
            if (place := self._places.get(row.digest)) is not None:
                current[place] = row
        current = {place: row for place, row in current.items() if row.decision != "undo"}
        self._changes += [place for place in {**self._current, **current} if self._current.get(place) != current.get(place)]
        self._stamp, self._known, self._current = stamp, content[: len(self._known) + num_bytes], current


class EncodedImage(NamedTuple):
    """An encoded image that a browser shows."""

    content: bytes
    media_type: str


class ReviewServer:
    """The routes of the page, over one queue and one corrections file."""

    def __init__(self, queue: ReviewQueue, source: Source, corrections: Path, images: str | Path) -> None:
        """Serve ``queue``.

        Args:
            queue: images in the order of the review.
            source: holds the images.
            corrections: file to append decisions to.
            images: as the user named them.
        """
        self._source, self._queue, self._images, self._file = source, queue, images, corrections
        self._places = {item.digest: place for place, item in enumerate(self._queue.items)}
        self._queue_id = sha256("\n".join(self._places).encode()).hexdigest()[:16]
        self.decisions = Decisions(corrections, self._places)
        self._assets = Assets(Path(__file__).with_name("review_page"))
        self._decoding = BoundedSemaphore(num_cores())
        self._draw = lru_cache(NUM_CACHED)(self._read)

    def app(self) -> Starlette:
        """Return the ASGI application."""
        routes = [
            Route("/", lambda _: self._assets.answer("index.html")),
            Route("/static/{name}", self._assets.endpoint),
            Route("/api/review", self.facts),
            Route("/api/queue", self.places),
            Route("/api/items", self.items),
            Route("/api/decisions", self.changes),
            Route("/api/decisions", self.decide, methods=["POST"]),
            Route("/images/{digest}/{size}", self.image),
        ]

        async def refuse(_: Request, error: Exception) -> Response:
            assert isinstance(error, HTTPException)
            return error_response(error)

        async def explain(_: Request, error: Exception) -> Response:
            return error_response(HTTPException(409, str(error)))

        return Starlette(routes=routes, exception_handlers={HTTPException: refuse, DataError: explain})

    def facts(self, _: Request) -> Response:
        """What the page shows around the images: names, classes, and how many images of each kind there are."""
        counts = Counter(kind for item in self._queue.items for kind in item.kinds)
        return JSONResponse(
            {
                "queue": self._queue_id,
                "name": Path(self._queue.images).name or self._queue.images,
                "images": quote(str(self._images)),
                "corrections": quote(str(self._file)),
                "model": self._queue.model,
                "classes": sorted({*self._queue.classes, *self.decisions.labels()}),
                "kinds": {code: {"title": title, "count": counts[code]} for code, title in KINDS.items()},
                "num_suspicious": self._queue.num_suspicious,
                "num_items": len(self._queue.items),
                "examples": self._queue.examples,
            }
        )

    def places(self, request: Request) -> Response:
        """Places of the images of a kind and a class: numbers only, as there may be 100,000."""
        kind, label = request.query_params.get("kind", "suspicious"), request.query_params.get("label")
        if kind not in ("suspicious", "all", *KINDS):
            raise HTTPException(400, f"Unknown kind {kind[:100]!r}. The kinds are suspicious, all, {', '.join(KINDS)}.")

        def matches(item: ReviewItem) -> bool:
            return (kind == "all" or (item.is_suspicious if kind == "suspicious" else kind in item.kinds)) and (
                not label or label in item.labels
            )

        return JSONResponse({"ids": [place for place, item in enumerate(self._queue.items) if matches(item)]})

    def items(self, request: Request) -> Response:
        """Details of a few images."""
        texts = request.query_params.get("ids", "").split(",")
        if len(texts) > MAX_ITEMS or not all(text.isdecimal() and int(text) < len(self._places) for text in texts):
            raise HTTPException(400, f"Expected ids, up to {MAX_ITEMS} places of the queue with commas between them.")
        return JSONResponse({"items": [self._item(int(text)) for text in texts]})

    def _item(self, place: int) -> dict[str, Any]:
        item = self._queue.items[place]
        related = [self._queue.items[self._places[digest]] for digest in item.related]
        shown = [{"digest": other.digest, "labels": other.labels, "path": other.paths[0]} for other in related]
        return {"id": place, **asdict(item), "related": shown}

    def changes(self, request: Request) -> Response:
        """Decisions that the page does not know yet, of all windows and processes."""
        seen = request.query_params.get("seen", "0")
        if not seen.isdecimal():
            raise HTTPException(400, "Expected a whole number as seen.")
        return self._changes(request.query_params.get("run", ""), int(seen))

    def _changes(self, run: str, seen: int) -> Response:
        return JSONResponse({"queue": self._queue_id, **self.decisions.changes(run, seen)})

    async def decide(self, request: Request) -> Response:
        """Append a decision to the file; when this answers, it is on disk."""
        try:
            posted = TypeAdapter(PostedDecision).validate_json(await request.body())
        except ValidationError as error:
            detail = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
            raise HTTPException(400, f"Not a decision: {detail}") from error
        return await run_in_threadpool(self._append, posted)

    def _append(self, posted: PostedDecision) -> Response:
        place = self._places.get(posted.digest)
        if place is None:
            raise HTTPException(404, "No such image in this queue. Reload the page.")
        item, label = self._queue.items[place], (posted.label or "").strip()
        if (posted.decision == "relabel") != bool(label):
            raise HTTPException(400, "Expected a label with the decision relabel, and with no other.")
        if item.error and posted.decision == "relabel":
            raise HTTPException(400, "A file that cannot be used can only be kept or excluded.")
        before = self.decisions.of(place)
        row = Correction(
            digest=item.digest,
            path=item.paths[0],
            decision=posted.decision,
            label=label,
            previous=before.label if before and before.decision == "relabel" else ", ".join(item.labels),
            kind=item.kinds[0],
        )
        try:
            append_correction(self._file, row)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise HTTPException(500, f"{self._file} cannot be written ({reason}).") from error
        return self._changes(posted.run, posted.seen)

    def image(self, request: Request) -> Response:
        """An image as PNG or JPEG, decoded as in training."""
        digest, size = request.path_params["digest"], request.path_params["size"]
        if size not in SIDES_PX or digest not in self._places or self._queue.items[self._places[digest]].error:
            raise HTTPException(404, "No such image.")
        drawn = self._draw(digest, SIDES_PX[size])
        return Response(drawn.content, media_type=drawn.media_type, headers=FOREVER)

    def _read(self, digest: str, side_px: int) -> EncodedImage:
        path = self._queue.items[self._places[digest]].paths[0]
        try:
            content = self._source.read(path)
        except (OSError, KeyError, ValueError) as error:
            raise HTTPException(404, "The file cannot be read any more.") from error
        if sha256(content).hexdigest() != digest:
            raise HTTPException(409, "The file has changed since the scan. Start tl review again.")
        with self._decoding:
            try:
                image = decode(content, side_px=side_px).image
            except UndecodableError as error:
                raise HTTPException(404, str(error)) from error
            image_format: Literal["PNG", "JPEG"] = "PNG" if max(image.size) <= SIDES_PX["thumbnail"] else "JPEG"
            image.thumbnail((side_px, side_px))
            target = BytesIO()
            image.save(target, image_format, quality=88)
        return EncodedImage(target.getvalue(), f"image/{image_format.lower()}")
