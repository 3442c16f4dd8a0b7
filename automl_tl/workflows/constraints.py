"""Constraints of a plan as keyword arguments with the names and the forms of the options of ``tl auto fit``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypedDict

from automl_tl.runtime.quantities import duration_s, hidden_dims, latency_ms, size_mib
from automl_tl.values import Constraints, Metric


class ConstraintOptions(TypedDict, total=False):
    """Options that ``fit`` and ``plan`` take besides their own; each one absent or ``None``: the planner decides.

    Attributes:
        backbone: one or several backbones to consider.
        strategy: one or several strategies to consider.
        option: options of the strategy, if there is one.
        weights: file with the weights of the backbone, if there is one; ``"none"`` for random weights.
        head: ``"linear"`` or ``"mlp:4096,4096"``.
        budget: wall-clock limit, such as ``"5m"``, or in seconds.
        max_latency: of one image on this machine, such as ``"20ms"``, or in milliseconds.
        max_size: of the weights, such as ``"20MB"``, or in MiB.
        license: use only weights with a permissive license.
        optimize: what to favor between candidates of similar accuracy.
        metric: that models are chosen by, and that is read first; absent: accuracy.
        class_weights: how much an image of each class counts: ``"balanced"`` (all classes alike), ``"sqrt"`` (the square
            roots of these weights), ``"none"``, or a weight by class, 1 for others; absent: follows from the metric.
        download: recommended backbones may be downloaded, within the budget; absent: whether ``TL_DOWNLOAD`` is 1.
        seed: of the split, the folds and the training.
        group_by: images that stay in one split: ``order``, ``folder``, a regular expression on the path, a column of the
            table, or ``none``; absent: as in the last fit, else by order where it predicts similarity.
        processes: number of processes that train together; absent: one per GPU where it saves time, else one.
    """

    backbone: str | Sequence[str] | None
    strategy: str | Sequence[str] | None
    option: Mapping[str, str | float | int | bool] | None
    weights: str | Path | None
    head: str | None
    budget: str | float | None
    max_latency: str | float | None
    max_size: str | float | None
    license: Literal["permissive"] | None
    optimize: Literal["accuracy", "balanced", "latency", "size"] | None
    metric: Metric | None
    class_weights: Literal["balanced", "sqrt", "none"] | Mapping[str, float] | None
    download: bool | None
    seed: int | None
    group_by: str | None
    processes: int | None


def names_of(names: str | Sequence[str]) -> tuple[str, ...]:
    """Return one or several names as a tuple."""
    return (names,) if isinstance(names, str) else tuple(names)


# option -> field of `Constraints`, and what turns the first into the second
_FIELDS: Final[dict[str, tuple[str, Callable[[Any], object]]]] = {
    "backbone": ("backbones", names_of),
    "strategy": ("strategies", names_of),
    "option": ("options", dict),
    "weights": ("weights", str),
    "head": ("hidden_dims", hidden_dims),
    "budget": ("budget_s", duration_s),
    "max_latency": ("max_latency_ms", latency_ms),
    "max_size": ("max_size_mib", size_mib),
    "license": ("license", str),
    "optimize": ("optimize", str),
    "metric": ("metric", str),
    "class_weights": ("class_weights", lambda weights: weights if isinstance(weights, str) else dict(weights)),
    "download": ("download", bool),
    "seed": ("seed", int),
    "group_by": ("group_by", str),
    "processes": ("processes", int),
}


def make_constraints(constraints: Constraints | None, options: ConstraintOptions) -> Constraints:
    """Return ``constraints`` changed by ``options``.

    Args:
        constraints: by default none.
        options: by name, as on the command line.

    Raises:
        TypeError: there is no such option.
        ValueError: a value cannot be used.
    """
    if unknown := options.keys() - _FIELDS.keys():
        raise TypeError(f"unexpected keyword argument {', '.join(sorted(unknown))}; the options are {', '.join(_FIELDS)}")
    is_downloading = os.environ.get("TL_DOWNLOAD", "").lower() in ("1", "true", "yes", "on")
    fields: dict[str, object] = constraints.model_dump() if constraints else {"download": is_downloading}
    for name, value in options.items():
        if value is not None:
            field, parse = _FIELDS[name]
            fields[field] = parse(value)
    return Constraints.model_validate(fields)
