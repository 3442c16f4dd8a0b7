"""What ``--on`` may name, and jobs in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from automl_tl.contracts import Answer, Job
from automl_tl.data import open_source, scan
from automl_tl.data.workers import Workers
from automl_tl.errors import ExecutorError
from automl_tl.executors.jobs import perform
from automl_tl.executors.local import LocalExecutor
from automl_tl.executors.opening import open_executor
from automl_tl.runtime.budget import Deadline
from tests.fakes import write_colors
from tests.plugin_host.distributions import Package, install

SOURCE = """
from automl_tl.contracts import Answer, Executor, Slots

class Recorder(Executor):
    def __init__(self, address, queue="none"):
        self.address, self.queue, self.is_closed = address, queue, False
    @property
    def slots(self):
        return Slots(1, 0)
    def run(self, jobs, perform, is_over):
        yield from ((job, Answer()) for job in jobs)
    def close(self):
        self.is_closed = True
"""


@pytest.fixture
def farm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, Package("tl-farm", SOURCE, {"executors.farm": "Recorder"}))
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("farm")
@pytest.mark.parametrize(
    ("on", "file", "expected"),
    [
        ("farm", "", (None, "none")),
        ("farm://head:1", "", ("head:1", "none")),
        ("night", '[night]\non = "farm://head:2"\nqueue = "long"', ("head:2", "long")),
        ("farm", '[farm]\nqueue = "long"', (None, "long")),
    ],
)
def test_open_executor_connects_by_name_address_and_file(on: str, file: str, expected: tuple[str, str], home: Path) -> None:
    home.mkdir()
    (home / "executors.toml").write_text(file, encoding="utf-8")

    with open_executor(on) as executor:
        found = vars(executor).copy()

    assert (found["address"], found["queue"]) == expected
    assert vars(executor)["is_closed"]


@pytest.mark.usefixtures("farm")
@pytest.mark.parametrize(
    ("on", "file", "problem"),
    [
        ("fram", "", "no executor 'fram'. Did you mean 'farm'"),
        ("nigth", "[night]\non = 'farm'", "Did you mean 'night'"),
        (
            "night",
            "[night]\non = 'farm'\ncolor = 1",
            "does not accept these settings: got an unexpected keyword argument 'color'",
        ),
        ("night", "[night\n", "executors.toml cannot be read"),
        ("night", "night = 'farm'", "night is outside of a section"),
        ("night", "[night]\non = 3", "has on = 3"),
    ],
)
def test_open_executor_explains_what_is_wrong(on: str, file: str, problem: str, home: Path) -> None:
    home.mkdir()
    (home / "executors.toml").write_text(file, encoding="utf-8")

    with pytest.raises(ExecutorError, match=problem.replace("(", r"\(")), open_executor(on):
        pass


@pytest.mark.usefixtures("farm")
@pytest.mark.parametrize(("budget_s", "is_local"), [(None, False), (19.0, True), (100.0, False)])
def test_open_executor_spends_a_short_budget_here(
    budget_s: float | None, is_local: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with open_executor("farm", Deadline(budget_s, startup_s=1.0)) as executor:
        assert isinstance(executor, LocalExecutor) is is_local

    assert ("starting workers pays from about 20 s on" in caplog.text) is is_local


def workers(images: Path, perform: Callable[[Job], Answer] = perform) -> Workers:
    return Workers(LocalExecutor(), perform, str(images))


def test_workers_scan_equals_the_scan_here(tmp_path: Path) -> None:
    images = write_colors(tmp_path / "colors", 3)
    (images / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")

    there = scan(open_source(images), workers=workers(images).scan, cache_dir=tmp_path / "cache")

    assert there == scan(open_source(images))
    assert [row.path for row in there.rejected] == ["red/broken.png"]


@pytest.mark.parametrize(
    ("answer", "problem"),
    [(Answer(error="it fell over"), "failed on a worker: it fell over"), (Answer(content=b"x", digest="0"), "damaged")],
)
def test_workers_name_a_failed_or_damaged_job(answer: Answer, problem: str, tmp_path: Path) -> None:
    images = write_colors(tmp_path / "colors", 1)

    with pytest.raises(ExecutorError, match=problem):
        scan(open_source(images), workers=workers(images, lambda job: answer).scan)
