"""Everything that can go wrong and is not our bug, as one tree.

    AutomlTlError
    ├── DataError              the images can't be used as they are            exit 3
    │   ├── SourceNotFoundError
    │   ├── BrokenSourceError     a manifest, archive or table is not as it must be
    │   ├── NoImagesError
    │   ├── TooFewImagesError
    │   └── UndecodableError   these bytes are no usable image
    ├── PlanError              the plan or a wish can't be carried out         exit 4
    │   ├── PlanFileError
    │   └── UnsatisfiableConstraintsError
    ├── PluginError            a backbone or strategy is unknown or broken     exit 5
    │   ├── UnknownBackboneError
    │   ├── UnknownStrategyError
    │   ├── PluginFailedError
    │   └── WeightsError
    ├── ModelError             a saved model can't be used                     exit 9
    │   └── DisagreementError
    ├── TrainingError          training ended without a model                  exit 11
    └── Interrupted            Ctrl-C                                          exit 130

The registry has a tree of its own (``automl_tl_registry.errors``, exits 2 and 6 to 10). Every text says what was found, what
was expected and what to do; the facts are attributes. Nothing here may import anything but the standard library.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

__all__ = [
    "AutomlTlError",
    "BrokenSourceError",
    "DataError",
    "DisagreementError",
    "Interrupted",
    "ModelError",
    "NoImagesError",
    "PlanError",
    "PlanFileError",
    "PluginError",
    "PluginFailedError",
    "SourceNotFoundError",
    "TooFewImagesError",
    "TrainingError",
    "UndecodableError",
    "UnknownBackboneError",
    "UnknownStrategyError",
    "UnsatisfiableConstraintsError",
    "WeightsError",
    "near_name",
]


def near_name(name: str, offered: Collection[str], otherwise: str) -> str:
    """A sentence that names the most similar of ``offered``, or ``otherwise`` when none is near."""
    near = get_close_matches(name, offered, n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


class AutomlTlError(Exception):
    """Root of the tree; ``exit_code`` is what ``tl`` ends with."""

    exit_code: ClassVar[int] = 1


class DataError(AutomlTlError):
    """The images can't be used as they are."""

    exit_code = 3


class SourceNotFoundError(DataError):
    """Nothing is at the given place, or nothing that we can read."""

    def __init__(self, path: Path | str, expected: str = "a folder with one folder of images per class") -> None:
        self.path = path
        super().__init__(f"{path} was not found or can't be read. Expected {expected}.")


class BrokenSourceError(DataError):
    """A manifest, archive or table that can't be read as what it seems to be."""

    def __init__(self, path: Path | str, problem: str, expected: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}. Expected {expected}.")


class NoImagesError(DataError):
    """A source without one usable image."""

    def __init__(self, path: Path | str, found: str) -> None:
        self.path, self.found = path, found
        super().__init__(
            f"{path} holds no usable image in a class folder (found: {found}). "
            f"Expected {path}/<class>/<image>, or {path}/train/<class>/<image>."
        )


class TooFewImagesError(DataError):
    """Too few classes, or classes with too few images, to learn and to measure."""

    def __init__(self, problem: str, counts: Mapping[str, int], expected: str) -> None:
        self.counts = dict(counts)
        listed = ", ".join(f"{name}: {number}" for name, number in list(self.counts.items())[:8])
        super().__init__(f"{problem} (found {listed}). {expected}")


class UndecodableError(DataError):
    """Bytes that can't be made a picture; ``reason`` is a stable word such as truncated, ``detail`` says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason.replace('_', ' ')}: {detail}")


class PlanError(AutomlTlError):
    """The plan, or a wish for it, can't be carried out."""

    exit_code = 4


class PlanFileError(PlanError):
    """A plan file that can't be read back."""

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path} is no plan that this version can carry out: {problem}. "
            "Write one with `tl auto plan IMAGES --json > plan.json`."
        )


class UnsatisfiableConstraintsError(PlanError):
    """No candidate satisfies every wish; ``nearest`` names what comes closest."""

    def __init__(self, wish: str, nearest: str) -> None:
        self.wish, self.nearest = wish, nearest
        super().__init__(f"No candidate satisfies {wish}. {nearest}")


class PluginError(AutomlTlError):
    """A backbone or strategy is unknown, broken or can't be had."""

    exit_code = 5


class UnknownBackboneError(PluginError):
    """No installed plugin offers the backbone."""

    def __init__(self, name: str, offered: Collection[str]) -> None:
        self.name, self.offered = name, tuple(offered)
        hint = near_name(name, offered, "`tl plugins backbones` lists those that are installed.")
        super().__init__(f"No installed plugin offers the backbone {name!r}. {hint}")


class UnknownStrategyError(PluginError):
    """No installed plugin offers the strategy."""

    def __init__(self, name: str, offered: Collection[str]) -> None:
        self.name, self.offered = name, tuple(offered)
        hint = near_name(name, offered, "`tl plugins list` shows what is installed.")
        super().__init__(f"No installed plugin offers the strategy {name!r}. {hint}")


class PluginFailedError(PluginError):
    """A plugin's own code raised or gave back something that the contract doesn't allow."""

    def __init__(self, *, plugin: str, distribution: str, entry_point: str, description: str, problem: str) -> None:
        self.plugin, self.distribution, self.entry_point = plugin, distribution, entry_point
        self.description, self.problem = description, problem
        super().__init__(
            f"The plugin {plugin!r} (distribution {distribution}, entry point {entry_point}) failed while {description}: "
            f"{problem}. Leave it out with TL_DISABLE_PLUGINS={plugin}, or tell its authors."
        )


class WeightsError(PluginError):
    """A backbone's weights can't be had or don't fit."""


class ModelError(AutomlTlError):
    """A saved model can't be used."""

    exit_code = 9


class DisagreementError(ModelError):
    """The saved or exported model doesn't predict what the trained one predicted."""

    def __init__(self, what: str, difference: float, tolerance: float, *, then: str = "Nothing was published.") -> None:
        self.what, self.difference, self.tolerance = what, difference, tolerance
        super().__init__(
            f"{what} disagrees with the trained model on the reference images: the largest difference in probability is "
            f"{difference:.2e}, allowed are {tolerance:.0e}. {then}"
        )


class TrainingError(AutomlTlError):
    """Training ended without a model."""

    exit_code = 11


class Interrupted(AutomlTlError):
    """The user pressed Ctrl-C."""

    exit_code = 130

    def __init__(self, kept: str) -> None:
        self.kept = kept
        super().__init__(f"Interrupted. {kept}")
