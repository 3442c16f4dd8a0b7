"""Threads: work on many items in order, in batches or in a thread pool; cores, BLAS threads and memory of this process."""

from __future__ import annotations

import ctypes
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Parameters of mallopt(3) in glibc.
TRIM_THRESHOLD: Final = -1
MMAP_MAX: Final = -4
NEVER: Final = 2**31 - 1


def num_cores() -> int:
    """Return the number of cores this process may use; in a container or batch job often fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield lists of consecutive items, the last one possibly shorter.

    Args:
        items: finite or not; consumed lazily.
        size: length of a list.
    """
    source = iter(items)
    while batch := list(islice(source, size)):
        yield batch


def in_order(items: Iterable[T], work: Callable[[T], R], *, ahead: int = 128, num_threads: int | None = None) -> Iterator[R]:
    """Map ``work`` over ``items`` in threads and yield the results in order.

    Pillow releases the interpreter lock while it decodes and resizes, so threads suffice and nothing is pickled.

    Args:
        items: consumed lazily.
        work: called from several threads; its errors are raised here.
        ahead: most results that are computed or waiting.
        num_threads: by default one per core, at least two.
    """
    pending: deque[Future[R]] = deque()
    source = iter(items)
    with ThreadPoolExecutor(max_workers=num_threads or max(2, num_cores()), thread_name_prefix="decode") as pool:
        try:
            pending.extend(pool.submit(work, item) for item in islice(source, ahead))
            while pending:
                yield pending.popleft().result()
                pending.extend(pool.submit(work, item) for item in islice(source, 1))
        finally:
            for future in pending:
                future.cancel()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Limit the BLAS of numpy and scipy to one thread; on small problems two threads can be 20 times slower (decision 27)."""
    from sklearn import linear_model  # noqa: F401 - loads its own BLAS, which can be limited only after that
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # a dependency of scikit-learn

    with threadpool_limits(limits=1):
        yield


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory instead of returning it to the kernel; return whether the C library is glibc.

    Otherwise the kernel clears the memory of every activation in every training step: a third of its time (decision 26).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; on Windows CDLL rejects None
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, NEVER))


def peak_mib() -> int | None:
    """Return the peak resident memory of this process so far, in MiB; ``None`` on Windows."""
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))  # getrusage(2): bytes on macOS, KiB elsewhere
