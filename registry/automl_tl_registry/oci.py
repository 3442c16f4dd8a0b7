"""Versions as OCI artifacts in a container registry: ``push`` and ``pull``, in the layout of CNCF ModelPack.

An artifact holds one version: every file of an export is a layer as it is, so layers that versions share are stored once. The
manifest is uploaded last, so an artifact is visible when all of it is there. ``pull`` imports it like any other export.

Source: model format specification of github.com/modelpack/model-spec, docs/spec.md and docs/config.md, June 2026.
"""

from __future__ import annotations

import io
import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any, Final, cast

from automl_tl_registry.contents import CARD_FILE, MANIFEST_FILE, SIGNATURE_FILE, SUMMARY_FILE
from automl_tl_registry.errors import (
    DamagedBlobError,
    DamagedObjectError,
    InvalidNameError,
    MissingObjectError,
    MissingPackageError,
    NotFoundError,
    RemoteError,
    UnsafeArchiveError,
)
from automl_tl_registry.exchange import checked_members, exported_files, import_package, packaged_manifest
from automl_tl_registry.journal import canonical
from automl_tl_registry.queries import list_versions, resolve
from automl_tl_registry.storage import chunks_of, digest_of
from automl_tl_registry.store import Store
from automl_tl_registry.values import EVIDENCE_ROLES, ModelVersion, Reference, Transfer

SCHEME: Final = "oci://"
ARTIFACT_TYPE: Final = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE: Final = "application/vnd.cncf.model.config.v1+json"
WEIGHTS_TYPE: Final = "application/vnd.cncf.model.weight.v1.raw"
SETTINGS_TYPE: Final = "application/vnd.cncf.model.weight.config.v1.raw"
DOCUMENT_TYPE: Final = "application/vnd.cncf.model.doc.v1.raw"
DATASET_TYPE: Final = "application/vnd.cncf.model.dataset.v1.raw"
MANIFEST_TYPE: Final = "application/vnd.oci.image.manifest.v1+json"
FILE_PATH: Final = "org.cncf.model.filepath"
TITLE: Final = "org.opencontainers.image.title"  # names the file for `oras pull`
MAX_ARTIFACT_BYTES: Final = 4_000_000  # what registries accept as a manifest
TIMEOUT_S: Final = (10, 120)  # to connect, and between two packets
LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")

# The grammar of github.com/opencontainers/distribution-spec.
_URL: Final = re.compile(
    r"oci://(?P<host>[A-Za-z0-9.-]+(:\d+)?|\[[0-9a-f:]+\](:\d+)?)"
    r"/(?P<repository>[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*)"
    r"(:(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{0,127})|@(?P<digest>sha256:[0-9a-f]{64}))"
)


@dataclass(frozen=True)
class Address:
    """A parsed ``oci://HOST/REPOSITORY:TAG`` or ``oci://HOST/REPOSITORY@sha256:DIGEST``."""

    url: str
    host: str
    repository: str
    tag: str | None
    digest: str | None

    @classmethod
    def parse(cls, url: str) -> Address:
        """Parse a URL; raise InvalidNameError if it is malformed."""
        match = _URL.fullmatch(url)
        if match is None:
            expected = "oci://HOST/REPOSITORY:TAG or oci://HOST/REPOSITORY@sha256:DIGEST, the repository in lower case"
            raise InvalidNameError(url, what="an address", expected=expected)
        return cls(url, **{key: match[key] for key in ("host", "repository", "tag", "digest")})

    @property
    def is_loopback(self) -> bool:
        """Whether the registry is on this machine; it is reached without TLS then, as docker does."""
        return self.host.rpartition(":")[0] in LOOPBACK or self.host in LOOPBACK


