"""Looks at many files at once: in threads when they are few, in processes when they are many.

Decoding a large photograph happens outside the interpreter lock, so threads are enough; of a small image most of the
work is Python, and only processes use all cores. They cost a second to start, hence the limit.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from automl_tl.data.decoding import quiet_pillow
from automl_tl.data.facts_cache import FactsCache
from automl_tl.data.looking import Look, look_at
from automl_tl.data.sources.source import Source
from automl_tl.runtime.progress import Advance
from automl_tl.runtime.threads import batches

__all__ = ["look_at_all"]

Chunks = Generator[list[Look]]

PROCESSES_FROM: Final = 2000  # images
CHUNK: Final = 64
LARGEST_CHUNK: Final = 1024
QUICK_S: Final = 0.1  # a chunk that takes less is doubled: handing it over takes some 5 ms of both processes
IN_A_THREAD: Final = 4  # images that are looked at together: small ones cost a fifth less
IN_A_PROCESS: Final = 32
UNDER_WAY: Final = 3  # chunks per process: one that is worked on, and two that wait
ONE_THREAD: Final = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}  # numpy's, in every process


def look_at_all(
    source: Source, paths: Iterable[str], number: int, cache: FactsCache | None, num_workers: int, advance: Advance
) -> Generator[Look]:
    """One look per path, in order; at most a few chunks are under way at any time, however slowly the looks are taken.

    Args:
        source: what to read.
        paths: in it, taken as they are needed.
        number: of paths.
        cache: what is known already; absent: nothing.
        num_workers: that look at the same time.
        advance: called after every chunk.
    """
    in_processes = num_workers > 1 and number >= PROCESSES_FROM
    with closing((_in_processes if in_processes else _in_threads)(source, iter(paths), cache, num_workers)) as chunks:
        for chunk in chunks:
            advance(len(chunk))
            yield from chunk


def _in_threads(source: Source, paths: Iterator[str], cache: FactsCache | None, num_workers: int) -> Chunks:
    with ThreadPoolExecutor(max_workers=num_workers, thread_name_prefix="scan") as pool:
        for chunk in batches(paths, CHUNK):
            yield list(chain.from_iterable(pool.map(lambda few: look_at(source, few, cache), batches(chunk, IN_A_THREAD))))


def _in_processes(source: Source, paths: Iterator[str], cache: FactsCache | None, num_workers: int) -> Chunks:
    # loky's processes, unlike those of the standard library, never run the user's script again and leave threads alone.
    # joblib's own way to them goes on working when nobody takes the looks, which then fill the memory.
    from joblib.externals.loky import ProcessPoolExecutor

    pool = ProcessPoolExecutor(max_workers=num_workers, env=ONE_THREAD)
    length, under_way = CHUNK, deque[Future[tuple[list[Look], float]]]()
    with TemporaryDirectory(prefix="automl_tl_scan_") as folder, pool:
        given = Path(folder) / "source"
        given.write_bytes(pickle.dumps((source, cache)))  # once, instead of with every chunk
        try:
            while True:
                while len(under_way) < UNDER_WAY * num_workers and (chunk := list(islice(paths, length))):
                    under_way.append(pool.submit(_look_at_chunk, given, chunk))
                if not under_way:
                    return
                looks, seconds = under_way.popleft().result()
                length = min(2 * length, LARGEST_CHUNK) if seconds < QUICK_S else length
                yield looks
        finally:
            for future in under_way:
                future.cancel()


def _look_at_chunk(given: Path, chunk: Sequence[str]) -> tuple[list[Look], float]:
    """Looks at files, and the seconds they took."""
    start = time.perf_counter()
    source, cache = _unpacked(given)
    with quiet_pillow():
        looks = [look for few in batches(chunk, IN_A_PROCESS) for look in look_at(source, few, cache)]
    return looks, time.perf_counter() - start


@lru_cache(maxsize=1)
def _unpacked(given: Path) -> tuple[Source, FactsCache | None]:
    unpacked: tuple[Source, FactsCache | None] = pickle.loads(given.read_bytes())
    return unpacked
