"""Stores of a shared registry: the few operations it needs on a folder, an object store, or anything that fsspec reaches.

| URL | store | creates exclusively |
| --- | --- | --- |
| ``file://`` or a path | a folder, also a network folder | with hard links |
| ``s3://`` ``gs://`` ``az://`` ``abfss://`` | obstore, extra ``[remote]`` | if the server honors ``If-None-Match`` |
| any other | fsspec, extra ``[remote]`` | never |

An object appears under its key when it is complete. fsspec is not used for object stores, because its ``mode="create"`` looks
first and then writes, unless a file system does better (decision 58). Errors are bounded: a server that does not answer is
given up after half a minute.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from automl_tl_registry.errors import (
    DamagedObjectError,
    DiskFullError,
    MissingObjectError,
    MissingPackageError,
    NotWritableError,
    RemoteError,
    UsageError,
)
from automl_tl_registry.storage import CHUNK_BYTES, Disk, chunks_of

PROBE_KEY: Final = "created-once"
MAX_OBJECT_BYTES: Final = 16_000_000  # as of a manifest blob; files of a version are not read at once
OBJECT_STORES: Final = ("s3", "s3a", "gs", "az", "azure", "abfs", "abfss", "adl")
TRIES: Final = {"max_retries": 2, "retry_timeout": timedelta(seconds=30)}
WAITS: Final = {"connect_timeout": "5s", "read_timeout": "30s", "timeout": "6h"}  # the last one is for a whole file
FOLDER_ADVICE: Final = "Check that the folder is there, writable and not full, and try again."
_PARTIAL: Final = ".partial-"


class Stored(NamedTuple):
    """Size of an object, and when it was stored last, by the clock of the store."""

    size_bytes: int
    modified: datetime


class RemoteStore(Protocol):
    """Objects by key below a URL. Errors name the object or the URL."""

    @property
    def url(self) -> str:
        """The URL, without a slash at its end."""
        ...

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the content of an object; raise MissingObjectError if there is none."""
        ...

    def stored(self, key: str) -> Stored | None:
        """Return size and age of an object, None if there is none."""
        ...

    def create(self, key: str, content: bytes) -> bool:
        """Create an object; return False, and change nothing, if there is one."""
        ...

    def upload(self, key: str, path: Path) -> None:
        """Store a file, and replace an object that is there."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Return the keys that start with ``prefix``, a folder with its slash, sorted."""
        ...

    def remove(self, key: str) -> None:
        """Remove an object, if there is one."""
        ...

    def creates_exclusively(self) -> bool:
        """Return whether ``create`` is safe when two processes create the same object at once."""
        ...


