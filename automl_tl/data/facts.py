"""Facts about one image that the scan records, from one decoding; the cache of these facts, and the thumbnails, on disk."""

from __future__ import annotations

import json
import logging
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Final, NamedTuple, Self, final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from automl_tl.data.decode import DECODER, decode
from automl_tl.errors import UndecodableError

MEASURE_VERSION: Final = 8
"""Part of the cache's key: raise it whenever a fact is computed differently."""

DECODED_PX: Final = 128  # shorter side that the decoder is asked for; it keeps up to twice that
MEASURED_PX: Final = 256
COLOR_PX: Final = 32
THUMBNAIL_PX: Final = 32
REDUCING_GAP: Final = 2.0  # a larger image is first averaged down to this multiple of the wanted size
COPIED: Final = ("width_px", "height_px", "format", "mode", "num_frames", "captured_at", "camera", "remarks")


class Facts(NamedTuple):
    """Fields of an ``ImageRecord`` and its thumbnail, or the reason why there are none."""

    fields: Mapping[str, object] = {}
    reason: str | None = None
    detail: str = ""
    thumbnail: bytes = b""  # 32 x 32 luma, upright, row by row


def measure(data: bytes) -> Facts:
    """Measure one image file; never raises because of its content."""
    try:
        decoded = decode(data, side_px=DECODED_PX)
    except UndecodableError as error:
        return Facts(reason=error.reason, detail=error.detail)
    image = _reduced(decoded.image)
    luma = image.convert("L")
    levels = np.asarray(luma, dtype=np.int16)
    thumbnail = luma.resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS, reducing_gap=REDUCING_GAP)
    fields = {
        "num_bytes": len(data),
        **{name: getattr(decoded, name) for name in COPIED},
        "brightness": round(int(levels.sum()) / levels.size / 255, 4),
        "contrast": round(_variance(levels) ** 0.5 / 255, 4),
        "color": round(_color(np.asarray(image)) / 255, 4),
        "sharpness": round(_sharpness(levels), 2),
    }
    return Facts(fields, thumbnail=thumbnail.tobytes())


def _reduced(image: Image.Image) -> Image.Image:
    scale = MEASURED_PX / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=REDUCING_GAP)


def _color(pixels: NDArray[np.uint8]) -> float:
    """Mean distance between the highest and the lowest channel on an even grid of 32 x 32 pixels."""
    height, width, _ = pixels.shape
    channels = np.ascontiguousarray(pixels[_evenly(height)][:, _evenly(width)].reshape(-1, 3).T)
    return int((channels.max(axis=0) - channels.min(axis=0)).sum()) / COLOR_PX**2


@lru_cache(maxsize=MEASURED_PX)
def _evenly(length: int) -> NDArray[np.intp]:
    return ((np.arange(COLOR_PX) + 0.5) * length / COLOR_PX).astype(np.intp)


def _sharpness(levels: NDArray[np.int16]) -> float:
    """Variance of the Laplacian of luma ``(H, W)``; 0 for an image without interior pixels."""
    if min(levels.shape) < 3:
        return 0.0
    laplacian = levels[:-2, 1:-1] + levels[2:, 1:-1] + levels[1:-1, :-2] + levels[1:-1, 2:] - 4 * levels[1:-1, 1:-1]
    return _variance(laplacian)


def _variance(values: NDArray[np.int16]) -> float:
    """As ``numpy.var``, in fewer passes; sums of whole numbers are exact, so that a constant has 0."""
    numbers = values.astype(np.float64).ravel()
    return float(numbers @ numbers / numbers.size - (numbers.sum() / numbers.size) ** 2)


# ---------------------------------------------------------------------------------------------------------- thumbnails

THUMBNAIL_BYTES: Final = THUMBNAIL_PX**2


@final
class Thumbnails(Mapping[str, bytes]):
    """Thumbnails by the digest of their image, in an unnamed temporary file: a million would take a gigabyte of memory.

    A context manager; the file disappears at its end. Any number of threads may read.

    Args:
        folder: where the file is made. Default: the system's temporary folder.
    """

    def __init__(self, folder: Path | None = None) -> None:
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
        self._file = TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._rows: dict[str, int] = {}
        self._lock = Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, digest: object) -> bool:
        return digest in self._rows

    def __getitem__(self, digest: str) -> bytes:
        with self._lock:
            self._file.seek(self._rows[digest] * THUMBNAIL_BYTES)
            return self._file.read(THUMBNAIL_BYTES)

    def add(self, digest: str, thumbnail: bytes) -> None:
        """Store the thumbnail of an image, once. All are added before the first is read.

        Args:
            digest: of the image.
            thumbnail: 32 x 32 luma levels, row by row.
        """
        if digest not in self._rows:
            self._rows[digest] = len(self._rows)
            self._file.write(thumbnail)


# --------------------------------------------------------------------------------------------------------------- cache

_log = logging.getLogger(__name__)
CHECKSUM_LETTERS: Final = 8
FILE_NAME: Final = "images.sqlite"
LOCK_TIMEOUT_S: Final = 30.0
TABLES: Final = """
CREATE TABLE IF NOT EXISTS facts (
    digest TEXT NOT NULL, version TEXT NOT NULL, reason TEXT, detail TEXT NOT NULL, facts TEXT NOT NULL, thumbnail BLOB,
    UNIQUE (digest, version)
);
CREATE TABLE IF NOT EXISTS stamps (
    place TEXT NOT NULL, path TEXT NOT NULL, stamp TEXT NOT NULL, digest TEXT NOT NULL, PRIMARY KEY (place, path)
) WITHOUT ROWID;
"""
SELECT: Final = "SELECT reason, detail, facts, thumbnail FROM facts WHERE digest = ? AND version = ?"


