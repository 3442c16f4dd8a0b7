"""Many small jobs in threads, results in order, memory bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from automl_tl.runtime.cores import num_cores

__all__ = ["in_order"]

T = TypeVar("T")
R = TypeVar("R")


def in_order(items: Iterable[T], work: Callable[[T], R], *, ahead: int = 128) -> Iterator[R]:
    """``work(item)`` for each item, in order, computed by threads at most ``ahead`` items in advance.

    Pillow lets go of the interpreter lock while it decodes and resizes, so threads are enough and nothing is pickled.
    """
    pending: deque[Future[R]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(max_workers=max(2, num_cores()), thread_name_prefix="decode") as pool:
        try:
            pending.extend(pool.submit(work, item) for item in islice(source, ahead))
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(source, 1))
        finally:
            for future in pending:
                future.cancel()