def open_store(url: str) -> RemoteStore:
    """Return the store at a URL, or in a folder; nothing is read yet.

    Raises:
        UsageError: the URL is malformed, or a package for its scheme is not installed.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme == "file":
        return FolderStore(_folder_of(url))
    if scheme in OBJECT_STORES and not rest.partition("/")[0]:
        raise UsageError(f"{url!r} names no bucket; expected e.g. s3://BUCKET/FOLDER.")
    return ObjectStore(url.rstrip("/")) if scheme in OBJECT_STORES else FsspecStore(url.rstrip("/"))


def read_object(store: RemoteStore, key: str) -> bytes:
    """Return a small object, such as a manifest or an entry of a log.

    Args:
        store: the store, whose content is not trusted.
        key: key of the object.

    Raises:
        MissingObjectError: there is none.
        DamagedObjectError: it is too large.
    """
    content = bytearray()
    for chunk in store.chunks(key):
        content += chunk
        if len(content) > MAX_OBJECT_BYTES:
            raise DamagedObjectError(f"{store.url}/{key}", f"it has more than {MAX_OBJECT_BYTES} bytes")
    return bytes(content)


def connect(url: str) -> Any:  # noqa: ANN401 - a store of obstore, which has a class for each service
    """Return obstore's store for the URL of a bucket, or of a folder in it; nothing is read yet.

    Raises:
        UsageError: the URL is malformed, or obstore is not installed.
    """
    obstore = _package("obstore")
    options: dict[str, object] = dict(WAITS)
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if endpoint is not None and not re.fullmatch(r"https?://[!-~]+", endpoint):  # obstore would end the process
        raise UsageError(f"AWS_ENDPOINT_URL is {endpoint!r}; expected e.g. https://storage.example.org.")
    if endpoint is not None and endpoint.startswith("http://"):
        options["allow_http"] = True
    try:
        return obstore.store.from_url(url, client_options=options, retry_config=TRIES)
    except (obstore.exceptions.BaseError, ValueError) as error:
        expected = "the variable AZURE_STORAGE_ACCOUNT_NAME" if url.startswith("a") else "e.g. s3://BUCKET/FOLDER"
        raise UsageError(f"{url!r} cannot be used: {first_line(error)}. Expected {expected}.") from error


def _folder_of(url: str) -> Path:
    if not url.startswith("file://"):
        return Path(url).absolute()
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or not path.strip("/"):
        raise UsageError(f"{url!r} is not the URL of a folder; expected file:///PATH with three slashes.")
    return Path(path[1:] if re.match(r"/[A-Za-z]:", path) else path)


class FolderStore:
    """Objects are files below a folder."""

    def __init__(self, folder: Path) -> None:
        """Use ``folder``; a missing one reads as empty and is created by the first write."""
        self.folder, self.url, self._disk = folder, folder.as_uri(), Disk()

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the content of a file."""
        path = self.folder / key
        with self._explained(key):
            if path.exists() and not path.is_file():  # a pipe would block
                raise IsADirectoryError
            yield from chunks_of(path)

    def stored(self, key: str) -> Stored | None:
        """Return size and age of a file."""
        try:
            with self._explained(key):
                status = (self.folder / key).stat()
        except MissingObjectError:
            return None
        return Stored(status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))

    def remove(self, key: str) -> None:
        """Remove a file."""
        with self._explained(key):
            (self.folder / key).unlink(missing_ok=True)

    def create(self, key: str, content: bytes) -> bool:
        """Create a file by a hard link, which fails if there is one."""
        with self._explained(key), self._written(key, iter([content])) as (draft, target):
            try:
                os.link(draft, target)
            except FileExistsError:
                return False
            self._disk.sync_folder(target.parent)
        return True

    def upload(self, key: str, path: Path) -> None:
        """Copy a file and rename the copy."""
        with self._explained(key), self._written(key, chunks_of(path)) as (draft, target):
            self._disk.rename(draft, target)

    def list(self, prefix: str) -> list[str]:
        """Return the files below a folder."""
        with self._explained(prefix):
            below = (self.folder / prefix).rglob("*")
            files = (path for path in below if path.is_file() and not path.name.startswith(_PARTIAL))
            return sorted(path.relative_to(self.folder).as_posix() for path in files)

    def creates_exclusively(self) -> bool:
        """Return whether the file system has hard links."""
        try:
            self.create(PROBE_KEY, b"")
            return not self.create(PROBE_KEY, b"")
        except RemoteError as error:
            if getattr(error.__cause__, "filename2", None) is not None:  # by os.link; anything else stops a push as well
                return False
            raise

    @contextmanager
    def _written(self, key: str, content: Iterator[bytes]) -> Iterator[tuple[Path, Path]]:
        """Write a draft beside its target, and remove it at the end."""
        target = self.folder / key
        self._disk.make_folder(target.parent)
        draft = target.with_name(f"{_PARTIAL}{os.urandom(8).hex()}")
        try:
            self._disk.write(draft, content)
            yield draft, target
        finally:
            draft.unlink(missing_ok=True)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise MissingObjectError(f"{self.url}/{key}") from error
        except (NotWritableError, DiskFullError) as error:
            raise RemoteError(f"{self.url}/{key}", error.why, FOLDER_ADVICE) from error
        except OSError as error:
            raise RemoteError(f"{self.url}/{key}", error.strerror or str(error), FOLDER_ADVICE) from error


