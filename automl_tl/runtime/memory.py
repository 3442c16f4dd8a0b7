"""Memory: what a training step frees is kept for the next step; how much was in use at most."""

from __future__ import annotations

import ctypes
import sys
from typing import Final

__all__ = ["keep_freed_memory", "peak_mib"]

# mallopt(3) of glibc
TRIM_THRESHOLD: Final = -1
MMAP_MAX: Final = -4
NEVER: Final = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell glibc not to give freed memory back to the kernel; says whether there is a glibc to tell.

    Activations are freed and asked for again in every step. By default each large one is a mapping of its own, which the kernel
    has to clear again every time: a third of the processor time of a step of EfficientNet-Lite0 (DECISIONS 26).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; None is no name on Windows
        return False
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, NEVER))


def peak_mib() -> int:
    """Most memory that this process has had at once, so far."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))  # getrusage(2): bytes there, KiB elsewhere
