"""From a reference to files whose digests were just checked. Reads everything it hands out, writes nothing."""

from __future__ import annotations

from automl_tl_registry.errors import DamagedManifestError
from automl_tl_registry.index import find
from automl_tl_registry.journal import canonical
from automl_tl_registry.manifests import read_manifest
from automl_tl_registry.names import Reference
from automl_tl_registry.store import Store
from automl_tl_registry.values import Manifest, ModelVersion, VersionView

__all__ = ["check_manifest", "resolve", "view_of"]


def resolve(store: Store, ref: str) -> ModelVersion:
    """The version that ``ref`` means now; NotFoundError if there is none."""
    reference = Reference.parse(ref)
    store.check_not_orphaned()
    return store.database.read(lambda connection: find(connection, reference))


def check_manifest(store: Store, version: ModelVersion) -> None:
    """Raise IntegrityError unless the manifest blob is sound and says what the database says."""
    path = store.blobs.checked(version.manifest_digest)
    manifest = read_manifest(path)
    recorded = {key: value for key, value in version.model_dump(mode="json").items() if key in Manifest.model_fields}
    written = {key: value for key, value in manifest.model_dump(mode="json").items() if key in recorded}
    if canonical(recorded) != canonical(written):
        raise DamagedManifestError(str(path), f"the database says something else about {version.ref}")


def view_of(store: Store, version: ModelVersion) -> VersionView:
    """Facts and files of ``version``, after reading all of them.

    Raises:
        IntegrityError: a file is missing or damaged, or the database and the manifest blob disagree.
    """
    check_manifest(store, version)
    paths = {role: store.blobs.checked(blob.digest) for role, blob in version.blobs.items()}
    return VersionView(version.name, version.version, version.facts, paths)
