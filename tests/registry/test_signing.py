"""Signatures of versions, made and checked with OpenSSF model signing."""

from __future__ import annotations

import base64
import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from automl_tl_registry import Event, Registry, RegistryError
from automl_tl_registry.errors import GateFailedError, KeyFileError, NotFoundError, SignatureError
from automl_tl_registry.journal import hash_of
from tests.registry.registry_fakes import FakeClock, publish, publish_said

pytest.importorskip("model_signing", reason="the extra signing is missing")
pytest.importorskip("OpenSSL", reason="the extra signing is missing")

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa


def write_keys(
    folder: Path, name: str = "release", password: str | None = None, curve: type[ec.EllipticCurve] = ec.SECP256R1
) -> Path:
    """Write ``name.pem`` and ``name.pub``; return the former."""
    key = ec.generate_private_key(curve())
    encryption: serialization.KeySerializationEncryption = (
        serialization.BestAvailableEncryption(password.encode()) if password else serialization.NoEncryption()
    )
    path = folder / f"{name}.pem"
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption))
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    path.with_suffix(".pub").write_bytes(public)
    return path


@pytest.fixture
def key(work: Path) -> Path:
    return write_keys(work)


@pytest.fixture
def signed(registry: Registry, work: Path, key: Path) -> str:
    """A signed version with weights and evidence."""
    version = publish_said(registry, work / "files", [0, 1, 2], [0, 1, 2])
    registry.sign(version.ref, key)
    return version.ref


def signature_problems(registry: Registry, key: Path, ref: str | None = None) -> list[str]:
    verification = registry.verify(ref, public_key=key.with_suffix(".pub"))
    return [problem.text for problem in verification.problems if problem.kind == "signature"]


def change_signature(registry: Registry, change: Callable[[dict[str, Any]], object]) -> None:
    (path,) = (registry.root / "signatures").iterdir()
    bundle = json.loads(path.read_text())
    change(bundle)
    path.write_text(json.dumps(bundle))


def test_signature_is_verified(registry: Registry, signed: str, key: Path) -> None:
    assert registry.verify(public_key=key.with_suffix(".pub")).sound


def test_sign_again_with_the_same_key_changes_nothing(registry: Registry, signed: str, key: Path) -> None:
    (path,) = (registry.root / "signatures").iterdir()
    before = path.read_bytes()
    assert not registry.sign(signed, key).changed
    assert path.read_bytes() == before
    assert [event.verb for event in registry.events()] == ["published", "signed"]


def test_sign_replaces_a_damaged_signature(registry: Registry, signed: str, key: Path) -> None:
    change_signature(registry, lambda bundle: bundle["dsseEnvelope"].update(payload="bm90aGluZw=="))
    assert signature_problems(registry, key)
    assert registry.sign(signed, key).changed
    assert not signature_problems(registry, key)


def test_sign_with_another_key_replaces_the_signature(registry: Registry, signed: str, key: Path, work: Path) -> None:
    other = write_keys(work, "other", curve=ec.SECP521R1)
    assert registry.sign(signed, other).changed
    assert not signature_problems(registry, other)
    assert "was made with the key" in signature_problems(registry, key)[0]


def test_unsigned_version_is_named(registry: Registry, work: Path, key: Path) -> None:
    publish(registry, work / "files")
    assert signature_problems(registry, key) == [
        "The signature of insects@1 was refused: it is not signed; `tl registry sign insects@1 --key FILE` signs it."
    ]


@pytest.mark.parametrize("role", ["head", "predictions", "manifest"])
def test_changed_file_is_named(registry: Registry, signed: str, key: Path, role: str) -> None:
    version = registry.resolve(signed)
    digest = version.manifest_digest if role == "manifest" else version.blobs[role].digest
    path = registry.root / "blobs" / "sha256" / digest[:2] / digest
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b" ")
    (problem,) = signature_problems(registry, key)
    assert f"{role}.safetensors was changed: sha256 {digest} was signed" in problem
    with pytest.raises(RegistryError, match=rf"\({role} of {signed}\)"):
        registry.load(signed)


