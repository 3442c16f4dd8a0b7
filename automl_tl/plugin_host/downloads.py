"""Download pretrained weights from the Hugging Face Hub: resumed, verified, within a time limit, into the hub's own cache.

huggingface_hub asks for the metadata; the bytes are fetched here, because its own download neither stops at a time limit
nor keeps a partial file for the next attempt. What is finished lies where huggingface_hub and timm look for it.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from automl_tl.errors import UnavailableWeightsError
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import BackboneCard, PretrainedWeights

ASSUMED_BYTES_PER_S: Final = 10e6  # of an ordinary connection; shown with every estimate
MAX_ATTEMPTS: Final = 5  # without a new byte in between the download ends at once
READ_TIMEOUT_S: Final = 10.0
MEASURING_S: Final = 2.0  # before the measured rate is used to give up on a slow server
CHUNK_BYTES: Final = 1 << 16
SHA256: Final = re.compile(r"[0-9a-f]{64}")
GIT_BLOB: Final = re.compile(r"[0-9a-f]{40}")


class DownloadError(OSError):
    """The file that the hub serves cannot be used."""


class HubFile(NamedTuple):
    """A file of a repository, as the hub describes it."""

    repository: str
    name: str
    commit: str
    etag: str
    num_bytes: int


def is_offline() -> bool:
    """Return whether the user forbids requests to the hub (``HF_HUB_OFFLINE=1``)."""
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def endpoint() -> str:
    """Return the address of the hub, or of the mirror that ``HF_ENDPOINT`` names."""
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def is_reachable(limit_s: float) -> bool:
    """Return whether the hub, or the proxy on the way to it, accepts a connection; nothing is sent.

    Args:
        limit_s: seconds until it counts as unreachable, the lookup of its name included.
    """
    address = urlsplit(endpoint())
    proxy = urllib.request.getproxies().get(address.scheme)
    if proxy and not urllib.request.proxy_bypass(address.hostname or ""):
        address = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    connected = threading.Event()

    def connect() -> None:
        port = address.port or {"https": 443}.get(address.scheme, 80)
        with suppress(OSError), socket.create_connection((address.hostname or "", port), timeout=limit_s):
            connected.set()

    thread = threading.Thread(target=connect, daemon=True)  # a lookup has no time limit of its own
    thread.start()
    thread.join(limit_s)
    return connected.is_set()


def download_s(card: BackboneCard) -> float:
    """Return the expected seconds of a download at the assumed rate; 0 for local weights."""
    if card.weights != "download":
        return 0.0
    return inf if card.weights_mib is None else card.weights_mib * 2**20 / ASSUMED_BYTES_PER_S


def local_file(card: BackboneCard) -> Path | None:
    """Return the file of the weights in the hub's cache, or ``None``."""
    if not card.hub:
        return None
    from huggingface_hub import try_to_load_from_cache

    repository, _, revision = card.hub.partition("@")
    paths = (try_to_load_from_cache(repository, name, revision=revision or None) for name in card.hub_files)
    return next((Path(path) for path in paths if isinstance(path, str)), None)


def pretrained_weights(card: BackboneCard) -> PretrainedWeights:
    """Return origin, digest and license of local weights; without a digest where they are no file of the hub."""
    file = local_file(card)
    if file is None:
        return PretrainedWeights(backbone=card.name, license=card.license)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return PretrainedWeights(
        backbone=card.name,
        license=card.license,
        repository=card.hub.partition("@")[0],
        commit=file.parent.name,
        file=file.name,
        num_bytes=file.stat().st_size,
        sha256=digest,
    )


def is_unreachable(error: Exception) -> bool:
    """Return whether a download failed because the hub does not answer, so that other downloads would fail as well."""
    from huggingface_hub.errors import FileMetadataError, HfHubHTTPError

    refused = HfHubHTTPError | FileMetadataError | urllib.error.HTTPError | DownloadError
    is_of_disk = isinstance(error.__cause__, OSError) and error.__cause__.errno is not None
    return isinstance(error, UnavailableWeightsError) and not isinstance(error.__cause__, refused) and not is_of_disk


