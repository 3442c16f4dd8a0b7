from __future__ import annotations

from pathlib import Path

from automl_tl.contracts import Answer, Job
from automl_tl.executors.jobs import perform

from automl_tl_slurm import SlurmExecutor


def test_slurm_executor_answers_each_job(tmp_path: Path) -> None:
    executor = SlurmExecutor("local", num_jobs=2, folder=str(tmp_path))
    jobs = [Job(task="command", arguments={"command": [text]}) for text in ("--version", "--help", "--wrong")]

    answers = {str(job.arguments["command"]): answer for job, answer in executor.run(jobs, perform, lambda: False)}

    assert answers["['--version']"].result["stdout"] == "automl-tl 0.1.0\n"
    assert answers["['--wrong']"].result["exit_code"] == 2


def test_slurm_executor_reports_a_failed_job_and_stops_on_demand(tmp_path: Path) -> None:
    executor = SlurmExecutor("local", num_jobs=1, folder=str(tmp_path))
    jobs = (Job(task="unknown", arguments={}) for _ in range(100))
    answers: list[Answer] = []

    for _, answer in executor.run(jobs, perform, lambda: bool(answers)):
        answers.append(answer)

    assert [answer.error for answer in answers] == ["KeyError: 'unknown'"]
