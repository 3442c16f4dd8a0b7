"""Files behind URLs: lists them, and brings them into a local cache, in parallel and with retries.

| URL | reached with | credentials |
| --- | --- | --- |
| ``s3://`` ``gs://`` ``az://`` ``abfss://`` | obstore, extra ``[remote]`` | the environment, see obstore |
| ``http://`` ``https://`` | the standard library | ``https://USER:PASSWORD@HOST``, or a signature in the URL |
| ``hf://`` and others | fsspec file systems, extra ``[remote]`` | those of the file system |

A file in the cache is named by its URL and its version (ETag, or date and size), so a changed object is another file. It
appears there when it is complete. Nothing here knows what an image, a table or an archive is.
"""

from __future__ import annotations

import base64
import os
import posixpath
import random
import re
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from functools import cached_property
from hashlib import sha256
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any, Final, NamedTuple, Protocol, TypeGuard
from urllib.error import HTTPError
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit, urlunsplit
from urllib.request import Request, urlopen

from automl_tl.errors import Interrupted, SourceNotFoundError
from automl_tl.runtime.file_names import file_name
from automl_tl.runtime.paths import cache_dir, usable_cache
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl_registry.errors import MissingPackageError, RemoteError, UsageError
from automl_tl_registry.remote_store import OBJECT_STORES, connect, first_line

THREADS: Final = 32  # a download waits for the network, not for a core
AHEAD: Final = 4 * THREADS
CHUNK_BYTES: Final = 2**20
TRIES: Final = 4  # per object; obstore tries three times itself within each
FIRST_PAUSE_S: Final = 0.2  # doubled before each further try
TIMEOUT_S: Final = 30.0
FAILURES_IN_A_ROW: Final = 50  # an outage, not damaged objects
REPORT_EVERY: Final = 100_000  # listed objects
MAX_OBJECT_BYTES: Final = 2**30  # of a file that a table names; no image that is decoded is larger
PERMANENT: Final = frozenset((400, 405, 406, 414, 451, 501))  # HTTP answers that no further try changes
LOCAL_SCHEMES: Final = frozenset(("file", "local"))
SECRETS: Final = re.compile(
    r"x-(amz|goog)-.*|sig|signature|token|.*[-_]token|key|.*[-_]key|password|auth|awsaccesskeyid|googleaccessid|expires"
    r"|policy|key-pair-id|credential|s[vrtepd]|spr|sdd|sip|sk[a-z]{1,4}|ss|srt",
    re.IGNORECASE,
)
VERSION_FIELDS: Final = ("ETag", "etag", "blob_id", "checksum", "sha256", "mtime", "LastModified", "last_modified", "modified")


def is_url(text: object) -> TypeGuard[str]:
    """Whether ``text`` is a URL rather than a path; Windows' drives have one letter."""
    return isinstance(text, str) and re.match(r"[a-z][a-z0-9+.-]+://", text) is not None


