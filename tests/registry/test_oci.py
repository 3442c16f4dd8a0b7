"""Versions as OCI artifacts, in Debian's docker-registry on the loopback interface, read back with skopeo."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Thread
from typing import Any

import pytest

from automl_tl_registry import ModelVersion, Registry
from automl_tl_registry.errors import (
    DamagedObjectError,
    InvalidNameError,
    MissingObjectError,
    NotFoundError,
    RemoteError,
    SignatureError,
    UnsafeArchiveError,
)
from tests.registry.registry_fakes import publish, publish_said

pytest.importorskip("oras")
if shutil.which("docker-registry") is None:
    pytest.skip("docker-registry is not installed", allow_module_level=True)

LOGIN = "ada:$2b$05$abcdefghijklmnopqrstuuKcS.CYWVYVaLiiCKrrc0A5s3mGesJ9O\n"  # password: sesame


@contextmanager
def serving(folder: Path, *, needs_login: bool = False) -> Iterator[str]:
    """Run a registry that keeps its files in ``folder``; yield its host and port."""
    (folder / "htpasswd").write_text(LOGIN)
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "info"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "storage")}},
        "http": {"addr": "127.0.0.1:0", "secret": "none"},
    }
    if needs_login:
        settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    (folder / "settings.yml").write_text(json.dumps(settings))
    command = ["docker-registry", "serve", str(folder / "settings.yml")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as server:
        assert server.stderr is not None
        address = next(match[1] for line in server.stderr if (match := re.search(r"listening on ([\d.]+:\d+)", line)))
        reader = Thread(target=server.stderr.read)  # a full pipe would stop the server
        reader.start()
        try:
            yield address
        finally:
            server.terminate()
            reader.join()


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    with TemporaryDirectory() as folder, serving(Path(folder)) as address:
        yield address


@pytest.fixture
def url(host: str, request: pytest.FixtureRequest) -> str:
    """An address that only this test uses."""
    name = hashlib.sha256(request.node.name.encode()).hexdigest()[:12]
    return f"oci://{host}/team/{name}:v1"


@pytest.fixture
def version(registry: Registry, work: Path) -> ModelVersion:
    return publish_said(registry, work / "files", [0, 1, 2], [0, 1, 2])


@pytest.fixture
def other(work: Path) -> Registry:
    return Registry(work / "other")


def inspected(url: str, *options: str) -> Any:  # noqa: ANN401 - JSON
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    command = ["skopeo", "inspect", "--raw", "--tls-verify=false", *options, f"docker://{url.removeprefix('oci://')}"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def test_pull_gives_the_same_version(registry: Registry, version: ModelVersion, url: str, other: Registry) -> None:
    pushed = registry.push(version.ref, url)
    pulled = other.pull("insects", url)

    assert pushed.versions == pulled.versions == ("insects@1",)
    assert other.resolve("insects@1").manifest_digest == version.manifest_digest
    assert other.verify().sound


def test_push_writes_a_modelpack_artifact(registry: Registry, version: ModelVersion, url: str) -> None:
    """The media types of github.com/modelpack/model-spec, docs/spec.md."""
    registry.push(version.ref, url)
    artifact, config = inspected(url), inspected(url, "--config")

    assert artifact["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert artifact["artifactType"] == "application/vnd.cncf.model.manifest.v1+json"
    assert artifact["config"]["mediaType"] == "application/vnd.cncf.model.config.v1+json"
    kinds = {layer["annotations"]["org.cncf.model.filepath"]: layer["mediaType"] for layer in artifact["layers"]}
    assert kinds == {
        "head.safetensors": "application/vnd.cncf.model.weight.v1.raw",
        "predictions.safetensors": "application/vnd.cncf.model.dataset.v1.raw",
        "manifest.safetensors": "application/vnd.cncf.model.weight.config.v1.raw",
        "manifest.json": "application/vnd.cncf.model.weight.config.v1.raw",
        "MODEL_CARD.md": "application/vnd.cncf.model.doc.v1.raw",
    }
    assert config["descriptor"]["name"] == "insects"
    assert config["descriptor"]["version"] == "1"
    assert config["modelfs"] == {"type": "layers", "diffIds": [layer["digest"] for layer in artifact["layers"]]}
    assert f"sha256:{version.blobs['head'].digest}" in config["modelfs"]["diffIds"]


def test_second_push_moves_nothing(registry: Registry, version: ModelVersion, url: str) -> None:
    first, second = registry.push(version.ref, url), registry.push(version.ref, url)
    assert (second.versions, second.num_present, second.num_files) == ((), 1, 0)
    assert second.notes == first.notes


def test_push_shares_layers_and_names_what_a_tag_was(registry: Registry, work: Path, url: str) -> None:
    first = registry.push(publish(registry, work / "files", seed=1).ref, url)
    second = registry.push(publish(registry, work / "files", seed=2).ref, url)
    assert second.num_files == first.num_files - 1  # not the encoder
    assert second.notes[1].startswith("the tag v1 pointed to sha256:")
    assert second.notes[1].removeprefix("the tag v1 pointed to ").removesuffix(" before") in first.notes[0]


def test_pull_by_digest_is_not_affected_by_the_tag(registry: Registry, work: Path, url: str, other: Registry) -> None:
    pinned = registry.push(publish(registry, work / "files", seed=1).ref, url).notes[0]
    registry.push(publish(registry, work / "files", seed=2).ref, url)
    assert other.pull("insects", pinned).versions == ("insects@1",)
    assert other.pull("insects@2", url).versions == ("insects@2",)


def test_second_pull_moves_nothing(registry: Registry, version: ModelVersion, url: str, other: Registry) -> None:
    registry.push(version.ref, url)
    other.pull("insects", url)
    again = other.pull("insects", url)
    assert (again.versions, again.num_present, again.num_files) == ((), 1, 0)


def test_pull_of_a_taken_number_says_so(
    registry: Registry, version: ModelVersion, url: str, other: Registry, work: Path
) -> None:
    registry.push(version.ref, url)
    publish(other, work / "files")
    assert other.pull("insects", url).notes == ("insects@1 has another number here: insects@2",)


def test_pull_checks_name_and_number(registry: Registry, version: ModelVersion, url: str, other: Registry) -> None:
    registry.push(version.ref, url)
    for ref in ("bugs", "insects@2"):
        with pytest.raises(NotFoundError, match=f"is insects@1, not {ref}"):
            other.pull(ref, url)
    with pytest.raises(InvalidNameError, match="tags take the place of aliases"):
        other.pull("insects@production", url)


@pytest.mark.parametrize(
    "address",
    [
        "oci://localhost/insects",
        "oci://localhost/Insects:v1",
        "oci://localhost:v1",
        "oci://localhost/a:b/c",
        "oci://h/a@sha256:12",
    ],
)
def test_malformed_address_is_refused(registry: Registry, version: ModelVersion, address: str) -> None:
    with pytest.raises(InvalidNameError, match="expected oci://HOST/REPOSITORY:TAG"):
        registry.push(version.ref, address)


@pytest.mark.parametrize("role", ["head", "predictions", "manifest"])
def test_damaged_layer_is_named(registry: Registry, version: ModelVersion, tmp_path: Path, other: Registry, role: str) -> None:
    digest = version.manifest_digest if role == "manifest" else version.blobs[role].digest
    with serving(tmp_path) as address:
        url = f"oci://{address}/insects:v1"
        registry.push(version.ref, url)
        stored = tmp_path / "storage/docker/registry/v2/blobs/sha256" / digest[:2] / digest / "data"
        content = stored.read_bytes()
        stored.write_bytes(content[:-1] + b"?")
        with pytest.raises(DamagedObjectError, match=rf"{role}.safetensors: expected sha256:{digest}"):
            other.pull("insects", url)
        stored.unlink()
        with pytest.raises(DamagedObjectError, match=rf"{role}.safetensors is missing"):
            other.pull("insects", url)
        assert other.versions() == []
        registry.push(version.ref, url, repair=True)
        assert other.pull("insects", url).versions == ("insects@1",)


def test_signed_version_stays_signed(registry: Registry, version: ModelVersion, url: str, other: Registry, work: Path) -> None:
    pytest.importorskip("model_signing")
    from tests.registry.test_signing import write_keys

    key = write_keys(work)
    registry.push(version.ref, url, key=key)
    with pytest.raises(SignatureError, match="it was made with the key"):
        other.pull("insects", url, public_key=write_keys(work, "foreign").with_suffix(".pub"))
    assert other.versions() == []
    other.pull("insects", url, public_key=key.with_suffix(".pub"))
    assert other.verify(public_key=key.with_suffix(".pub")).sound


def test_unsigned_version_is_refused_if_a_key_is_given(
    registry: Registry, version: ModelVersion, url: str, other: Registry, work: Path
) -> None:
    pytest.importorskip("model_signing")
    from tests.registry.test_signing import write_keys

    registry.push(version.ref, url)
    with pytest.raises(SignatureError, match="it is not signed"):
        other.pull("insects", url, public_key=write_keys(work).with_suffix(".pub"))


def test_registry_that_is_down_is_explained(registry: Registry, version: ModelVersion, tmp_path: Path) -> None:
    with serving(tmp_path) as address:
        pass
    with pytest.raises(RemoteError, match=rf"oci://{address}/insects:v1 cannot be used: Connection refused"):
        registry.push(version.ref, f"oci://{address}/insects:v1")


def test_missing_artifact_is_explained(other: Registry, url: str) -> None:
    with pytest.raises(MissingObjectError, match=f"There is no object {url}"):
        other.pull("insects", url)


def test_artifact_of_another_kind_is_refused(
    registry: Registry, version: ModelVersion, url: str, other: Registry, work: Path
) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("skopeo is not installed")
    registry.push(version.ref, url)
    copy = ["skopeo", "copy", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run([*copy, f"docker://{url.removeprefix('oci://')}", f"dir:{work / 'image'}"], check=True, capture_output=True)
    manifest = work / "image" / "manifest.json"
    changed = manifest.read_text().replace("vnd.cncf.model.manifest", "vnd.acme.thing")
    manifest.write_text(changed)
    subprocess.run([*copy, f"dir:{work / 'image'}", f"docker://{url.removeprefix('oci://')}"], check=True, capture_output=True)
    with pytest.raises(UnsafeArchiveError, match="it is not a model"):
        other.pull("insects", url)


def test_login_is_taken_from_the_configuration_of_docker(
    registry: Registry, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with serving(tmp_path, needs_login=True) as address:
        url = f"oci://{address}/insects:v1"
        with pytest.raises(RemoteError, match=f"`docker login {address}` stores a login"):
            registry.push(version.ref, url)
        login = base64.b64encode(b"ada:wrong").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {address: {"auth": login}}}))
        with pytest.raises(RemoteError, match="stores a login"):
            registry.push(version.ref, url)
        login = base64.b64encode(b"ada:sesame").decode()
        (tmp_path / "config.json").write_text(json.dumps({"auths": {address: {"auth": login}}}))
        assert registry.push(version.ref, url).versions == ("insects@1",)
