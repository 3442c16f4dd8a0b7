"""How a recipe does on the validation images, before anybody has to decide for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation import fit_temperature, softmax
from automl_tl.plugin_host import OfferedBackbone
from automl_tl.runtime.budget import OutOfTime, Stopwatch
from automl_tl.training.images import LabeledImages
from automl_tl.training.job import Job, calibrated_loss, new_run, solution_of, validation_scores
from automl_tl.training.trainer import train
from automl_tl.training.workspace import Workspace
from automl_tl.values import Part, Plan

__all__ = ["Trial", "trial"]


@dataclass(frozen=True)
class Trial:
    """What a recipe came to on the validation images, beside a probe of the same training images: probabilities ``(M, C)``.

    ``kept_share`` is how much of the recipe led to the kept epoch: so far the fit trains again on all images. Where the probe
    has the lower log-loss (``is_worse``) the fit would keep the probe, unless there is none or another head was asked for.
    """

    labels: NDArray[np.int64]
    trained: NDArray[np.float64]
    probe: NDArray[np.float64]
    kept_share: float
    is_worse: bool


def trial(
    plan: Plan,
    backbone: OfferedBackbone,
    classes: tuple[str, ...],
    images: Mapping[Part, LabeledImages],
    workspace: Workspace,
    *,
    epochs: int,
) -> Trial | None:
    """Carry out the first ``epochs`` epochs of ``plan``; ``fit`` and later trials go on from there. ``None``: no time for one.

    Raises:
        TrainingError: the loss is no number any more.
    """
    job = Job(plan, backbone, classes, images, workspace, Stopwatch())
    try:
        run, probe, _ = new_run(job, images["train"], job.validation(), plan.recipe)
        if probe is None:  # a recipe that starts from random weights is compared with the pretrained network all the same
            probe, _ = solution_of(job, job.new_encoder(pretrained=True), images["train"])
    except OutOfTime:
        return None
    except KeyboardInterrupt:
        workspace.deadline.end()
        return None
    state = train(replace(run, pause_after=epochs))
    if state.logits is None:
        return None
    labels = images["validation"].labels
    of_probe = validation_scores(job, probe)
    trained, at_start = (softmax(each, fit_temperature(each, labels)) for each in (state.logits, of_probe))
    is_worse = calibrated_loss(state.logits, labels) > calibrated_loss(of_probe, labels)
    return Trial(
        labels,
        trained,
        at_start,
        kept_share=state.kept_epoch / sum(phase.epochs for phase in plan.recipe.phases),
        is_worse=is_worse and plan.recipe.pretrained and not plan.constraints.hidden_dims,
    )