def shown(url: str) -> str:
    """Return ``url`` as people may see it: without user, password, signature and fragment."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        return re.sub(r"://[^/@]*:[^/@]*@", "://", url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    public = [pair for pair in pairs if not SECRETS.fullmatch(pair[0])]
    query = parts.query if len(public) == len(pairs) else urlencode(public)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def file_name_of(url: str) -> str:
    """Return the last name in the path of ``url``; empty if it has none."""
    path = urlsplit(url).path if url.startswith("http") else url.partition("://")[2]
    name = posixpath.basename(path.rstrip("/"))
    return unquote(name) if url.startswith("http") else name


class RemoteObject(NamedTuple):
    """An object of a listing."""

    url: str
    size: int
    version: str


class Answer(NamedTuple):
    """An object that is being read."""

    version: str  # empty: unknown, so a later run reads it again
    size: int | None
    chunks: Iterator[bytes]
    name: str = ""  # that the server gives it


class Store(Protocol):
    """Objects of a bucket, host or file system. Errors are ``FileNotFoundError``, ``PermissionError`` or ``TransferError``."""

    def list(self, prefix: str) -> Iterator[RemoteObject]:
        """Yield the objects below ``prefix``, a URL."""
        ...

    def open(self, url: str, num_bytes: int | None, version: str) -> Answer:
        """Start to read an object, or its first bytes; only in a ``version``, if one is given."""
        ...


class TransferError(OSError):
    """An object that could not be read; ``is_permanent`` says that another try would not help."""

    def __init__(self, why: str, *, is_permanent: bool = False) -> None:
        self.is_permanent = is_permanent
        super().__init__(why)


# --------------------------------------------------------------------------------------------------------------- files


class RemoteFiles:
    """Local copies of remote objects. Picklable; ``read`` may be called from many threads.

    Names are URLs as people may see them; ``add`` returns the name of a URL.
    """

    def __init__(self) -> None:
        self._urls: dict[str, str] = {}
        self._versions: dict[str, str] = {}
        self._problems: dict[str, OSError] = {}

    def __getstate__(self) -> dict[str, object]:
        """The state without connections."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_stores", "_folder")}

    @cached_property
    def _stores(self) -> dict[str, Store]:
        return {}

    @cached_property
    def _folder(self) -> Path:
        return usable_cache(cache_dir()) / "objects"

    def add(self, url: str) -> str:
        """Return the name of ``url``, by which its object is fetched and read."""
        name = shown(url)
        if self._urls.setdefault(name, url) != url:  # two that differ in what is not shown
            name = f"{name}#{sha256(url.encode(errors='surrogatepass')).hexdigest()[:8]}"
            self._urls[name] = url
        return name

    def list(self, prefix: str, progress: Progress = QUIET) -> list[RemoteObject]:
        """Return the objects below a URL.

        Args:
            prefix: URL of a bucket or a folder.
            progress: receives the count of a long listing.

        Raises:
            RemoteError: the store cannot be reached, or refuses access.
        """
        objects: list[RemoteObject] = []
        try:
            for number, found in enumerate(self._store(prefix).list(prefix.rstrip("/")), start=1):
                objects.append(found)
                if number % REPORT_EVERY == 0:
                    progress.info(f"{shown(prefix)}: {number:,} objects listed ...")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise RemoteError(shown(prefix), str(error)) from error
        objects = sorted(found._replace(url=self.add(found.url)) for found in objects)
        self._versions |= {found.url: found.version for found in objects}
        return objects

    def fetch(self, names: Iterable[str], progress: Progress = QUIET, *, head_bytes: int | None = None) -> None:
        """Bring objects into the cache. One that cannot be had is remembered; ``read`` raises its error.

        Args:
            names: of the objects; those with a known version are not asked for again.
            progress: receives progress, and the failures.
            head_bytes: bring only so many of the first bytes.

        Raises:
            RemoteError: many in a row failed, and none succeeded in between.
            Interrupted: the user pressed Ctrl-C; what was finished stays.
        """
        names = list(names)
        self._mark_used(names)
        missing = [name for name in names if not self._is_here(name, head_bytes)]
        if not missing:
            return
        failures_in_a_row = 0
        with progress.track("Downloading", len(missing)) as advance, closing(self._bring_all(missing, head_bytes)) as results:
            for name, problem in results:
                advance(1)
                if problem is None:
                    failures_in_a_row = 0
                    continue
                self._problems[name] = problem
                failures_in_a_row += not isinstance(problem, FileNotFoundError)
                if failures_in_a_row == FAILURES_IN_A_ROW:
                    raise RemoteError(name, f"{failures_in_a_row} objects in a row failed: {problem}") from problem
        if failed := [name for name in missing if name in self._problems]:
            example = f"{failed[0]}: {self._problems[failed[0]]}"
            progress.warn(f"{len(failed):,} of {len(missing):,} objects cannot be read, such as {example}")

    def _bring_all(self, names: Sequence[str], head_bytes: int | None) -> Generator[tuple[str, OSError | None]]:
        """Bring objects, a bounded number at once, and yield each with its problem."""
        stop, source = Event(), iter(names)
        pending: deque[tuple[str, Future[Path]]] = deque()
        pool = ThreadPoolExecutor(THREADS, thread_name_prefix="fetch")
        try:
            while True:
                for name in islice(source, AHEAD - len(pending)):
                    pending.append((name, pool.submit(self._bring, name, head_bytes, stop)))
                if not pending:
                    return
                name, future = pending.popleft()
                try:
                    future.result()
                    yield name, None
                except (FileNotFoundError, TransferError, PermissionError) as error:
                    yield name, error
        except KeyboardInterrupt:
            raise Interrupted("What was downloaded stays in the cache; the same command continues there.") from None
        finally:
            stop.set()
            pool.shutdown(cancel_futures=True)

    def local(self, name: str) -> Path:
        """Bring one object into the cache, under its own name.

        Raises:
            SourceNotFoundError: there is no such object.
            RemoteError: it cannot be read.
        """
        try:
            return self._bring_named(name)
        except FileNotFoundError as error:
            expected = "an archive, table or image (HTTP does not list folders)" if name.startswith("http") else "an object"
            raise SourceNotFoundError(name, expected) from error
        except (TransferError, PermissionError) as error:
            raise RemoteError(name, str(error)) from error

    def has(self, name: str) -> bool:
        """Whether an object of a known version is in the cache."""
        return self._is_here(name, None)

    def read(self, name: str, max_bytes: int | None = None) -> bytes:
        """Return the bytes of an object; an ``OSError`` says why it cannot be read.

        Args:
            name: of the object.
            max_bytes: only so many of the first bytes.
        """
        if problem := self._problems.get(name):
            raise problem
        for head_bytes in dict.fromkeys((None, max_bytes)):
            if self._is_here(name, head_bytes):
                break
        file = self._bring(name, head_bytes, Event())
        with file.open("rb") as opened:
            return opened.read(-1 if max_bytes is None else max_bytes)

    # ------------------------------------------------------------------------------------------------------------ cache

    def _place(self, name: str, version: str, head_bytes: int | None = None) -> Path:
        """The file of an object; all of a bucket or host are one entry of the cache."""
        root = sha256(_root_of(name).encode()).hexdigest()[:24]
        digest = sha256(f"{name}\0{version}".encode(errors="surrogatepass")).hexdigest()
        return self._folder / root / digest[:2] / (digest[2:] if head_bytes is None else f"{digest[2:]}.{head_bytes}")

    def _is_here(self, name: str, head_bytes: int | None) -> bool:
        version = self._versions.get(name)
        return bool(version) and self._place(name, version or "", head_bytes).is_file()

    def _mark_used(self, names: Iterable[str]) -> None:
        """Keep the entries of ``names`` from being removed as the least recently used."""
        for root in {self._place(name, "").parents[1] for name in names}:
            with suppress(OSError):
                os.utime(root)

    def _bring_named(self, name: str) -> Path:
        file = self._bring(name, None, Event(), max_bytes=None)
        link = file.with_name(f"{file.name}.named") / file_name(self._names.get(name) or file_name_of(name) or "file")
        if not link.exists():
            link.parent.mkdir(exist_ok=True)
            try:
                link.hardlink_to(file)
            except OSError:  # a file system without hard links
                file.replace(link)
        return link

    @cached_property
    def _names(self) -> dict[str, str]:
        return {}

    def _bring(self, name: str, head_bytes: int | None, stop: Event, max_bytes: int | None = MAX_OBJECT_BYTES) -> Path:
        """Bring an object into the cache, unless it is there."""
        for number in range(TRIES):
            try:
                return self._bring_once(name, head_bytes, stop, max_bytes)
            except TransferError as error:
                if error.is_permanent or number == TRIES - 1 or stop.wait(FIRST_PAUSE_S * 2**number * random.uniform(0.5, 1.5)):
                    raise
        raise AssertionError  # the last try returns or raises

    def _bring_once(self, name: str, head_bytes: int | None, stop: Event, max_bytes: int | None) -> Path:
        if self._is_here(name, head_bytes):
            return self._place(name, self._versions[name], head_bytes)
        answer = self._store(name).open(self._urls.get(name, name), head_bytes, self._versions.get(name, ""))
        self._names[name] = answer.name
        version = answer.version or f"unknown {time.time_ns()}"
        self._versions[name] = version
        place = self._place(name, version, head_bytes)
        if place.is_file():
            return place
        if max_bytes is not None and (answer.size or 0) > max_bytes:
            raise TransferError(f"it has {answer.size or 0:,} bytes, more than {max_bytes:,}", is_permanent=True)
        place.parent.mkdir(parents=True, exist_ok=True)
        draft = place.with_name(f".{os.urandom(8).hex()}.tmp")
        try:
            with writing_to(self._folder), draft.open("wb") as file:
                for chunk in answer.chunks:
                    file.write(chunk)
                    if stop.is_set():
                        raise TransferError("interrupted", is_permanent=True)
                    if max_bytes is not None and file.tell() > max_bytes:
                        raise TransferError(f"it has more than {max_bytes:,} bytes", is_permanent=True)
                num_bytes = file.tell()
            if answer.size is not None and num_bytes != answer.size:
                raise TransferError(f"it ended after {num_bytes:,} of {answer.size:,} bytes")
            draft.replace(place)
        finally:
            draft.unlink(missing_ok=True)
        return place

    def _store(self, url: str) -> Store:
        root = _root_of(url)
        if root not in self._stores:
            self._stores[root] = open_store(self._urls.get(url, url))
        return self._stores[root]