def push(store: Store, ref: str, url: str, *, repair: bool) -> Transfer:
    """Upload a version as an OCI artifact. See ``Registry.push``."""
    address, version = Address.parse(url), resolve(store, ref)
    if address.tag is None:
        raise InvalidNameError(url, what="pushed to", expected="a tag, oci://HOST/REPOSITORY:TAG")
    files = exported_files(store, version.ref)
    with TemporaryDirectory(prefix="automl_tl-") as folder, _connected(address) as client:
        layers, num_files, num_bytes = [], 0, 0
        for name, content in files.items():
            path = content if isinstance(content, Path) else _written(Path(folder) / name, content)
            layers.append(_layer(name, path))
            if client.upload(path, layers[-1], again=repair):
                num_files, num_bytes = num_files + 1, num_bytes + layers[-1]["size"]
        config = _written(Path(folder) / "config", canonical(_config(version, layers)).encode())
        described = _descriptor(CONFIG_TYPE, config)
        client.upload(config, described, again=repair)
        content = canonical(_artifact(version, described, layers)).encode()
        before, now = client.current_digest(), f"sha256:{digest_of([content]).digest}"
        if before != now:
            client.put_artifact(content)
    notes = [f"{SCHEME}{address.host}/{address.repository}@{now}"]
    if before not in (None, now):
        notes.append(f"the tag {address.tag} pointed to {before} before")
    return Transfer(
        name=version.name,
        url=url,
        versions=() if before == now else (version.ref,),
        num_present=int(before == now),
        num_files=num_files,
        num_bytes=num_bytes,
        notes=tuple(notes),
    )


def pull(store: Store, ref: str, url: str, *, actor: str, public_key: Path | None) -> Transfer:
    """Import a version from an OCI artifact. See ``Registry.pull``."""
    address, reference = Address.parse(url), Reference.parse(ref)
    if reference.alias is not None:
        raise InvalidNameError(
            ref, what="pulled from an OCI registry", expected="NAME or NAME@VERSION; tags take the place of aliases"
        )
    with _connected(address) as client:
        layers = _layers(address, client.artifact())
        read: list[str] = []

        def opened(name: str) -> IO[bytes]:
            read.append(name)
            return _opened(client, url, name, layers[name])

        package = checked_members(url, [(name, layer["size"], "file") for name, layer in layers.items()], opened)
        manifest, content = packaged_manifest(package)
        found = f"{manifest.name}@{manifest.version}"
        if reference.name != manifest.name or reference.version not in (None, manifest.version):
            raise NotFoundError(f"{url} is {found}, not {ref}. Pull {found}, or choose another tag.")
        digest = digest_of([content]).digest
        known = store.database.read(lambda connection: list_versions(connection, manifest.name))
        is_present = any(digest in (version.manifest_digest, version.origin) for version in known)
        read.clear()
        try:
            version = import_package(store, package, name=None, actor=actor, public_key=public_key)
        except DamagedBlobError as error:
            raise DamagedObjectError(url, f"{read[-1]}: expected sha256:{error.expected}, found {error.found}") from error
    received = [name for name in read if name not in (MANIFEST_FILE, SIGNATURE_FILE)]
    return Transfer(
        name=version.name,
        url=url,
        versions=() if is_present else (version.ref,),
        num_present=int(is_present),
        num_files=len(received),
        num_bytes=sum(layers[name]["size"] for name in received),
        notes=() if version.ref == found else (f"{found} has another number here: {version.ref}",),
    )


def _opened(client: _Client, url: str, name: str, layer: dict[str, Any]) -> IO[bytes]:
    """Open a layer. Manifest and signature are checked here, other files when they are stored."""
    try:
        stream = client.blob(layer["digest"])
    except MissingObjectError as error:
        raise DamagedObjectError(url, f"{name} is missing") from error
    if name not in (MANIFEST_FILE, SIGNATURE_FILE):
        return stream
    with stream:
        content = stream.read(layer["size"])
    if (actual := f"sha256:{digest_of([content]).digest}") != layer["digest"]:
        raise DamagedObjectError(url, f"{name}: expected {layer['digest']}, found {actual}")
    return io.BytesIO(content)


def _written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _descriptor(media_type: str, path: Path) -> dict[str, Any]:
    blob = digest_of(chunks_of(path))
    return {"mediaType": media_type, "digest": f"sha256:{blob.digest}", "size": blob.size_bytes}