@final
class FactsCache:
    """Facts by the digest of the bytes, and the digest by the stamp of a file, so that unchanged files are not even read.

    One SQLite file in ``folder`` that may be deleted at any time and is shared by processes. Picklable.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / FILE_NAME
        self._version = f"{MEASURE_VERSION} {DECODER}"  # another decoder gives other pixels
        self._is_usable = True
        try:
            folder.mkdir(parents=True, exist_ok=True)
            try:
                self._create_tables()
            except sqlite3.DatabaseError as error:
                if not _is_damaged(error):
                    raise
                self._delete()
                self._create_tables()
        except (OSError, sqlite3.Error) as error:
            self._give_up(error)

    @contextmanager
    def lookup(self) -> Iterator[Callable[[str], Facts | None]]:
        """Open a function that returns the facts of a digest, or ``None``, also for what cannot be read any more."""
        with ExitStack() as stack:
            database = None
            with suppress(sqlite3.Error):
                database = stack.enter_context(self._open()) if self._is_usable else None

            def find(digest: str) -> Facts | None:
                try:
                    row = database.execute(SELECT, (digest, self._version)).fetchone() if database else None
                    return from_row(*row) if row else None
                except (sqlite3.Error, ValueError, KeyError, TypeError):
                    return None

            yield find

    def add(self, facts: Mapping[str, Facts]) -> None:
        """Store facts by digest."""
        rows = [(digest, self._version, *to_row(one)) for digest, one in facts.items()]
        self._insert("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def stamps(self, place: str, paths: Sequence[str]) -> dict[str, tuple[str, str]]:
        """Look up files by path.

        Args:
            place: root of the source.
            paths: sorted.

        Returns:
            Stamp and digest by path, of all files between the first and the last of ``paths``.
        """
        if not self._is_usable:
            return {}
        try:
            with self._open() as database:
                query = "SELECT path, stamp, digest FROM stamps WHERE place = ? AND path BETWEEN ? AND ?"
                rows = database.execute(query, (place, paths[0], paths[-1]))
                return {path: (stamp, digest) for path, stamp, digest in rows}
        except sqlite3.Error as error:
            self._give_up(error)
            return {}

    def add_stamps(self, place: str, stamps: Iterable[tuple[str, str, str]]) -> None:
        """Store stamps of files.

        Args:
            place: root of the source.
            stamps: path, stamp and digest of each.
        """
        self._insert("INSERT OR REPLACE INTO stamps VALUES (?, ?, ?, ?)", [(place, *stamp) for stamp in stamps])

    def _insert(self, statement: str, rows: Sequence[tuple[object, ...]]) -> None:
        if self._is_usable:
            try:
                with self._open() as database, database:
                    database.executemany(statement, rows)
            except sqlite3.Error as error:
                self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """Do without the cache from now on: all of it can be measured again. The next scan replaces a damaged file."""
        self._is_usable = False
        if _is_damaged(error):
            with suppress(OSError):
                self._delete()
        _log.warning("the cache of image facts %s cannot be used (%s): the images are measured again.", self._file, error)

    def _delete(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._file.with_name(self._file.name + suffix).unlink(missing_ok=True)

    def _create_tables(self) -> None:
        with self._open() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.executescript(TABLES)

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with closing(sqlite3.connect(self._file, timeout=LOCK_TIMEOUT_S)) as database:
            database.execute("PRAGMA synchronous = OFF")  # what a crash loses is measured again
            yield database


def _is_damaged(error: Exception) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _checksum(text: str, thumbnail: bytes) -> str:
    """CRC-32: SQLite does not notice when a power failure leaves wrong bytes inside a value."""
    return f"{zlib.crc32(thumbnail, zlib.crc32(text.encode())):0{CHECKSUM_LETTERS}x}"


def to_row(facts: Facts) -> tuple[str | None, str, str, bytes | None]:
    """Facts as plain values: reason, detail, JSON behind its checksum, thumbnail."""
    fields = dict(facts.fields)
    captured_at = fields.pop("captured_at", None)
    if isinstance(captured_at, datetime):
        fields["captured_at"] = captured_at.isoformat()
    text = json.dumps(fields)
    return facts.reason, facts.detail, _checksum(text, facts.thumbnail) + text, facts.thumbnail or None


def from_row(reason: str | None, detail: str, text: str, thumbnail: bytes | None) -> Facts:
    """Facts from the values of ``to_row``.

    Args:
        reason: why the image cannot be used, if so.
        detail: of the reason.
        text: JSON behind its checksum.
        thumbnail: 32 x 32 luma levels.

    Raises:
        ValueError: the checksum differs.
    """
    checksum, text = text[:CHECKSUM_LETTERS], text[CHECKSUM_LETTERS:]
    if checksum != _checksum(text, thumbnail or b""):
        raise ValueError("half-written")
    fields = json.loads(text)
    if not fields:
        return Facts({}, reason, detail)
    captured_at = fields.get("captured_at")
    own = {"captured_at": captured_at and datetime.fromisoformat(captured_at), "remarks": tuple(fields["remarks"])}
    return Facts({**fields, **own}, reason, detail, thumbnail or b"")