def download(card: BackboneCard, *, limit_s: float = inf, progress: Progress = QUIET) -> Path:
    """Return the file of the weights in the hub's cache; download it if it is missing.

    Args:
        card: of a backbone whose weights are on the hub.
        limit_s: seconds it may take; the partial file is kept for the next attempt.
        progress: receives a progress bar.

    Raises:
        UnavailableWeightsError: the hub cannot be reached or refuses, or the file is damaged, or time or disk end.
    """
    if (cached := local_file(card)) is not None:
        return cached
    started_s = time.monotonic()
    try:
        file = _describe(card, limit_s)
        partial = _partial_path(file)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _check_space(file, partial)
        _fetch(file, partial, lambda: limit_s - (time.monotonic() - started_s), progress)
        _verify(file, partial)
        return _put_in_cache(card, file, partial)
    except Exception as error:  # of the hub's client, the HTTP libraries or the file system
        from huggingface_hub import constants

        folder = Path(constants.HF_HUB_CACHE) / _folder_name(card.hub.partition("@")[0]) / "snapshots" / "*"
        address = f"{re.sub('^https?://', '', constants.ENDPOINT)}/{card.hub}"
        raise UnavailableWeightsError(card.name, folder / card.hub_files[0], address, error) from error


def _describe(card: BackboneCard, limit_s: float) -> HubFile:
    """Ask the hub for size, digest and commit, once and without retries."""
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import RemoteEntryNotFoundError

    repository, _, revision = card.hub.partition("@")
    timeout_s = min(constants.HF_HUB_ETAG_TIMEOUT, max(limit_s, 0.1))
    missing: Exception = DownloadError("the card names no file")
    for name in card.hub_files:
        try:
            metadata = get_hf_file_metadata(hf_hub_url(repository, name, revision=revision or None), timeout=timeout_s)
        except RemoteEntryNotFoundError as error:
            missing = error
            continue
        if not (metadata.commit_hash and metadata.etag and metadata.size):
            raise DownloadError("the server does not answer like a hub: no commit, ETag or size")
        return HubFile(repository, name, metadata.commit_hash, metadata.etag, metadata.size)
    raise missing


def _fetch(file: HubFile, partial: Path, left_s: Callable[[], float], progress: Progress) -> None:
    """Append to the partial file until it is complete; after a cut connection go on where it ended."""
    before = partial.stat().st_size if partial.exists() else 0
    with progress.track(f"downloading {file.repository}", file.num_bytes) as advance:
        advance(before)
        for _ in range(MAX_ATTEMPTS):
            size = partial.stat().st_size if partial.exists() else 0
            if size >= file.num_bytes:
                return
            try:
                _fetch_rest(file, partial, size, left_s, advance)
            except urllib.error.HTTPError as error:
                error.close()
                if error.code != http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                    raise
                partial.unlink()
                raise DownloadError(f"the server has {size:,} bytes, expected {file.num_bytes:,}") from error
            except (ConnectionError, TimeoutError, urllib.error.URLError, http.client.HTTPException) as error:
                if partial.stat().st_size <= size:
                    raise DownloadError(f"{error or type(error).__name__}, {_kept(file, size)}") from error
        if (size := partial.stat().st_size) < file.num_bytes:
            raise DownloadError(f"the connection ended, {_kept(file, size)}")


def _kept(file: HubFile, size: int) -> str:
    return f"{size / 1e6:.1f} of {file.num_bytes / 1e6:.1f} MB are here; the next attempt resumes there"