def _layer(name: str, path: Path) -> dict[str, Any]:
    documents = {CARD_FILE: DOCUMENT_TYPE, SIGNATURE_FILE: DOCUMENT_TYPE}
    settings = {MANIFEST_FILE: SETTINGS_TYPE, SUMMARY_FILE: SETTINGS_TYPE}
    evidence = {f"{role}.safetensors": DATASET_TYPE for role in EVIDENCE_ROLES}
    media_type = (documents | settings | evidence).get(name, WEIGHTS_TYPE)
    return _descriptor(media_type, path) | {"annotations": {FILE_PATH: name, TITLE: name}}


def _config(version: ModelVersion, layers: list[dict[str, Any]]) -> dict[str, Any]:
    facts = version.facts
    return {
        "descriptor": {
            "createdAt": version.created_at.isoformat(),
            "authors": [version.actor],
            "family": facts.backbone,
            "name": version.name,
            "version": str(version.version),
            "title": version.ref,
            "description": f"Image classifier for {len(facts.classes)} classes, test accuracy {facts.metrics.accuracy:.1%}.",
        },
        "config": {
            "architecture": facts.backbone,
            "format": "safetensors",
            "capabilities": {"inputTypes": ["image"], "outputTypes": ["other"]},
        },
        "modelfs": {"type": "layers", "diffIds": [layer["digest"] for layer in layers]},
    }


def _artifact(version: ModelVersion, config: dict[str, Any], layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "artifactType": ARTIFACT_TYPE,
        "config": config,
        "layers": layers,
        "annotations": {
            "org.opencontainers.image.created": version.created_at.isoformat(),
            "org.opencontainers.image.title": version.ref,
            "org.opencontainers.image.version": str(version.version),
        },
    }


def _layers(address: Address, content: bytes) -> dict[str, dict[str, Any]]:
    """Return the layers of an artifact by file name; nothing of it is trusted."""
    try:
        artifact = json.loads(content)
        if artifact.get("artifactType", artifact["config"]["mediaType"]) not in (ARTIFACT_TYPE, CONFIG_TYPE):
            raise UnsafeArchiveError(address.url, [f"it is not a model but {artifact['config']['mediaType'][:100]!a}"])
        layers = {}
        for layer in artifact["layers"]:
            if re.fullmatch("sha256:[0-9a-f]{64}", layer["digest"]) is None or not 0 <= int(layer["size"]) < 1 << 63:
                raise ValueError("a layer has a malformed digest or size")
            name = str(layer["annotations"][FILE_PATH])
            if name in layers:
                raise ValueError(f"two layers are called {name[:100]!a}")
            layers[name] = {"digest": layer["digest"], "size": int(layer["size"])}
        return layers
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UnsafeArchiveError(address.url, [f"its manifest is malformed: {error}"]) from error


