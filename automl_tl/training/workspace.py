"""Where planning and training work: folders, caches, device, deadline, progress."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from automl_tl.models.engines import best_device
from automl_tl.runtime.budget import Deadline, OutOfTime
from automl_tl.runtime.progress import Progress
from automl_tl.training.activation_cache import ActivationCache
from automl_tl.training.budget import publishing_s
from automl_tl.training.closed_form import Solution, Solver, solve
from automl_tl.training.images import LabeledImages

__all__ = ["Workspace"]


@dataclass(frozen=True)
class Workspace:
    """Folders, deadline, progress and device of one command.

    Attributes:
        folder: temporary, of this command alone.
        cache_dir: shared by all commands.
        deadline: of the command.
        progress: where the command reports to.
        starting_s: seconds that importing torch took; ``None`` if it had been imported before.
        device: that training runs on.
    """

    folder: Path
    cache_dir: Path
    deadline: Deadline
    progress: Progress
    starting_s: float | None = None
    device: torch.device = field(default_factory=best_device)
    _solutions: dict[str, Solution] = field(default_factory=dict, repr=False)

    @property
    def cache(self) -> ActivationCache:
        """Cache of what pretrained weights compute; later fits use it again."""
        return ActivationCache(self.cache_dir, self.progress)

    @property
    def scratch(self) -> ActivationCache:
        """Cache of what this command's own weights compute; deleted with the folder."""
        return ActivationCache(self.folder, self.progress)

    def publishing_s(self, size_mib: float) -> float:
        """Seconds to register a trained model whose files have ``size_mib`` MiB."""
        return publishing_s(size_mib, self.starting_s)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Turn Ctrl-C into the end of the budget: the user gets what is finished.

        Raises:
            OutOfTime: the user pressed Ctrl-C.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.deadline.end()
            raise OutOfTime from None

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
        """Fit a closed-form head, or return the one that planning fitted on the same features.

        Args:
            features: ``(N, D)``.
            images: give labels and groups.
            solver: which head.
            num_classes: width of its logits.
            seed: of the folds.
            in_place: whether ``features`` may be overwritten.
        """
        key = hashlib.sha256(f"{solver} {num_classes} {seed} {features.shape}".encode())
        for array in (features, images.labels, images.groups):
            key.update(np.ascontiguousarray(array).data)
        if key.hexdigest() not in self._solutions:
            rows = features if in_place else features.copy()
            self._solutions[key.hexdigest()] = solve(
                rows, images.labels, images.groups, solver=solver, num_classes=num_classes, seed=seed
            )
        return self._solutions[key.hexdigest()]