def _root_of(url: str) -> str:
    """The bucket, host or file system of ``url``."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].rpartition('@')[2]}"


# -------------------------------------------------------------------------------------------------------------- stores


def open_store(url: str) -> Store:
    """Return the store of a URL; nothing is read yet.

    Raises:
        UsageError: the scheme is unknown, or a package for it is not installed.
    """
    scheme = url.partition("://")[0]
    if scheme in LOCAL_SCHEMES or "::" in url:
        raise UsageError(f"{shown(url)} is not the URL of a remote object. Expected s3://, gs://, az://, hf://, https:// ...")
    if scheme in OBJECT_STORES:
        return ObjectStore(url)
    return HttpStore() if scheme in ("http", "https") else FsspecStore(url)


class ObjectStore:
    """A bucket of S3, Google Cloud Storage or Azure."""

    def __init__(self, url: str) -> None:
        self._root = _root_of(url)
        if self._root.endswith("//"):
            raise UsageError(f"{url!r} names no bucket; expected e.g. s3://BUCKET/FOLDER.")
        self._store = connect(self._root)
        import obstore

        self._obstore = obstore

    def list(self, prefix: str) -> Iterator[RemoteObject]:
        """Yield the objects of a folder; the markers by which consoles show empty folders are left out."""
        with self._explained():
            for page in self._obstore.list(self._store, prefix.removeprefix(self._root).strip("/") or None):
                for entry in page:
                    if entry["size"] or posixpath.splitext(entry["path"])[1]:
                        version = entry.get("e_tag") or f"{entry['last_modified']}"
                        yield RemoteObject(f"{self._root}/{entry['path']}", entry["size"], f"{version} {entry['size']}")

    def open(self, url: str, num_bytes: int | None, version: str) -> Answer:
        """Start to read an object."""
        options: Any = {} if num_bytes is None else {"range": (0, num_bytes)}
        if version.startswith('"'):
            options["if_match"] = version.rpartition(" ")[0]
        with self._explained():
            got = self._obstore.get(self._store, url.removeprefix(f"{self._root}/"), options=options or None)
        meta = got.meta
        found = f"{meta.get('e_tag') or meta['last_modified']} {meta['size']}"
        return Answer(found, meta["size"] if num_bytes is None else None, self._chunks(got))

    def _chunks(self, got: Any) -> Iterator[bytes]:  # noqa: ANN401 - obstore is imported when it is needed
        with self._explained():
            for chunk in got.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        errors = self._obstore.exceptions
        try:
            yield
        except (errors.BaseError, OSError) as error:
            text = str(error)
            if isinstance(error, errors.NotFoundError | FileNotFoundError) and "NoSuchBucket" not in text:
                raise FileNotFoundError("there is no such object") from error
            if "NoSuchBucket" in text or "ContainerNotFound" in text:
                raise PermissionError("there is no such bucket") from error
            if isinstance(error, errors.InvalidPathError):
                advice = "keys with empty parts, '.' or '..' cannot be read; rename the object, or name a folder without it"
                raise TransferError(f"{first_line(error)}: {advice}", is_permanent=True) from error
            if isinstance(error, errors.PreconditionError):
                raise TransferError("it changed after it was listed; run the command again", is_permanent=True) from error
            if isinstance(error, errors.PermissionDeniedError | errors.UnauthenticatedError) or "403 Forbidden" in text:
                raise PermissionError(f"access was denied: {first_line(error)}") from error
            raise TransferError(first_line(error)) from error


class HttpStore:
    """Single files by HTTP. Proxies come from the environment."""

    def list(self, prefix: str) -> Iterator[RemoteObject]:
        """HTTP has no listing."""
        raise UsageError(
            f"{shown(prefix)} is not an archive or table, and folders cannot be listed by HTTP. Name a zip or tar archive, "
            "or a table with URLs."
        )

    def open(self, url: str, num_bytes: int | None, version: str) -> Answer:
        """Start to read a file."""
        parts = urlsplit(url)
        address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, parts.query, ""))
        request = Request(quote(address, safe="%/:=&?~+!$,;'@()*[]"), headers={"User-Agent": "automl-tl"})
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}")
        with _http_explained():
            response = urlopen(request, timeout=TIMEOUT_S)
        headers = response.headers
        size = int(headers["Content-Length"]) if str(headers["Content-Length"]).isdecimal() else None
        tag = headers["ETag"] or headers["Last-Modified"]
        return Answer(f"{tag} {size}" if tag else "", size, _http_chunks(response), headers.get_filename() or "")


def _http_chunks(response: Any) -> Iterator[bytes]:  # noqa: ANN401 - urlopen's
    with _http_explained(), response:
        while chunk := response.read(CHUNK_BYTES):
            yield chunk


@contextmanager
def _http_explained() -> Iterator[None]:
    try:
        yield
    except HTTPError as error:
        error.close()
        why = f"the server answers {error.code} {error.reason}"
        if error.code in (404, 410):
            raise FileNotFoundError(why) from error
        if error.code in (401, 403):
            raise PermissionError(why) from error
        raise TransferError(why, is_permanent=error.code in PERMANENT) from error
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise TransferError(f"no answer: {first_line(Exception(reason))}" if str(reason) else "no answer") from error


class FsspecStore:
    """A file system of fsspec, such as the Hugging Face Hub's (``hf://``), SFTP or SMB."""

    def __init__(self, url: str) -> None:
        try:
            import fsspec
        except ImportError as error:
            raise MissingPackageError("fsspec", "remote") from error
        self._scheme = url.partition("://")[0]
        try:
            self._files, _ = fsspec.core.url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise UsageError(f"{shown(url)} cannot be used: {first_line(error)}.") from error

    def list(self, prefix: str) -> Iterator[RemoteObject]:
        """Yield the files of a folder."""
        root = self._files._strip_protocol(prefix)
        with self._explained():
            for path, info in self._files.find(root, detail=True).items():
                url = prefix + str(path).removeprefix(root)
                yield RemoteObject(url, int(info.get("size") or 0), _version_of(info))

    def open(self, url: str, num_bytes: int | None, version: str) -> Answer:
        """Start to read a file."""
        path = self._files._strip_protocol(url)
        with self._explained():
            info = self._files.info(path)
            if info.get("type") == "directory":
                raise FileNotFoundError("it is a folder")
        size = None if info.get("size") is None or num_bytes is not None else int(info["size"])
        return Answer(_version_of(info), size, self._chunks(path, num_bytes))

    def _chunks(self, path: str, num_bytes: int | None) -> Iterator[bytes]:
        with self._explained():
            if num_bytes is not None:
                yield self._files.cat_file(path, start=0, end=num_bytes)
                return
            with self._files.open(path, "rb") as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    yield chunk

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise FileNotFoundError(first_line(error) or "there is no such file") from error
        except PermissionError as error:
            raise PermissionError(f"access was denied: {first_line(error)}") from error
        except Exception as error:  # each file system has errors of its own
            raise TransferError(f"{type(error).__name__}: {first_line(error)}") from error


def _version_of(info: dict[str, Any]) -> str:
    """What tells a version of a file from another, as far as its file system says; empty if it does not."""
    found = [str(info[name]) for name in VERSION_FIELDS if info.get(name)]
    return f"{found[0]} {info.get('size')}" if found else ""