def _fetch_rest(file: HubFile, partial: Path, start: int, left_s: Callable[[], float], advance: Callable[[int], None]) -> None:
    """Request the bytes from ``start`` and append them."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    request = urllib.request.Request(hf_hub_url(file.repository, file.name, revision=file.commit))
    for name, value in build_hf_headers().items():
        request.add_unredirected_header(name, value)  # the token is not for the content server
    request.add_header("Range", f"bytes={start}-")
    request.add_header("Accept-Encoding", "identity")
    began_s, num_read = time.monotonic(), 0
    timeout_s = min(READ_TIMEOUT_S, max(left_s(), 0.1))
    partial.touch()
    with urllib.request.urlopen(request, timeout=timeout_s) as response, partial.open("r+b") as stream:
        stream.seek(start if response.status == http.HTTPStatus.PARTIAL_CONTENT else 0)
        stream.truncate()
        while chunk := response.read1(CHUNK_BYTES):
            stream.write(chunk)
            num_read += len(chunk)
            advance(len(chunk))
            _check_time(file, stream.tell(), num_read, time.monotonic() - began_s, left_s())


def _check_time(file: HubFile, size: int, num_read: int, spent_s: float, left_s: float) -> None:
    """Give up if the rest does not fit into the time left at the measured rate."""
    rate = num_read / max(spent_s, 1e-6)
    needed_s = (file.num_bytes - size) / rate
    if needed_s > left_s and (left_s <= 0 or spent_s > MEASURING_S):
        raise DownloadError(
            f"{rate / 1e6:.2g} MB/s is too slow: the rest needs {needed_s:.0f} s, "
            f"{max(left_s, 0):.0f} s are left; {_kept(file, size)}"
        )


def _check_space(file: HubFile, partial: Path) -> None:
    free = shutil.disk_usage(partial.parent).free
    needed = file.num_bytes - (partial.stat().st_size if partial.exists() else 0)
    if needed > free:
        raise DownloadError(f"no space left: {needed / 1e6:.1f} MB needed, {free / 1e6:.1f} MB free in {partial.parent}")


def _verify(file: HubFile, partial: Path) -> None:
    """Compare size and digest with the hub's; a damaged file is deleted, so that the next attempt starts again."""
    size, problem = partial.stat().st_size, ""
    if size != file.num_bytes:
        problem = f"received {size:,} bytes, expected {file.num_bytes:,}"
    elif SHA256.fullmatch(file.etag):  # of a file in large file storage
        with partial.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        problem = "" if digest == file.etag else f"sha256 is {digest[:12]}..., the hub says {file.etag[:12]}..."
    elif GIT_BLOB.fullmatch(file.etag):
        digest = hashlib.sha1(b"blob %d\0" % size + partial.read_bytes(), usedforsecurity=False).hexdigest()
        problem = "" if digest == file.etag else f"git blob is {digest[:12]}..., the hub says {file.etag[:12]}..."
    if problem:
        partial.unlink()
        raise DownloadError(f"the file is damaged: {problem}")


def _folder_name(repository: str) -> str:
    return f"models--{repository.replace('/', '--')}"


def _partial_path(file: HubFile) -> Path:
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / _folder_name(file.repository) / "blobs"
    return folder / f"{re.sub('[^0-9A-Za-z._-]', '_', file.etag)}.partial"


def _put_in_cache(card: BackboneCard, file: HubFile, partial: Path) -> Path:
    """Move the file to the place that huggingface_hub documents: blob, snapshot of the commit, reference of the revision."""
    root, blob = partial.parents[1], partial.with_suffix("")
    pointer = root / "snapshots" / file.commit / file.name
    pointer.parent.mkdir(parents=True, exist_ok=True)
    partial.replace(blob)
    if not pointer.exists():
        try:
            pointer.symlink_to(os.path.relpath(blob, pointer.parent))
        except OSError:  # Windows without the right to create links
            blob.replace(pointer)
    reference = root / "refs" / (card.hub.partition("@")[2] or "main")
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(file.commit, encoding="utf-8")
    return pointer
