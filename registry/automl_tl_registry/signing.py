"""Sign versions and check signatures: the format of OpenSSF model signing, with elliptic-curve key files.

A signature covers a version as ``export`` writes it, ``ROLE.safetensors`` and ``manifest.safetensors``; manifest.json and
MODEL_CARD.md are copies of the manifest for people and are not signed. It is a Sigstore bundle: an in-toto statement with the
sha256 of every file, in a DSSE envelope. ``model_signing verify key`` therefore accepts an exported folder.

Signatures are ``signatures/<digest of the manifest blob>.json`` below the registry's folder. The package model_signing takes
most of a second to import, so that is done when a signature is made or checked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from automl_tl_registry.contents import (
    CARD_FILE,
    MANIFEST_FILE,
    SIGNATURE_FILE,
    SUMMARY_FILE,
    encode_manifest,
    read_manifest,
)
from automl_tl_registry.errors import KeyFileError, MissingPackageError, NotFoundError, RegistryError, SignatureError
from automl_tl_registry.journal import Entry, append, canonical
from automl_tl_registry.queries import resolve, view_of
from automl_tl_registry.storage import chunks_of, digest_of
from automl_tl_registry.store import Store
from automl_tl_registry.values import Event, Manifest, ModelVersion, Reference, Signature

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

Files = Mapping[str, Path | bytes | str]  # paths, contents or sha256 digests, by name
MAX_SIGNATURE_BYTES: Final = 1_000_000  # a signature of ten files has 5 kB
PASSWORD_VARIABLE: Final = "TL_KEY_PASSWORD"
ALIAS_FILE: Final = "alias.json"  # what is signed of an alias move; not stored, because the event has it
_UNSIGNED: Final = (SUMMARY_FILE, CARD_FILE, SIGNATURE_FILE)
_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")


def sign(store: Store, ref: str, key: Path, *, actor: str) -> Signature:
    """Sign a version. See ``Registry.sign``."""
    version, public_key = resolve(store, ref), _public_half(key)
    fingerprint = _fingerprint(public_key)
    files = _files(store, version.manifest_digest, version)
    view_of(store, version)  # a damaged version is not signed
    is_new = not _is_signed(store, version, public_key)
    if is_new:
        write_signature(store, version.manifest_digest, sign_files(version.ref, files, key))
        with store.database.writing() as connection:
            entry = Entry("signed", actor, version.name, version.version, detail={"key": fingerprint})
            append(connection, entry, store.clock())
        store.mirror.follow(store.database)
    return Signature(
        ref=version.ref,
        key=fingerprint,
        path=str(_path(store, version.manifest_digest)),
        files=tuple(sorted(files)),
        changed=is_new,
    )


def _is_signed(store: Store, version: ModelVersion, key: EllipticCurvePublicKey) -> bool:
    with TemporaryDirectory(prefix="automl_tl-") as folder:
        path = Path(folder) / "public.pem"
        path.write_bytes(_pem(key))
        try:
            check(store, version, path)
        except SignatureError:
            return False
    return True


def check(store: Store, version: ModelVersion, public_key: Path) -> None:
    """Check the signature of a version against its files.

    Args:
        store: the registry.
        version: the version as the database has it.
        public_key: PEM file.

    Raises:
        SignatureError: there is none, it is by another key, or it does not hold; changed files are named.
        KeyFileError: ``public_key`` is not usable.
    """
    check_manifest_and_files(store, version.manifest_digest, version, read_signature(store, version), public_key)


def check_manifest_and_files(
    store: Store, digest: str, version: ModelVersion | Manifest, signature: bytes | None, public_key: Path
) -> None:
    """Check a signature against the files of a version, which may not be visible yet.

    Args:
        store: the registry; it has the files.
        digest: sha256 of the manifest blob.
        version: the version, or its manifest.
        signature: a Sigstore bundle, as JSON, which is not trusted; None if there is none.
        public_key: PEM file.

    Raises:
        SignatureError: there is none, it is by another key, or it does not hold; changed files are named.
        KeyFileError: ``public_key`` is not usable.
    """
    files = _files(store, digest, version)
    if version.origin is not None and signature is not None:
        with suppress(RegistryError):  # a damaged manifest does not have its digest
            files |= _original_manifest(read_manifest(store.blobs.path(digest)), signature)
    check_files(f"{version.name}@{version.version}", files, signature, public_key)


def check_digests(manifest: Manifest, digest: str, signature: bytes | None, public_key: Path) -> None:
    """Check a signature against the digests of files that are elsewhere, and were checked there.

    Args:
        manifest: the manifest of the version.
        digest: sha256 of the manifest blob.
        signature: a Sigstore bundle, as JSON, which is not trusted; None if there is none.
        public_key: PEM file.

    Raises:
        SignatureError: there is none, it is by another key, or it does not hold; changed files are named.
        KeyFileError: ``public_key`` is not usable.
    """
    files: dict[str, Path | bytes | str] = {f"{role}.safetensors": blob.digest for role, blob in manifest.blobs.items()}
    files[MANIFEST_FILE] = digest
    original = _original_manifest(manifest, signature) if signature is not None else {}
    check_files(f"{manifest.name}@{manifest.version}", files | original, signature, public_key)


def _files(store: Store, digest: str, version: ModelVersion | Manifest) -> dict[str, Path | bytes | str]:
    files: dict[str, Path | bytes | str] = {
        f"{role}.safetensors": store.blobs.path(blob.digest) for role, blob in version.blobs.items()
    }
    return files | {MANIFEST_FILE: store.blobs.path(digest)}


def _original_manifest(manifest: Manifest, signature: bytes) -> dict[str, bytes]:
    """Return the manifest that was signed before an import gave the version another name or number.

    Only name, number and origin differ; the signature has the former two. A wrong guess does not have the digest ``origin``.
    """
    origin = manifest.origin
    with suppress(RegistryError, ValueError, LookupError, TypeError):
        reference = Reference.parse(_statement(signature)["subject"][0]["name"])
        changes = {"name": reference.name, "version": reference.version, "origin": None}
        content = encode_manifest(manifest.model_copy(update=changes))
        if digest_of([content]).digest == origin:
            return {MANIFEST_FILE: content}
    return {}


def _path(store: Store, manifest_digest: str) -> Path:
    return store.signatures / f"{manifest_digest}.json"


def read_signature(store: Store, version: ModelVersion) -> bytes | None:
    """Return the signature of a version, None if it is not signed.

    Args:
        store: the registry.
        version: the version as the database has it.
    """
    try:
        with _path(store, version.manifest_digest).open("rb") as stream:
            return stream.read(MAX_SIGNATURE_BYTES)
    except FileNotFoundError:
        return None


def write_signature(store: Store, manifest_digest: str, signature: bytes) -> None:
    """Store the signature of a version, replacing another one.

    Args:
        store: the registry.
        manifest_digest: sha256 of the version's manifest blob.
        signature: a Sigstore bundle, as JSON.
    """
    path = _path(store, manifest_digest)
    store.disk.make_folder(path.parent)
    draft = path.with_name(f".{path.name}.partial-{os.urandom(8).hex()}")
    store.disk.write(draft, [signature])
    store.disk.rename(draft, path)


def sign_files(subject: str, files: Files, key: Path) -> bytes:
    """Return the signature of files: a Sigstore bundle, as JSON.

    Args:
        subject: name of what is signed, e.g. ``flowers@3``.
        files: paths or contents by name.
        key: PEM file of the private key.

    Raises:
        KeyFileError: the key is not usable.
        MissingPackageError: the extra ``signing`` is not installed.
    """
    hashing, signing, _ = _library()
    _public_half(key)
    password = _password()
    config = signing.Config().use_elliptic_key_signer(private_key=key, password=password if _is_encrypted(key) else None)
    with _laid_out(subject, files) as folder:
        target = folder.parent / SIGNATURE_FILE
        ignoring = hashing.Config().set_allow_symlinks(True).set_ignored_paths(paths=_UNSIGNED, ignore_git_paths=False)
        config.set_hashing_config(ignoring).sign(folder, target)
        return bytes(target.read_bytes())


def check_files(subject: str, files: Files, signature: bytes | None, public_key: Path) -> None:
    """Check a signature of files.

    Args:
        subject: name of what was signed, for the error.
        files: paths, contents or digests by name; exactly these must be signed.
        signature: a Sigstore bundle, as JSON, which is not trusted; None if there is none.
        public_key: PEM file.

    Raises:
        SignatureError: there is none, it is by another key, or it does not hold; changed files are named.
        KeyFileError: ``public_key`` is not usable.
        MissingPackageError: the extra ``signing`` is not installed.
    """
    hashing, _, verifying = _library()
    fingerprint = _fingerprint(_loaded_public_key(public_key))
    if signature is None:
        raise SignatureError(subject, [f"it is not signed; `tl registry sign {subject} --key FILE` signs it"])
    claimed = _claimed_key(subject, signature)
    if claimed != fingerprint:
        text = f"it was made with the key {claimed[:16]}, not with the key {fingerprint[:16]} in {public_key}"
        raise SignatureError(subject, [text])
    mismatch = ""
    with _laid_out(subject, files) as folder:
        bundle = folder.parent / SIGNATURE_FILE
        bundle.write_bytes(signature)
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
        try:
            config.set_hashing_config(hashing.Config().set_allow_symlinks(True)).verify(folder, bundle)
        except Exception as error:  # the library raises errors of many types for a malformed bundle
            mismatch = str(error)
            if "Signature mismatch" not in mismatch:
                text = "it was changed after signing, or it is not by this key"
                raise SignatureError(subject, [f"{text}: {mismatch.splitlines()[0]}" if mismatch else text]) from error
    # The statement is authentic from here on. It must be about exactly these files: the library would accept fewer.
    problems = list(_differences(_statement(signature), files))
    if any(isinstance(content, str) for content in files.values()):
        mismatch = ""  # the library misses the files that are elsewhere
    if problems or mismatch:
        raise SignatureError(subject, problems or [mismatch])


def sign_alias(move: Entry, key: Path) -> dict[str, Any]:
    """Return the signature of an alias move, for the detail of its event.

    Args:
        move: where the alias goes, from where, by whom and why.
        key: PEM file of the private key.
    """
    bundle = sign_files(f"{move.name}@{move.alias}", {ALIAS_FILE: _alias_content(move)}, key)
    signature: dict[str, Any] = json.loads(bundle)
    return signature


def check_alias(event: Event, public_key: Path) -> None:
    """Check the signature of an alias move.

    Args:
        event: the event that moved the alias.
        public_key: PEM file.

    Raises:
        SignatureError: it is not signed, signed by another key, or was changed.
    """
    signature = event.detail.get("signature")
    bundle = None if signature is None else canonical(signature).encode()
    check_files(f"{event.name}@{event.alias}", {ALIAS_FILE: _alias_content(event)}, bundle, public_key)


def _alias_content(move: Entry | Event) -> bytes:
    facts = {key: getattr(move, key) for key in ("verb", "actor", "name", "version", "alias")}
    return canonical(facts | {key: move.detail.get(key) for key in ("from", "reason")}).encode()


def _differences(statement: dict[str, Any], files: Files) -> Iterator[str]:
    signed = {resource["name"]: resource["digest"] for resource in statement["predicate"]["resources"]}
    for name in sorted({*signed, *files}):
        content = files.get(name)
        if name not in signed:
            yield f"{name} is not signed"
        elif content is None or (isinstance(content, Path) and not content.is_file()):
            yield f"{name} is missing"
        else:
            digest = content if isinstance(content, str) else _digest(content)
            if digest != signed[name]:
                yield f"{name} was changed: sha256 {signed[name]} was signed, found {digest}"


def _digest(content: Path | bytes) -> str:
    return digest_of([content] if isinstance(content, bytes) else chunks_of(content)).digest


@contextmanager
def _laid_out(subject: str, files: Files) -> Iterator[Path]:
    """Yield a folder named ``subject`` with links to the files under their names; what is missing or a digest is left out."""
    with TemporaryDirectory(prefix="automl_tl-") as folder:
        root = Path(folder) / subject
        root.mkdir()
        for name, content in files.items():
            target = root / name
            if isinstance(content, bytes):
                target.write_bytes(content)
            elif isinstance(content, Path) and content.is_file():
                try:
                    target.symlink_to(content.absolute())
                except OSError:  # Windows without permission for links
                    shutil.copyfile(content, target)
        yield root


def _statement(signature: bytes) -> dict[str, Any]:
    """Return the statement in a bundle. It is authentic only after the library has verified the bundle."""
    statement: dict[str, Any] = json.loads(base64.b64decode(json.loads(signature)["dsseEnvelope"]["payload"]))
    return statement


def _claimed_key(subject: str, signature: bytes) -> str:
    """Return the fingerprint of the key that a bundle claims to be signed with."""
    try:
        if len(signature) >= MAX_SIGNATURE_BYTES:
            raise ValueError(f"it has more than {MAX_SIGNATURE_BYTES} bytes")
        material = json.loads(signature)["verificationMaterial"]
        if "publicKey" not in material:
            raise ValueError(f"its verification material is {', '.join(material)}")
        _statement(signature)
        return str(material["publicKey"]["hint"])
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        text = f"it is not a signature of OpenSSF model signing with a key file ({error})"
        raise SignatureError(subject, [text]) from error


def _pem(key: EllipticCurvePublicKey) -> bytes:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _fingerprint(key: EllipticCurvePublicKey) -> str:
    """Return the sha256 of a public key, as bundles name it."""
    return hashlib.sha256(_pem(key)).hexdigest()


def _public_half(path: Path) -> EllipticCurvePublicKey:
    """Return the public key that belongs to a private key file."""
    _library()
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    content = _key_content(path)
    if _is_encrypted(path) and _password() is None:
        raise KeyFileError(path, f"it is encrypted and the environment variable {PASSWORD_VARIABLE} is not set")
    try:
        key = load_pem_private_key(content, _password() if _is_encrypted(path) else None)
    except (ValueError, TypeError) as error:
        raise KeyFileError(path, f"it has no readable private key ({error})") from error
    return _checked_curve(path, key.public_key())


def _loaded_public_key(path: Path) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _key_content(path)
    try:
        return _checked_curve(path, load_pem_public_key(content))
    except ValueError as error:
        if b"PRIVATE KEY" in content:
            why = f"it is a private key; `openssl ec -in {path} -pubout` prints its public key"
            raise KeyFileError(path, why) from error
        raise KeyFileError(path, f"it has no readable public key ({error})") from error


def _key_content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotFoundError(f"There is no readable key file at {path}. Specify an existing path.") from error


def _is_encrypted(path: Path) -> bool:
    return b"ENCRYPTED" in _key_content(path)


def _password() -> bytes | None:
    password = os.environ.get(PASSWORD_VARIABLE)
    return None if password is None else password.encode()


def _checked_curve(path: Path, key: object) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

    if not isinstance(key, EllipticCurvePublicKey):
        raise KeyFileError(path, f"its type is {type(key).__name__}")
    if key.curve.name not in _CURVES:
        raise KeyFileError(path, f"its curve is {key.curve.name}")
    return key


def _library() -> tuple[Any, Any, Any]:
    """Return the modules of the package model_signing that hash, sign and verify."""
    try:
        from model_signing import hashing, signing, verifying
    except ImportError as error:
        raise MissingPackageError("model-signing", "signing") from error
    return hashing, signing, verifying
