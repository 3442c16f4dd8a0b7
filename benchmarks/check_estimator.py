"""scikit-learn's own checks of ``ImageClassifier``: as it is, and learning from the checks' tables drawn as images.

    python -m benchmarks.check_estimator > benchmarks/results/check_estimator.md

The second takes some minutes: each fit of the toy backbone also verifies its model in a new process.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_array
from sklearn.utils.estimator_checks import check_estimator

from automl_tl.sklearn import ImageClassifier
from tests.toy_plugin import TOY, toy_backbone

SIDE_PX = 32


class DrawnTables(ImageClassifier):
    """Learns from a table of numbers: each row is drawn as an image of bars, one per column."""

    def fit(self, X: Any, y: ArrayLike) -> DrawnTables:  # noqa: ANN401
        """See ``ImageClassifier``."""
        X = check_array(X, ensure_2d=True, estimator=self)
        self.n_features_in_ = X.shape[1]
        self.low_, self.high_ = X.min(axis=0), X.max(axis=0)
        super().fit(self._draw(X), y)
        return self

    def predict_proba(self, X: Any) -> NDArray[np.float64]:  # noqa: ANN401
        """See ``ImageClassifier``."""
        return super().predict_proba(self._draw(check_array(X, ensure_2d=True, estimator=self)))

    def _draw(self, table: NDArray[Any]) -> NDArray[np.uint8]:
        if table.shape[1] != self.n_features_in_:
            found = f"X has {table.shape[1]} features, but DrawnTables is expecting {self.n_features_in_} features as input"
            raise ValueError(found)
        scaled = (table - self.low_) / np.maximum(self.high_ - self.low_, 1e-9)
        bars = np.clip(255 * scaled, 0, 255).astype(np.uint8)[:, (np.arange(SIDE_PX) * table.shape[1]) // SIDE_PX]
        return np.repeat(bars[:, None, :], SIDE_PX, axis=1)


def rows_of(estimator: ImageClassifier) -> Iterator[str]:
    """A table row per check."""
    for result in check_estimator(estimator, on_fail=None, on_skip=None):
        reason = str(result["exception"] or "").strip().partition("\n")[0][:100].replace("|", "/")
        yield f"| {result['check_name']} | {result['status']} | {reason} |"


def main() -> None:
    """Print both tables as Markdown."""
    warnings.simplefilter("ignore")
    with TemporaryDirectory() as folder, toy_backbone(Path(folder)):
        for title, kind in (("ImageClassifier", ImageClassifier), ("ImageClassifier on drawn tables", DrawnTables)):
            rows = sorted(rows_of(kind(backbone=TOY, strategy="linear_probe", random_state=0)))
            counts = {status: sum(f"| {status} |" in row for row in rows) for status in ("passed", "failed", "skipped")}
            print(
                f"## {title}\n\n{counts}\n\n| check | result | reason |\n| --- | --- | --- |",
                *rows,
                sep="\n",
                end="\n\n",
                flush=True,
            )


if __name__ == "__main__":
    main()
