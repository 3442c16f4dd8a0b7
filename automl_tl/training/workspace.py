"""Where a fit works."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.models.engines import best_device
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import Progress
from automl_tl.training.activations import Cache
from automl_tl.training.affordable import publishing_s
from automl_tl.training.images import LabeledImages
from automl_tl.training.solve import Solution, Solver, solve

__all__ = ["Workspace"]


@dataclass(frozen=True)
class Workspace:
    """A folder of its own, the caches, the deadline, whom to tell, and how long importing torch took, where that is known."""

    folder: Path
    cache_dir: Path
    deadline: Deadline
    progress: Progress
    starting_s: float | None = None
    device: torch.device = field(default_factory=best_device)  # that training runs on
    _solutions: dict[str, Solution] = field(default_factory=dict, repr=False)

    @property
    def cache(self) -> Cache:
        """For what pretrained weights give: of use to later fits."""
        return Cache(self.cache_dir, self.progress)

    @property
    def scratch(self) -> Cache:
        """For what this run's own weights give: gone with the run."""
        return Cache(self.folder, self.progress)

    def publishing_s(self, size_mib: float) -> float:
        """Seconds from the last weight to the registered version, for files of ``size_mib``."""
        return publishing_s(size_mib, self.starting_s)

    def solve(
        self,
        features: NDArray[np.float32],
        images: LabeledImages,
        *,
        solver: Solver,
        num_classes: int,
        seed: int,
        in_place: bool = False,
    ) -> Solution:
        """See ``solve``; the same question is answered once: planning asks it first, the fit of its choice again.

        ``features`` may be overwritten only where ``in_place`` says so.
        """
        key = hashlib.sha256(f"{solver} {num_classes} {seed} {features.shape}".encode())
        for array in (features, images.labels, images.groups):
            key.update(np.ascontiguousarray(array).data)
        if key.hexdigest() not in self._solutions:
            given = features if in_place else features.copy()
            self._solutions[key.hexdigest()] = solve(
                given, images.labels, images.groups, solver=solver, num_classes=num_classes, seed=seed
            )
        return self._solutions[key.hexdigest()]