class _Client:
    """A registry at one address, through the library oras."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._oras, self._container = _oras_client(address, "token")
        greeting = self._oras.session.get(f"{self._oras.prefix}://{address.host}/v2/")
        if greeting.headers.get("Www-Authenticate", "").lower().startswith("basic"):
            self.close()
            self._oras, self._container = _oras_client(address, "basic")
        folder = os.environ.get("DOCKER_CONFIG")
        self._oras.auth.load_configs(self._container, configs=[str(Path(folder) / "config.json")] if folder else None)

    def close(self) -> None:
        """Close all connections."""
        self._oras.session.close()

    def upload(self, path: Path, layer: dict[str, Any], *, again: bool) -> bool:
        """Upload a file unless the registry has it, and return whether it was uploaded; ``again``: in any case."""
        with self._denials_explained():
            if not again and self._oras.blob_exists(layer, self._container):
                return False
            self._checked(self._oras.put_upload(str(path), self._container, layer))
        return True

    def current_digest(self) -> str | None:
        """Return the digest of the artifact that the tag names now, None if there is none."""
        with self._denials_explained():
            response = self._oras.do_request(self._artifact_url, "HEAD", headers={"Accept": MANIFEST_TYPE})
        return response.headers.get("Docker-Content-Digest") if response.status_code == 200 else None

    def put_artifact(self, content: bytes) -> None:
        """Upload the manifest, which makes the artifact visible."""
        with self._denials_explained():
            headers = {"Content-Type": MANIFEST_TYPE}
            self._checked(self._oras.do_request(self._artifact_url, "PUT", data=content, headers=headers))

    def artifact(self) -> bytes:
        """Return the manifest of the artifact; an address with a digest is checked."""
        with self._denials_explained():
            response = self._oras.do_request(self._artifact_url, "GET", headers={"Accept": MANIFEST_TYPE}, stream=True)
        with response:
            content = bytes(self._checked(response).raw.read(MAX_ARTIFACT_BYTES, decode_content=True))
        actual = f"sha256:{digest_of([content]).digest}"
        if self._address.digest not in (None, actual):
            raise DamagedObjectError(self._address.url, f"its manifest has the digest {actual}")
        return content

    def blob(self, digest: str) -> IO[bytes]:
        """Open a layer."""
        with self._denials_explained():
            return cast("IO[bytes]", self._checked(self._oras.get_blob(self._container, digest, stream=True)).raw)

    @property
    def _artifact_url(self) -> str:
        return f"{self._oras.prefix}://{self._container.manifest_url()}"

    def _checked(self, response: Any) -> Any:  # noqa: ANN401 - requests has no types
        """Return a response if its status is success; otherwise raise an error."""
        if response.ok:
            return response
        if response.status_code in (401, 403):
            raise self._denied(f"access was denied (status {response.status_code})")
        if response.status_code == 404:
            raise MissingObjectError(self._address.url)
        try:
            problems = "; ".join(error["message"] for error in response.json()["errors"])
        except (ValueError, LookupError, TypeError):
            problems = str(response.reason)
        raise RemoteError(self._address.url, f"the registry answered with status {response.status_code}: {problems[:300]}")

    @contextmanager
    def _denials_explained(self) -> Iterator[None]:
        """Explain what oras raises if a registry wants a login that it does not have."""
        from requests import RequestException

        try:
            yield
        except RequestException:
            raise
        except (ValueError, AttributeError) as error:
            raise self._denied(str(error)) from error

    def _denied(self, why: str) -> RemoteError:
        return RemoteError(
            self._address.url, f"{why}; `docker login {self._address.host}` stores a login in ~/.docker/config.json"
        )


@contextmanager
def _connected(address: Address) -> Iterator[_Client]:
    """Yield a client for an address; errors of the network name the address."""
    try:
        from requests import RequestException
        from urllib3.exceptions import HTTPError

        import_module("oras")
    except ImportError as error:
        raise MissingPackageError("oras", "oci") from error
    try:
        with closing(_Client(address)) as client:
            yield client
    except (RequestException, HTTPError) as error:
        raise RemoteError(address.url, _root_cause(error)) from error


def _oras_client(address: Address, authentication: str) -> tuple[Any, Any]:
    """Return the client of oras, and its form of the address."""
    from oras.container import Container
    from oras.provider import Registry
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    logging.getLogger("oras.logger").setLevel(logging.CRITICAL)  # errors are raised here
    client = Registry(insecure=address.is_loopback, auth_backend=authentication)
    # Its own retries would wait for two minutes where no registry answers, and it has no timeouts.
    client.do_request = partial(Registry.do_request.__wrapped__, client)
    retries = Retry(total=3, connect=0, backoff_factor=0.3, status_forcelist=(429, 502, 503, 504), raise_on_status=False)
    for scheme in ("http://", "https://"):
        client.session.mount(scheme, HTTPAdapter(max_retries=retries))
    client.session.request = partial(client.session.request, timeout=TIMEOUT_S)
    return client, Container(address.url.removeprefix(SCHEME))


def _root_cause(error: BaseException) -> str:
    """Return the text of the error that began a chain of them."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
