"""Iterate over many items: in batches, or through a thread pool with results in order and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from automl_tl.runtime.threads import num_cores

__all__ = ["batches", "in_order"]

T = TypeVar("T")
R = TypeVar("R")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Split ``items`` into lists of ``size``, the last one possibly shorter; consumes lazily.

    Args:
        items: any iterable, finite or not.
        size: number of items per batch, at least 1.
    """
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def in_order(items: Iterable[T], work: Callable[[T], R], *, ahead: int = 128) -> Iterator[R]:
    """Map ``work`` over ``items`` in threads and yield the results in order.

    Pillow releases the interpreter lock while it decodes and resizes, so threads suffice and nothing is pickled.

    Args:
        items: consumed lazily.
        work: called once per item, in any thread.
        ahead: largest number of items that are computed or waiting at once.
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
