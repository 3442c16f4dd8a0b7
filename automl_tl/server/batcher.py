"""Predict concurrent requests in batches: one thread runs the network, as fast as ``tl predict`` does."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.models.engines import BATCH_SIZE
from automl_tl.server.served_model import Answer, ServedModel

WINDOW_S: Final = 0.003  # longest wait for more images
MAX_QUEUED: Final = 256  # images decoded or waiting; more are refused


class OverloadedError(Exception):
    """The queue is full."""


@dataclass(frozen=True, slots=True)
class _Job:
    served: ServedModel
    pixels: NDArray[np.uint8]
    future: asyncio.Future[Answer]


class Batcher:
    """A bounded queue of images, and the thread that predicts them. All methods are called from the event loop."""

    def __init__(self, observe: Callable[[int], object] = lambda size: None) -> None:
        """Create a batcher; ``start`` it before use.

        Args:
            observe: called with the size of every batch.
        """
        self.num_admitted = 0
        self._observe = observe
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="predict", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread after the images that are queued."""
        self._queue.put(None)
        self._thread.join()

    @property
    def is_running(self) -> bool:
        """Whether images are predicted."""
        return self._thread.is_alive()

    @contextmanager
    def admit(self, num_images: int) -> Iterator[None]:
        """Reserve places in the queue while the context is open; raise ``OverloadedError`` if it is full."""
        if self.num_admitted and self.num_admitted + num_images > MAX_QUEUED:
            raise OverloadedError
        self.num_admitted += num_images
        try:
            yield
        finally:
            self.num_admitted -= num_images

    async def predict(self, served: ServedModel, pixels: NDArray[np.uint8]) -> Answer:
        """Predict one image.

        Args:
            served: version to predict with.
            pixels: ``(S, S, 3)``.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._queue.put(_Job(served, pixels, future))
        return await future

    def _work(self) -> None:
        is_open = True
        while is_open and (first := self._queue.get()) is not None:
            batch = [first]
            for job in self._more():
                if job is None:
                    is_open = False
                    break
                batch.append(job)
                if len(batch) == BATCH_SIZE:
                    break
            for _, group in groupby(batch, key=lambda job: id(job.served)):
                self._predict(list(group))

    def _more(self) -> Iterator[_Job | None]:
        """Yield jobs until no more are expected, or the window closes."""
        closes_s = time.monotonic() + WINDOW_S
        taken = 1
        while True:
            try:  # an admitted image that is not here yet is being decoded
                wait_s = closes_s - time.monotonic() if self.num_admitted > taken else 0.0
                yield self._queue.get(timeout=wait_s) if wait_s > 0 else self._queue.get_nowait()
            except Empty:
                return
            taken += 1

    def _predict(self, jobs: Sequence[_Job]) -> None:
        """Predict jobs of one version, and settle their futures in one step."""
        outcomes: Sequence[Answer | Exception]
        try:
            outcomes = jobs[0].served.answer(np.stack([job.pixels for job in jobs]))
        except Exception as error:  # the thread must go on
            outcomes = [error] * len(jobs)
        self._observe(len(jobs))
        jobs[0].future.get_loop().call_soon_threadsafe(_settle, jobs, outcomes)


def _settle(jobs: Sequence[_Job], outcomes: Sequence[Answer | Exception]) -> None:
    for job, outcome in zip(jobs, outcomes, strict=True):
        if job.future.done():
            continue
        if isinstance(outcome, Exception):
            job.future.set_exception(outcome)
        else:
            job.future.set_result(outcome)
