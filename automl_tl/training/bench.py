"""Where a fit works."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from automl_tl.clock import Deadline
from automl_tl.story import Story
from automl_tl.training.activations import Cache

__all__ = ["Bench"]


@dataclass(frozen=True)
class Bench:
    """A folder of its own, the caches, the deadline, and whom to tell."""

    folder: Path
    cache_dir: Path
    deadline: Deadline
    story: Story

    @property
    def cache(self) -> Cache:
        """For what pretrained weights give: of use to later fits."""
        return Cache(self.cache_dir, self.story)

    @property
    def scratch(self) -> Cache:
        """For what this run's own weights give: gone with the run."""
        return Cache(self.folder, self.story)
