"""The executor of a Ray cluster: one that runs, or one that is started on this machine and ends with the command."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from platform import python_version
from textwrap import shorten
from typing import Any, Final

from automl_tl.contracts import Answer, Executor, Job, Slots
from automl_tl.errors import ExecutorError, Interrupted, MissingExtraError

MAX_RETRIES: Final = 3  # of a job whose process or machine died
JOBS_PER_SLOT: Final = 2  # one that runs and one that waits: more would only fill memory
POLL_S: Final = 0.5
CONNECT_S: Final = 10.0
MAX_LETTERS: Final = 500  # of an error of Ray


class RayExecutor(Executor):
    """Runs each job as a Ray task.

    Args:
        address: ``HOST:PORT`` of the Ray client server of a cluster; ``None``: the cluster of which this machine is a part
            (also ``RAY_ADDRESS``), else a new one on all its cores.
    """

    def __init__(self, address: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # without a GPU of its own, a job sees none
        if address and ("RAY_AUTH_TOKEN" in os.environ or _token_file().is_file()):
            os.environ.setdefault("RAY_AUTH_MODE", "token")  # its client sends none otherwise, and clusters of 2.60 ask for one
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError("ray", "pip install 'automl-tl[ray]'") from error
        place = (address or os.environ.get("RAY_ADDRESS", "")).removeprefix("ray://")
        _check_reachable(place)
        self._ray: Any = ray
        self._is_ours = not ray.is_initialized()  # a program that uses Ray itself keeps its connection
        try:
            with _ctrl_c_later():
                self._ray.init(
                    f"ray://{address}" if address else None,
                    include_dashboard=None if address else False,
                    ignore_reinit_error=True,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                )
        except KeyboardInterrupt:
            self.close()
            raise Interrupted("The Ray cluster had not yet received any work.") from None
        except Exception as error:  # ConnectionError, RuntimeError, ValueError ...
            raise ExecutorError(
                f"Cannot use the Ray cluster {f'at {place}' if place else 'of this machine'}. Ray says: {_text(error)}. "
                f"Expected a cluster with Python {python_version()} and Ray {ray.__version__}, as here; one with token "
                f"authentication needs its token in {_token_file()} or RAY_AUTH_TOKEN. `ray status` shows whether it runs."
            ) from error

    @property
    def slots(self) -> Slots:
        """See ``Executor``."""
        resources = self._ray.cluster_resources()
        return Slots(int(resources.get("CPU", 0)), int(resources.get("GPU", 0)))

    def run(
        self, jobs: Iterable[Job], perform: Callable[[Job], Answer], is_over: Callable[[], bool]
    ) -> Iterator[tuple[Job, Answer]]:
        """See ``Executor``."""
        ray, source = self._ray, iter(jobs)
        task = ray.remote(perform)  # once: Ray sends each remote function to all workers
        pending: dict[Any, Job] = {}
        try:
            while not is_over():
                # 1) Keep all slots busy; the cluster may have grown, or shrunk to fewer slots than jobs that wait.
                window = JOBS_PER_SLOT * max(self.slots.num_cpus, 1)
                taken = list(islice(source, max(window - len(pending), 0)))
                for job in taken:
                    if (problem := self._lacks(job)) is not None:
                        yield job, Answer(error=problem)
                    else:
                        pending[self._start(task, job)] = job
                if not (taken or pending):
                    return
                # 2) Wait a little, so that a budget ends the work, and pass on what is finished.
                finished, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_S) if pending else ([], [])
                for reference in finished:
                    yield pending.pop(reference), self._answer(reference)
        finally:
            for reference in pending:
                with suppress(Exception):
                    ray.cancel(reference, force=True)

    def close(self) -> None:
        """See ``Executor``."""
        if self._is_ours:
            with _ctrl_c_later():
                self._ray.shutdown()

    def _lacks(self, job: Job) -> str | None:
        """Why no node of the cluster can ever run ``job``, which Ray would wait for; or ``None``."""
        if job.num_cpus <= 1 and not job.num_gpus:
            return None
        nodes: list[dict[str, float]] = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        if any(node.get("CPU", 0) >= job.num_cpus and node.get("GPU", 0) >= job.num_gpus for node in nodes):
            return None
        largest: dict[str, float] = max(nodes, key=lambda node: (node.get("GPU", 0), node.get("CPU", 0)), default={})
        return (
            f"The largest node of the Ray cluster has CPU {largest.get('CPU', 0):.0f}, GPU {largest.get('GPU', 0):.0f}. "
            f"Expected CPU {job.num_cpus}, GPU {job.num_gpus}, as this machine uses; with others the results would differ. "
            "Add a node like that, or limit this machine with OMP_NUM_THREADS or CUDA_VISIBLE_DEVICES."
        )

    def _start(self, task: Any, job: Job) -> Any:  # noqa: ANN401 - ray has loose types
        options = task.options(
            num_cpus=job.num_cpus,
            num_gpus=job.num_gpus,
            max_retries=MAX_RETRIES,
            scheduling_strategy="SPREAD",
            name=f"automl_tl {job.task}",
        )
        return options.remote(job)

    def _answer(self, reference: Any) -> Answer:  # noqa: ANN401 - ray has loose types
        try:
            answer: Answer = self._ray.get(reference)
        except Exception as error:  # the process died again and again, or automl_tl cannot be imported there
            return Answer(
                error=f"Ray could not run it ({type(error).__name__}: {_text(error)}). Each node needs the same versions of "
                "Python, automl-tl and its plugins as this machine, and enough memory; `ray logs` shows more."
            )
        return answer


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Let Ctrl-C wait until the end of the block: Ray crashes with a segmentation fault while it starts or ends."""
    if threading.current_thread() is not threading.main_thread():  # which alone receives it
        yield
        return
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before or signal.SIG_DFL)
        if pressed:
            raise KeyboardInterrupt


def _text(error: Exception) -> str:
    """The text of an error in one line, shortened at a word."""
    return shorten(str(error), MAX_LETTERS, placeholder=" ...")


def _token_file() -> Path:
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")


def _check_reachable(place: str) -> None:
    """Raise ``ExecutorError`` if nothing answers at ``HOST:PORT``; Ray itself would try for minutes."""
    host, separator, port = place.rpartition(":")
    if not place or place in ("auto", "local"):
        return
    if not (separator and host and port.isdecimal()):
        raise ExecutorError(f"{place!r} is not the address of a Ray cluster. Expected ray://HOST:PORT, e.g. ray://head:10001.")
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ExecutorError(
            f"No Ray cluster answers at {place} ({error.strerror or error}). `ray start --head --ray-client-server-port=10001` "
            "starts one there."
        ) from error
