"""Shared registries on S3: moto's server on loopback, and ``tl`` as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import Request, urlopen

import pytest

from automl_tl_registry import Registry
from automl_tl_registry.errors import NoExclusiveCreateError, RemoteError
from tests.registry.registry_fakes import FakeClock, publish

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".s3" / "bin" / "python"
WORKER = (sys.executable, "-m", "tests.registry.sharing_workers", "promote")
ROUNDS = 100 if os.environ.get("REGISTRY_FULL") else 10

pytest.importorskip("obstore", reason="obstore is not installed")


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """The address of an S3 server with the buckets ``team``, ``ignorant`` and ``flaky``."""
    if not PYTHON.exists():
        pytest.skip(f"{PYTHON.parent.parent.name} is missing; .ci/run creates it")
    with subprocess.Popen(
        [PYTHON, Path(__file__).with_name("s3_server.py")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as server:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{int(server.stdout.readline())}"
        for bucket in ("team", "ignorant", "flaky"):
            urlopen(Request(f"{address}/{bucket}", method="PUT")).close()
        yield address
        server.terminate()


@pytest.fixture
def s3(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "ada",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return endpoint


def requests(endpoint: str) -> list[str]:
    """The requests since the last call."""
    with urlopen(f"{endpoint}/_requests") as answer:
        return list(json.load(answer))


def test_second_push_moves_no_file(s3: str, registry: Registry, work: Path) -> None:
    for seed in range(3):
        publish(registry, work, seed=seed)
    registry.promote("insects@2", "production")
    first = registry.push("insects", "s3://team/twice")
    requests(s3)

    second = registry.push("insects", "s3://team/twice")

    asked = requests(s3)
    assert (first.num_files, second.num_files, second.num_present) == (7, 0, 3)
    assert {request.split()[0] for request in asked} == {"GET"}
    assert not any("/blobs/" in request for request in asked)


def test_pull_from_s3_equals_the_origin(s3: str, registry: Registry, work: Path, tmp_path: Path) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.promote("insects@2", "production", reason="better")
    registry.push("insects", "s3://team/equal")
    other = Registry(tmp_path / "other")

    other.pull("insects", "s3://team/equal")

    assert other.versions() == registry.versions()
    assert other.history() == registry.history()
    assert other.verify().problems == ()


def test_upkeep_on_s3(s3: str, registry: Registry, work: Path, clock: FakeClock) -> None:
    for seed in range(2):
        publish(registry, work, seed=seed)
    registry.push("insects", "s3://team/upkeep")
    shared = registry.shared("s3://team/upkeep")
    shared.delete("insects@1")
    clock.forward(days=1_000)

    removed = shared.gc()

    assert len(removed.blobs) == 2
    assert shared.verify().problems == ()
    assert shared.verify().num_blobs == 3


def test_one_of_two_concurrent_promotions_wins_each_time(s3: str, registry: Registry, work: Path, tmp_path: Path) -> None:
    for seed in range(4):
        publish(registry, work, seed=seed)
    registry.push("insects", "s3://team/race")
    names = ("ada", "bob")
    workers = [
        subprocess.Popen(
            [*WORKER, str(tmp_path / name), "s3://team/race"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for name in names
    ]
    answers = []
    live = "unset"
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for turn in range(ROUNDS):
        for number, worker in enumerate(workers):
            assert worker.stdin is not None
            print(f"insects@{1 + number + 2 * (turn % 2)} staging {live}", file=worker.stdin, flush=True)
        both = [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout is not None]
        winner = 0 if both[0]["won"] else 1
        live = str(1 + winner + 2 * (turn % 2))
        answers.append(both)
        loser = both[1 - winner]
        assert [answer["won"] for answer in both].count(True) == 1, (turn, both)
        assert loser == {"won": False, "by": names[winner], "found": int(live), "code": 7}
    for worker in workers:
        worker.communicate()

    tenures = registry.shared("s3://team/race").history("insects", alias="staging")

    assert len(tenures) == ROUNDS == len(answers)
    assert {tenure.actor for tenure in tenures} <= set(names)


def test_store_that_ignores_conditions_takes_versions_and_refuses_aliases(s3: str, registry: Registry, work: Path) -> None:
    publish(registry, work)
    registry.promote("insects@1", "production")

    pushed = registry.push("insects", "s3://ignorant/models")

    assert pushed.versions == ("insects@1",)
    assert "insects@production: not moved" in pushed.notes[0]
    shared = registry.shared("s3://ignorant/models")
    assert [version.aliases for version in shared.versions()] == [()]
    with pytest.raises(NoExclusiveCreateError, match="Nothing was changed"):
        shared.promote("insects@1", "production")


@pytest.mark.parametrize(
    ("url", "variable", "why"),
    [
        ("s3://absent/models", {}, "there is no such bucket"),
        ("s3://team/models", {"AWS_ACCESS_KEY_ID": "wrong"}, "access was denied"),
        ("s3://team/models", {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "error sending request"),
    ],
)
def test_unreachable_store_is_explained(  # noqa: PLR0917 - fixtures and parameters
    s3: str, registry: Registry, work: Path, monkeypatch: pytest.MonkeyPatch, url: str, variable: dict[str, str], why: str
) -> None:
    publish(registry, work)
    for name, value in variable.items():
        monkeypatch.setenv(name, value)

    with pytest.raises(RemoteError, match=why) as raised:
        registry.push("insects", url)

    assert raised.value.exit_code == 10
    assert str(raised.value).startswith(url)