def test_missing_file_is_named(registry: Registry, signed: str, key: Path) -> None:
    registry.path(signed, "head").unlink()
    assert "head.safetensors is missing" in signature_problems(registry, key)[0]


def test_signature_of_another_version_is_refused(registry: Registry, signed: str, work: Path, key: Path) -> None:
    other = publish_said(registry, work / "files", [0, 1, 1], [0, 1, 2])
    (path,) = (registry.root / "signatures").iterdir()
    path.with_name(f"{other.manifest_digest}.json").write_bytes(path.read_bytes())
    (problem,) = signature_problems(registry, key)
    assert "predictions.safetensors was changed" in problem
    assert "manifest.safetensors was changed" in problem


def test_changed_statement_is_refused(registry: Registry, signed: str, key: Path) -> None:
    def leave_out_a_file(bundle: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(bundle["dsseEnvelope"]["payload"]))
        statement["predicate"]["resources"].pop()
        bundle["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    change_signature(registry, leave_out_a_file)
    assert "it was changed after signing, or it is not by this key" in signature_problems(registry, key)[0]


def test_claimed_key_is_not_trusted(registry: Registry, signed: str, key: Path, work: Path) -> None:
    """A signature by another key that claims to be by the expected one."""
    hint = registry.sign(signed, key).key
    registry.sign(signed, write_keys(work, "other"))
    change_signature(registry, lambda bundle: bundle["verificationMaterial"]["publicKey"].update(hint=hint))
    assert "it is not by this key" in signature_problems(registry, key)[0]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 100_000, b"null", b"\xff\xfe", b'{"verificationMaterial": {"publicKey": {}}}']
)
def test_malformed_signature_is_refused(registry: Registry, signed: str, key: Path, content: bytes) -> None:
    (path,) = (registry.root / "signatures").iterdir()
    path.write_bytes(content)
    assert "it is not a signature of OpenSSF model signing with a key file" in signature_problems(registry, key)[0]


