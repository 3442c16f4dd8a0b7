"""One thread for linear algebra, where many small problems would have threads wait for each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["one_blas_thread"]


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Hold numpy's and scipy's BLAS to one thread: two that wait for each other cost up to 20 times as much (DECISIONS 27)."""
    from sklearn import linear_model  # noqa: F401 - brings a BLAS of its own, which can be limited only once it is there
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # comes with scikit-learn

    with threadpool_limits(limits=1):
        yield