class ObjectStore:
    """Objects in S3, Google Cloud Storage or Azure; credentials and endpoints come from the environment."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet; ``url`` names a bucket and maybe a folder in it."""
        self.url, self._obstore, self._store = url, _package("obstore"), connect(url)

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the content of an object."""
        with self._explained(key):
            for chunk in self._obstore.get(self._store, key).stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def stored(self, key: str) -> Stored | None:
        """Return size and age of an object."""
        try:
            with self._explained(key):
                head = self._obstore.head(self._store, key)
        except MissingObjectError:
            return None
        return Stored(int(head["size"]), head["last_modified"])

    def remove(self, key: str) -> None:
        """Remove an object."""
        with suppress(MissingObjectError), self._explained(key):
            self._obstore.delete(self._store, key)

    def create(self, key: str, content: bytes) -> bool:
        """Create an object with ``If-None-Match: *`` or the equal of the store."""
        try:
            with self._explained(key):
                self._obstore.put(self._store, key, content, mode="create", use_multipart=False)
        except FileExistsError:
            return False
        return True

    def upload(self, key: str, path: Path) -> None:
        """Upload a file, in parts if it is large."""
        with self._explained(key):
            self._obstore.put(self._store, key, path)

    def list(self, prefix: str) -> list[str]:
        """Return the keys that start with ``prefix``."""
        with self._explained(prefix):
            pages = self._obstore.list(self._store, prefix.rstrip("/"))
            return sorted(entry["path"] for page in pages for entry in page)

    def creates_exclusively(self) -> bool:
        """Find out: a server that ignores the condition creates the same object twice."""
        try:
            return not (self.create(PROBE_KEY, b"") and self.create(PROBE_KEY, b""))
        except RemoteError as error:
            if "NotImplemented" in error.why or "not supported" in error.why:
                return False
            raise

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        errors = self._obstore.exceptions
        try:
            yield
        except (errors.AlreadyExistsError, FileExistsError) as error:
            raise FileExistsError(key) from error
        except (errors.BaseError, OSError) as error:
            if "NoSuchBucket" in str(error) or "ContainerNotFound" in str(error):
                raise RemoteError(self.url, "there is no such bucket") from error
            if isinstance(error, errors.NotFoundError | FileNotFoundError):
                raise MissingObjectError(f"{self.url}/{key}") from error
            if isinstance(error, errors.PermissionDeniedError | PermissionError) or "403 Forbidden" in str(error):
                raise RemoteError(self.url, f"access was denied: {first_line(error)}") from error
            raise RemoteError(f"{self.url}/{key}", first_line(error)) from error


class FsspecStore:
    """Objects are files of an fsspec file system, such as sftp or smb. It cannot create exclusively."""

    def __init__(self, url: str) -> None:
        """Connect to ``url``."""
        fsspec = _package("fsspec")
        self.url = re.sub(r"//([^/@:]*):[^/@]*@", r"//\1:***@", url)  # errors and results show it
        try:
            with self._explained(""):
                self._files, self._root = fsspec.core.url_to_fs(url)
        except ImportError as error:
            raise UsageError(f"{self.url!r} cannot be used: {first_line(error)}. Install it with pip.") from error
        except ValueError as error:
            advice = "Expected s3://, gs://, az://, file:///, a folder, or a file system of fsspec"
            raise UsageError(f"{self.url!r} cannot be used: {first_line(error)}. {advice}.") from error

    def chunks(self, key: str) -> Iterator[bytes]:
        """Yield the content of a file."""
        with self._explained(key), self._files.open(f"{self._root}/{key}", "rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                yield chunk

    def stored(self, key: str) -> Stored | None:
        """Return the size of a file; it counts as new, because file systems differ in what they say, and none is collected."""
        try:
            with self._explained(key):
                return Stored(int(self._files.size(f"{self._root}/{key}")), datetime.now(UTC))
        except MissingObjectError:
            return None

    def remove(self, key: str) -> None:
        """Remove a file."""
        with suppress(MissingObjectError), self._explained(key):
            self._files.rm_file(f"{self._root}/{key}")

    def create(self, key: str, content: bytes) -> bool:
        """Create a file unless there is one; another process may do the same in between."""
        if self.stored(key) is not None:
            return False
        self._put(key, iter([content]))
        return True

    def upload(self, key: str, path: Path) -> None:
        """Copy a file and rename the copy."""
        self._put(key, chunks_of(path))

    def list(self, prefix: str) -> list[str]:
        """Return the files below a folder."""
        with self._explained(prefix):
            found = self._files.find(f"{self._root}/{prefix}")
            keys = (str(path).removeprefix(self._files._strip_protocol(self._root)).lstrip("/") for path in found)
            return sorted(key for key in keys if not key.rpartition("/")[2].startswith(_PARTIAL))

    def creates_exclusively(self) -> bool:
        """Return False: fsspec looks first and then writes."""
        return False

    def _put(self, key: str, content: Iterator[bytes]) -> None:
        target = f"{self._root}/{key}"
        folder = target.rpartition("/")[0]
        draft = f"{folder}/{_PARTIAL}{os.urandom(8).hex()}"
        with self._explained(key):
            self._files.makedirs(folder, exist_ok=True)
            with self._files.open(draft, "wb") as stream:
                for chunk in content:
                    stream.write(chunk)
            self._files.mv(draft, target)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise MissingObjectError(f"{self.url}/{key}") from error
        except (ImportError, ValueError, RemoteError):
            raise
        except Exception as error:  # each file system has errors of its own
            raise RemoteError(f"{self.url}/{key}".rstrip("/"), f"{type(error).__name__}: {first_line(error)}") from error


def _package(name: str) -> Any:  # noqa: ANN401 - obstore or fsspec
    from importlib import import_module

    try:
        import_module({"obstore": "obstore.store", "fsspec": "fsspec.core"}[name])
        return import_module(name)
    except ImportError as error:
        raise MissingPackageError(name, "remote") from error


def first_line(error: Exception) -> str:
    """Return the text of an error on one line, without what only a developer of obstore needs."""
    text = " ".join(line.strip() for line in str(error).split("Debug source")[0].splitlines() if line.strip())
    text = re.sub(r"Error performing \w+ request: |Generic \w+ error: |, after \d+ retries,.*?retry_timeout: \w+", "", text)
    return text[:400].rstrip(". ")