def test_keyless_signature_is_refused(registry: Registry, signed: str, key: Path) -> None:
    """Sigstore's short-lived certificates are another trust model: nothing here can say whose they are."""

    def use_certificate(bundle: dict[str, Any]) -> None:
        bundle["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}, "tlogEntries": []}

    change_signature(registry, use_certificate)
    assert "its verification material is certificate, tlogEntries" in signature_problems(registry, key)[0]


def test_damaged_version_is_not_signed(registry: Registry, work: Path, key: Path) -> None:
    version = publish(registry, work / "files")
    registry.path(version.ref, "head").unlink()
    with pytest.raises(RegistryError, match=r"head of insects@1\) is damaged"):
        registry.sign(version.ref, key)
    assert not (registry.root / "signatures").exists()


def test_gate_requires_the_signature(registry: Registry, work: Path, key: Path) -> None:
    version = publish(registry, work / "files")
    (registry.root / "gates.toml").write_text('[default]\npublic_key = "keys/release.pub"\n')
    with pytest.raises(GateFailedError, match="signature: There is no readable key file at"):
        registry.promote(version.ref, "production")
    (registry.root / "keys").mkdir()
    (registry.root / "keys" / "release.pub").write_bytes(key.with_suffix(".pub").read_bytes())
    with pytest.raises(GateFailedError, match=r"signature: .* it is not signed") as caught:
        registry.promote(version.ref, "production")
    assert caught.value.exit_code == 8
    registry.sign(version.ref, write_keys(work, "other"))
    with pytest.raises(GateFailedError, match=r"signature: .* it was made with the key"):
        registry.promote(version.ref, "production")
    registry.sign(version.ref, key)
    (gate,) = (gate for gate in registry.promote(version.ref, "production").gates if gate.gate == "signature")
    assert gate.verdict == "passed"


def test_gate_is_not_asked_for_other_aliases(registry: Registry, work: Path) -> None:
    version = publish(registry, work / "files")
    (registry.root / "gates.toml").write_text('[default]\npublic_key = "missing.pub"\n')
    assert registry.promote(version.ref, "staging").changed


@pytest.mark.parametrize("form", ["out", "out.tar", "out.zip"])
def test_import_keeps_the_signature(
    registry: Registry, signed: str, work: Path, key: Path, clock: FakeClock, form: str
) -> None:
    exported = registry.export(signed, work / form)
    other = Registry(work / "other", clock=clock)
    imported = other.import_(exported, public_key=key.with_suffix(".pub"))
    assert imported.manifest_digest == registry.resolve(signed).manifest_digest
    assert other.verify(public_key=key.with_suffix(".pub")).sound


def test_import_under_another_name_and_number_keeps_the_signature(
    registry: Registry, signed: str, work: Path, key: Path, clock: FakeClock
) -> None:
    other = Registry(work / "other", clock=clock)
    publish(other, work / "files", "bugs")
    imported = other.import_(registry.export(signed, work / "out"), name="bugs")
    assert imported.ref == "bugs@2"
    assert not signature_problems(other, key, "bugs@2")


def test_import_refuses_before_anything_is_visible(
    registry: Registry, signed: str, work: Path, key: Path, clock: FakeClock
) -> None:
    exported = registry.export(signed, work / "out")
    other = Registry(work / "other", clock=clock)
    with pytest.raises(SignatureError, match="it was made with the key"):
        other.import_(exported, public_key=write_keys(work, "foreign").with_suffix(".pub"))
    (exported / "signature.json").unlink()
    with pytest.raises(SignatureError, match="it is not signed"):
        other.import_(exported, public_key=key.with_suffix(".pub"))
    assert other.versions() == []
    assert not list((other.root / "blobs").glob("sha256/*/*"))


def test_gc_removes_signatures_of_deleted_versions(registry: Registry, signed: str) -> None:
    registry.gc()
    assert list((registry.root / "signatures").iterdir())
    registry.delete(signed)
    registry.gc()
    assert not list((registry.root / "signatures").iterdir())


def test_model_signing_accepts_an_export(registry: Registry, signed: str, work: Path, key: Path) -> None:
    """The program of OpenSSF verifies an exported folder, and names a changed file."""
    exported = registry.export(signed, work / "out")
    command = [sys.executable, "-m", "model_signing", "verify", "key", str(exported)]
    command += ["--signature", str(exported / "signature.json"), "--public_key", str(key.with_suffix(".pub"))]
    accepted = subprocess.run(command, capture_output=True, text=True)
    assert accepted.returncode == 0, accepted.stderr
    (exported / "head.safetensors").write_bytes(b"other")
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode
    assert "Hash mismatch for" in refused.stderr
    assert "head.safetensors" in refused.stderr


def test_encrypted_key_needs_its_password(registry: Registry, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version, key = publish(registry, work / "files"), write_keys(work, password="open sesame")
    monkeypatch.delenv("TL_KEY_PASSWORD", raising=False)
    with pytest.raises(KeyFileError, match="TL_KEY_PASSWORD is not set"):
        registry.sign(version.ref, key)
    monkeypatch.setenv("TL_KEY_PASSWORD", "wrong")
    with pytest.raises(KeyFileError, match="no readable private key"):
        registry.sign(version.ref, key)
    monkeypatch.setenv("TL_KEY_PASSWORD", "open sesame")
    registry.sign(version.ref, key)
    assert not signature_problems(registry, key)


def test_unusable_keys_are_explained(registry: Registry, signed: str, key: Path, work: Path) -> None:
    rsa_key = rsa.generate_private_key(65537, 2048)
    pem = rsa_key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (work / "rsa.pem").write_bytes(pem)
    with pytest.raises(KeyFileError, match="its type is RSAPublicKey"):
        registry.sign(signed, work / "rsa.pem")
    with pytest.raises(KeyFileError, match="its curve is secp256k1"):
        registry.sign(signed, write_keys(work, "bitcoin", curve=ec.SECP256K1))
    with pytest.raises(KeyFileError, match="no readable private key"):
        registry.sign(signed, key.with_suffix(".pub"))
    with pytest.raises(KeyFileError, match="it is a private key"):
        registry.verify(public_key=key)
    with pytest.raises(NotFoundError, match="no readable key file"):
        registry.verify(public_key=work / "nowhere.pub")


def test_signed_alias_is_verified_and_unsigned_one_is_named(registry: Registry, signed: str, key: Path) -> None:
    registry.promote(signed, "production", reason="the first", key=key)
    assert not signature_problems(registry, key)
    registry.promote(signed, "staging")
    verification = registry.verify(public_key=key.with_suffix(".pub"))
    assert verification.sound
    assert [(problem.subject, problem.severity) for problem in verification.problems] == [("insects@staging", "warning")]


def test_changed_alias_is_named(registry: Registry, signed: str, key: Path, work: Path) -> None:
    """Someone moves an alias in the database and makes the hash chain fit."""
    other = publish_said(registry, work / "files", [0, 1, 1], [0, 1, 2])
    registry.sign(other.ref, key)
    registry.promote(signed, "production", key=key)
    with closing(sqlite3.connect(registry.root / "registry.sqlite")) as database, database:
        database.execute("DROP TRIGGER events_never_change")
        database.execute("UPDATE aliases SET version = 2")
        last = replace_version(registry.events()[-1], 2)
        database.execute("UPDATE events SET version = 2, hash = ? WHERE seq = ?", [last.hash, last.seq])
    (registry.root / "events.jsonl").unlink()
    verification = registry.verify(public_key=key.with_suffix(".pub"))
    errors = [problem for problem in verification.problems if problem.severity == "error"]
    assert [(problem.kind, problem.subject) for problem in errors] == [("signature", "insects@production")]
    assert "alias.json was changed" in errors[0].text


def replace_version(event: Event, version: int) -> Event:
    changed = event.model_copy(update={"version": version})
    return changed.model_copy(update={"hash": hash_of(changed)})


def test_move_signed_with_another_key_is_named(registry: Registry, signed: str, key: Path, work: Path) -> None:
    registry.promote(signed, "production", key=write_keys(work, "other"))
    (problem,) = signature_problems(registry, key)
    assert problem.startswith("The signature of insects@production was refused: it was made with the key")


def test_shared_registry_checks_and_keeps_signatures(registry: Registry, signed: str, key: Path, work: Path) -> None:
    url, other = (work / "shared").as_uri(), Registry(work / "other")
    registry.push("insects", url)
    with pytest.raises(SignatureError, match="it was made with the key"):
        other.pull("insects", url, public_key=write_keys(work, "foreign").with_suffix(".pub"))
    assert other.versions() == []
    other.shared(url).promote(signed, "production", key=key)
    other.pull("insects", url, public_key=key.with_suffix(".pub"))
    assert other.resolve("insects@production").version == 1
    verification = other.verify(public_key=key.with_suffix(".pub"))
    assert verification.sound
    assert not verification.problems


def test_remote_verify_checks_signatures_by_digest(registry: Registry, signed: str, key: Path, work: Path) -> None:
    """Also that of a version which got another number here, and of a rollback that was signed."""
    publish(registry, work / "unsigned", seed=5)
    export = registry.export(signed, work / "insects.tar")
    other = Registry(work / "other")
    publish(other, work / "first", seed=6)
    assert other.import_(export).ref == "insects@2"
    other.push("insects@2", str(work / "renumbered"))
    registry.push("insects", str(work / "shared"))
    shared = registry.shared(str(work / "shared"))
    for number in (1, 2):
        shared.promote(f"insects@{number}", "staging", key=key)
    shared.rollback("insects", "staging", key=key)

    public = key.with_suffix(".pub")
    found = shared.verify(public_key=public).problems
    (signature,) = (work / "shared" / "signatures").iterdir()
    bundle = json.loads(signature.read_text())
    bundle["dsseEnvelope"]["signatures"][0]["sig"] = base64.b64encode(b"another").decode()
    signature.write_text(json.dumps(bundle))
    changed = shared.verify(signed, public_key=public).problems

    assert other.shared(str(work / "renumbered")).verify(public_key=public).problems == ()
    assert [problem.subject for problem in found] == ["insects@2"]
    assert "it is not signed" in found[0].text
    assert "it was changed after signing, or it is not by this key" in changed[0].text
    assert "\n" not in changed[0].text
