"""Images on the machines of an executor: how a job opens the source that the command reads, and the scan as jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, cast

from pydantic import JsonValue

from automl_tl.contracts import Answer, Executor, Job
from automl_tl.data.decode import quiet_pillow
from automl_tl.data.facts import THUMBNAIL_BYTES, from_row, to_row
from automl_tl.data.index import ScannedFile, read_file
from automl_tl.data.sources.opening import open_source
from automl_tl.data.sources.source import Source
from automl_tl.errors import ExecutorError
from automl_tl.runtime.paths import absolute
from automl_tl.runtime.threads import in_order


@dataclass(frozen=True)
class Workers:
    """Runs jobs on the images of one source.

    Args:
        executor: where.
        perform: does a job.
        images: path or URL of the source. Every machine must reach it.
        classes_are_folders: as of ``open_source``.
    """

    executor: Executor
    perform: Callable[[Job], Answer]
    images: str
    classes_are_folders: bool = False

    def job(self, task: str, *, num_cpus: int = 1, num_gpus: int = 0, **arguments: Any) -> Job:  # noqa: ANN401 - JSON
        """Return a job on some of the images.

        Args:
            task: its name.
            num_cpus: that it needs.
            num_gpus: that it needs.
            arguments: what else the task needs.
        """
        place = {"images": absolute(self.images), "classes_are_folders": self.classes_are_folders}
        return Job(task=task, arguments={**place, **arguments}, num_cpus=num_cpus, num_gpus=num_gpus)

    def run(self, jobs: Iterable[Job], is_over: Callable[[], bool] = lambda: False) -> Iterator[tuple[Job, Answer]]:
        """Run jobs, and yield each with its answer as it ends.

        Args:
            jobs: consumed lazily.
            is_over: whether to stop before all jobs have ended.

        Raises:
            ExecutorError: a job failed.
        """
        for job, answer in self.executor.run(jobs, self.perform, is_over):
            if answer.error is not None:
                raise ExecutorError(f"The task {job.task!r} failed on a worker: {answer.error}")
            if answer.content and sha256(answer.content).hexdigest() != answer.digest:
                raise ExecutorError(f"The answer of a task {job.task!r} was damaged on its way: its digest differs.")
            yield job, answer

    def scan(self, paths: Iterable[Sequence[str]]) -> Iterator[list[ScannedFile]]:
        """Yield the facts about the files of each chunk of ``paths``, in any order."""
        for job, answer in self.run(self.job("scan", paths=list(chunk)) for chunk in paths):
            yield _from_answer(cast(list[str], job.arguments["paths"]), answer)


def source_of(job: Job) -> Source:
    """Open the source of a job, once per process."""
    return _open(str(job.arguments["images"]), bool(job.arguments["classes_are_folders"]))


@lru_cache(maxsize=1)
def _open(images: str, classes_are_folders: bool) -> Source:
    return open_source(images, classes_are_folders=classes_are_folders, fetch=False)


def scan_files(job: Job) -> Answer:
    """Read and measure the files of a job; one that cannot be used is a row with its reason."""
    source, paths = source_of(job), cast(list[str], job.arguments["paths"])
    with quiet_pillow():
        files = list(in_order(paths, lambda path: read_file(source, path, lambda digest: None), num_threads=2))
    rows: list[JsonValue] = [[file.digest, file.stamp, *to_row(file.facts)[:3]] for file in files]
    thumbnails = b"".join(file.facts.thumbnail.ljust(THUMBNAIL_BYTES) for file in files)
    return Answer(result={"files": rows}, content=thumbnails, digest=sha256(thumbnails).hexdigest())


def _from_answer(paths: Sequence[str], answer: Answer) -> list[ScannedFile]:
    files = []
    for number, (path, row) in enumerate(zip(paths, cast(list[Any], answer.result["files"]), strict=True)):
        digest, stamp, reason, detail, text = row
        thumbnail = None if reason else answer.content[number * THUMBNAIL_BYTES : (number + 1) * THUMBNAIL_BYTES]
        files.append(ScannedFile(path, from_row(reason, detail, text, thumbnail), digest, stamp))
    return files
