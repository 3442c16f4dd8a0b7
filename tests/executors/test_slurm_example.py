"""The example of a third-party executor, installed: found by name, and its jobs run in processes of submitit."""

from __future__ import annotations

from pathlib import Path

import pytest

from automl_tl.contracts import Job
from automl_tl.executors.jobs import perform
from automl_tl.executors.opening import open_executor
from tests.plugin_host.distributions import Package, install

pytestmark = pytest.mark.integration

SOURCE = Path(__file__).parents[2] / "examples" / "automl-tl-slurm" / "src" / "automl_tl_slurm" / "__init__.py"


def test_slurm_example_answers_each_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.chdir(tmp_path)  # its default folder is relative
    monkeypatch.syspath_prepend(str(tmp_path))
    source = SOURCE.read_text(encoding="utf-8")
    install(tmp_path, Package("automl-tl-slurm", source, {"executors.slurm": "SlurmExecutor"}, header=""))
    jobs = [Job(task="scan", arguments={}), Job(task="command", arguments={"command": ["--version"]})]

    with open_executor("slurm://local") as executor:
        answers = {job.task: answer for job, answer in executor.run(jobs, perform, lambda: False)}

    assert "KeyError" in str(answers["scan"].error)
    assert str(answers["command"].result["stdout"]).startswith("automl-tl")
