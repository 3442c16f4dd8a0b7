"""Every error that is not a bug, as one tree.

    AutomlTlError
    ├── DataError              the images cannot be used as they are          exit 3
    │   ├── SourceNotFoundError
    │   ├── BrokenSourceError  a manifest, archive or table is malformed
    │   ├── LayoutError        classes and splits cannot be told apart
    │   ├── NoImagesError
    │   ├── TooFewImagesError
    │   ├── UndecodableError   the bytes are not a usable image
    │   └── ImageValueError    a value in memory is no image (also a ValueError)
    ├── PlanError              the plan or a constraint cannot be satisfied   exit 4
    │   ├── PlanFileError
    │   └── UnsatisfiableConstraintsError
    ├── PluginError            a backbone or strategy is unknown or broken     exit 5
    │   ├── UnknownBackboneError
    │   ├── UnknownStrategyError
    │   ├── PluginFailedError
    │   ├── MissingExtraError
    │   └── WeightsError
    │       └── UnavailableWeightsError
    ├── ModelError             a saved model cannot be used                   exit 9
    │   └── DisagreementError
    ├── ResourceError          a full disk, a limit, a missing permission      exit 10
    ├── ExecutorError          an executor is unknown, unreachable or fails    exit 10
    ├── TrackerError           an experiment tracker cannot start              exit 2
    ├── TrainingError          training ended without a model                  exit 11
    └── Interrupted            Ctrl-C                                          exit 130

The registry has its own tree (``automl_tl_registry.errors``, exit codes 2 and 6 to 10). Every message says what was found,
what was expected and what to do; the facts are attributes. This module imports only the standard library.
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
    "ExecutorError",
    "ImageValueError",
    "Interrupted",
    "LayoutError",
    "MissingExtraError",
    "ModelError",
    "NoImagesError",
    "PlanError",
    "PlanFileError",
    "PluginError",
    "PluginFailedError",
    "ResourceError",
    "SourceNotFoundError",
    "TooFewImagesError",
    "TrackerError",
    "TrainingError",
    "UnavailableWeightsError",
    "UndecodableError",
    "UnknownBackboneError",
    "UnknownStrategyError",
    "UnsatisfiableConstraintsError",
    "WeightsError",
    "near_name",
]


def near_name(name: str, known: Collection[str], otherwise: str) -> str:
    """Return a sentence that suggests the most similar name, or ``otherwise`` if none is similar.

    Args:
        name: the unknown name.
        known: the known names.
        otherwise: the sentence to use without a suggestion.
    """
    near = get_close_matches(name, known, n=1)
    return f"Did you mean {near[0]!r}?" if near else otherwise


class AutomlTlError(Exception):
    """Root of the tree; ``exit_code`` is the exit code of ``tl``."""

    exit_code: ClassVar[int] = 1


class DataError(AutomlTlError):
    """The images cannot be used as they are."""

    exit_code = 3


class SourceNotFoundError(DataError):
    """The source does not exist or cannot be read."""

    def __init__(self, path: Path | str, expected: str = "a folder with one folder of images per class") -> None:
        self.path = path
        super().__init__(f"{path} does not exist or cannot be read. Expected {expected}.")


class BrokenSourceError(DataError):
    """A manifest, archive or table is malformed."""

    def __init__(self, path: Path | str, problem: str, expected: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(f"{path}: {problem}. Expected {expected}.")


class LayoutError(DataError):
    """Folders whose classes and splits cannot be told apart; nothing is guessed."""

    def __init__(self, path: Path | str, found: str, expected: str, advice: str) -> None:
        self.path, self.found = path, found
        super().__init__(f"{path}: {found}. Expected {expected}. {advice}.")


class NoImagesError(DataError):
    """A source without a usable image."""

    def __init__(self, path: Path | str, found: str) -> None:
        self.path, self.found = path, found
        super().__init__(
            f"{path} has no usable image in a class folder (found: {found}). "
            f"Expected {path}/<class>/<image>, or {path}/train/<class>/<image>."
        )


class TooFewImagesError(DataError):
    """Too few classes, or classes with too few images, to train and evaluate."""

    def __init__(self, problem: str, counts: Mapping[str, int], expected: str) -> None:
        self.counts = dict(counts)
        listed = ", ".join(f"{name}: {number}" for name, number in list(self.counts.items())[:8])
        super().__init__(f"{problem} (found {listed}). {expected}")


class UndecodableError(DataError):
    """Bytes that cannot be decoded; ``reason`` is a stable code such as ``truncated``, ``detail`` says what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(f"{reason.replace('_', ' ')}: {detail}")


