"""Looks at many files at once: in threads when they are few, in processes when they are many.

Decoding a large photograph happens outside the interpreter lock, so threads are enough; of a small picture most of the
work is Python, and only processes use all cores. They cost a second to start, hence the limit.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from automl_tl.data.decoding import quiet_pillow
from automl_tl.data.facts_cache import FactsCache
from automl_tl.data.looking import Look, look_at
from automl_tl.data.sources.source import Source
from automl_tl.story import Advance

__all__ = ["look_at_all"]

PROCESSES_FROM: Final = 2000  # images
CHUNK: Final = 64
IN_A_THREAD: Final = 4  # images that are looked at together: small ones cost a fifth less
IN_A_PROCESS: Final = 32


def look_at_all(
    source: Source, paths: Sequence[str], cache: FactsCache | None, num_workers: int, advance: Advance
) -> Iterator[Look]:
    """One look per path, in order; at most a few chunks are under way at any time."""
    chunks = _cut(paths, CHUNK)
    in_processes = num_workers > 1 and len(paths) >= PROCESSES_FROM
    looks = (
        _in_processes(source, chunks, cache, num_workers) if in_processes else _in_threads(source, chunks, cache, num_workers)
    )
    for chunk in looks:
        advance(len(chunk))
        yield from chunk


def _in_threads(
    source: Source, chunks: Sequence[Sequence[str]], cache: FactsCache | None, num_workers: int
) -> Iterator[list[Look]]:
    with ThreadPoolExecutor(max_workers=num_workers, thread_name_prefix="scan") as pool:
        for chunk in chunks:
            yield list(chain.from_iterable(pool.map(lambda few: look_at(source, few, cache), _cut(chunk, IN_A_THREAD))))


def _in_processes(
    source: Source, chunks: Sequence[Sequence[str]], cache: FactsCache | None, num_workers: int
) -> Iterator[list[Look]]:
    # joblib's processes, unlike those of the standard library, never run the user's script again and leave threads alone.
    from joblib import Parallel, delayed

    with TemporaryDirectory(prefix="automl_tl_scan_") as folder:
        given = Path(folder) / "source"
        given.write_bytes(pickle.dumps((source, cache)))  # once, instead of with every chunk
        workers = Parallel(n_jobs=num_workers, backend="loky", return_as="generator", pre_dispatch=3 * num_workers)
        yield from workers(delayed(_look_at_chunk)(given, chunk) for chunk in chunks)


def _look_at_chunk(given: Path, chunk: Sequence[str]) -> list[Look]:
    source, cache = _unpacked(given)
    with quiet_pillow():
        return [look for few in _cut(chunk, IN_A_PROCESS) for look in look_at(source, few, cache)]


def _cut(paths: Sequence[str], number: int) -> list[Sequence[str]]:
    return [paths[start : start + number] for start in range(0, len(paths), number)]


@lru_cache(maxsize=1)
def _unpacked(given: Path) -> tuple[Source, FactsCache | None]:
    unpacked: tuple[Source, FactsCache | None] = pickle.loads(given.read_bytes())
    return unpacked