class ImageValueError(DataError, ValueError):
    """A value that a Python program gives as an image and that is none."""

    def __init__(self, found: str, expected: str) -> None:
        self.found, self.expected = found, expected
        super().__init__(f"Found {found} instead of an image. Expected {expected}.")


class PlanError(AutomlTlError):
    """The plan, or a constraint on it, cannot be satisfied."""

    exit_code = 4


class PlanFileError(PlanError):
    """A plan file that cannot be read."""

    def __init__(self, path: Path | str, problem: str) -> None:
        self.path, self.problem = path, problem
        super().__init__(
            f"{path} is not a plan this version can run: {problem}. Write one with `tl auto plan IMAGES --json > plan.json`."
        )


class UnsatisfiableConstraintsError(PlanError):
    """No candidate satisfies every constraint; ``nearest`` names what comes closest."""

    def __init__(self, constraint: str, nearest: str) -> None:
        self.constraint, self.nearest = constraint, nearest
        super().__init__(f"No candidate satisfies {constraint}. {nearest}")


class PluginError(AutomlTlError):
    """A backbone or strategy is unknown, broken or unavailable."""

    exit_code = 5


class UnknownBackboneError(PluginError):
    """No installed plugin provides the backbone."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        self.name, self.known = name, tuple(known)
        hint = near_name(name, known, "`tl plugins backbones` lists the installed backbones.")
        super().__init__(f"No installed plugin provides backbone {name!r}. {hint}")


class UnknownStrategyError(PluginError):
    """No installed plugin provides the strategy."""

    def __init__(self, name: str, known: Collection[str]) -> None:
        self.name, self.known = name, tuple(known)
        hint = near_name(name, known, "`tl plugins list` shows what is installed.")
        super().__init__(f"No installed plugin provides strategy {name!r}. {hint}")


class PluginFailedError(PluginError):
    """A plugin raised an exception or returned something that the contract does not allow."""

    def __init__(self, *, plugin: str, distribution: str, entry_point: str, description: str, problem: str) -> None:
        self.plugin, self.distribution, self.entry_point = plugin, distribution, entry_point
        self.description, self.problem = description, problem
        super().__init__(
            f"The plugin {plugin!r} (distribution {distribution}, entry point {entry_point}) failed while {description}: "
            f"{problem}. Disable it with TL_DISABLE_PLUGINS={plugin}, or report it to its authors."
        )


class MissingExtraError(PluginError):
    """A plugin whose optional dependency is not installed; its entry point raises this."""

    def __init__(self, package: str, install: str) -> None:
        self.package, self.install = package, install
        super().__init__(f"needs {package}, which is not installed: {install}")


class WeightsError(PluginError):
    """A backbone's weights are unavailable or do not fit."""


class UnavailableWeightsError(WeightsError):
    """Pretrained weights that are a file in a cache, or else a download, and can't be had."""

    def __init__(self, backbone: str, path: Path, url: str, error: Exception) -> None:
        self.backbone, self.path, self.url = backbone, path, url
        reason = f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no reason given'])[0][:200]}"
        if path.exists():
            text = (
                f"Cannot load the weights of {backbone} from {path} ({reason}). "
                "Delete the file to download it again, or pass --weights FILE, or --weights none."
            )
        else:
            text = (
                f"Cannot download the weights of {backbone} from {url} ({reason}), and they are not in {path}. "
                "Download them elsewhere and pass --weights FILE, or --weights none."
            )
        super().__init__(text)


class ModelError(AutomlTlError):
    """A saved model cannot be used."""

    exit_code = 9


class DisagreementError(ModelError):
    """The saved or exported model does not reproduce the reference predictions."""

    def __init__(self, what: str, difference: float, tolerance: float, *, then: str = "Nothing was published.") -> None:
        self.what, self.difference, self.tolerance = what, difference, tolerance
        super().__init__(
            f"{what} does not reproduce the reference predictions: the largest difference in probability is "
            f"{difference:.2e}; the tolerance is {tolerance:.0e}. {then}"
        )


class ResourceError(AutomlTlError):
    """The machine ends the work: a full disk, a limit, a missing permission. ``place`` is the file or folder, if known."""

    exit_code = 10

    def __init__(self, text: str, place: Path | None = None) -> None:
        self.place = place
        super().__init__(text)


class ExecutorError(AutomlTlError):
    """An executor is unknown, cannot be reached, or could not do a job."""

    exit_code = 10


class TrackerError(AutomlTlError):
    """An experiment tracker is unknown, or its package is not installed."""

    exit_code = 2


class TrainingError(AutomlTlError):
    """Training ended without a model."""

    exit_code = 11


class Interrupted(AutomlTlError):
    """The user pressed Ctrl-C."""

    exit_code = 130

    def __init__(self, kept: str) -> None:
        self.kept = kept
        super().__init__(f"Interrupted. {kept}")
