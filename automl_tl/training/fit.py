"""Carry out a plan: from images to a model in files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.catalog import OfferedBackbone
from automl_tl.clock import Deadline, Stopwatch
from automl_tl.evaluation import fit_temperature, wilson
from automl_tl.inference.bundle import BundleFacts, Classifier, build_encoder, save_bundle
from automl_tl.inference.engines import EagerEngine
from automl_tl.inference.heads import HeadShape, SolvedHead
from automl_tl.story import Story
from automl_tl.training.activations import activations_of, blocks_digest
from automl_tl.training.images import LabelledImages
from automl_tl.training.solve import Solution, solve
from automl_tl.values import FitResult, Part, Plan

__all__ = ["Bench", "Fitted", "FrozenFeatures", "fit", "head_of"]


@dataclass(frozen=True)
class Bench:
    """Where a fit works: its folder, the caches, the deadline, and whom to tell."""

    folder: Path
    cache_dir: Path
    deadline: Deadline
    story: Story


@dataclass(frozen=True)
class Fitted:
    """A fitted model, in files (``result``) and in memory (``classifier``)."""

    result: FitResult
    classifier: Classifier
    features: FrozenFeatures

    def probabilities(self, images: LabelledImages) -> NDArray[np.float32]:
        """Calibrated probabilities ``(N, C)`` for ``images``."""
        features = torch.from_numpy(self.features.of(images))
        result: NDArray[np.float32] = self.classifier.probabilities(features).numpy()
        return result


class FrozenFeatures:
    """Features of an encoder that stays as it is, from the cache where it has them."""

    def __init__(self, encoder: nn.Module, plan: Plan, bench: Bench) -> None:
        self._encoder, self._preprocessing, self._bench = encoder, plan.preprocessing, bench
        self._key = blocks_digest(encoder)

    def of(self, images: LabelledImages) -> NDArray[np.float32]:
        """Features ``(N, D)`` of ``images``."""
        return activations_of(
            images,
            cache_dir=self._bench.cache_dir,
            key=self._key,
            preprocessing=self._preprocessing,
            engine=lambda: EagerEngine(self._encoder, self._preprocessing),
            story=self._bench.story,
        )


def fit(
    plan: Plan,
    backbone: OfferedBackbone,
    classes: tuple[str, ...],
    images: Mapping[Part, LabelledImages],
    bench: Bench,
) -> Fitted:
    """Fit ``plan`` on the training and validation images."""
    torch.manual_seed(plan.wishes.seed)
    watch = Stopwatch()
    encoder = build_encoder(backbone, pretrained=plan.recipe.pretrained)
    frozen = FrozenFeatures(encoder, plan, bench)
    learning = images["train"] + images["validation"]  # a solved head chooses by cross-validation: both may teach
    features = frozen.of(learning)
    watch.lap("features")
    assert plan.recipe.head.solver is not None
    solution = solve(
        features,
        learning.labels,
        learning.groups,
        solver=plan.recipe.head.solver,
        num_classes=len(classes),
        seed=plan.wishes.seed,
    )
    head = head_of(solution)
    watch.lap("head")
    facts = BundleFacts(
        classes=classes,
        preprocessing=plan.preprocessing,
        backbone=plan.backbone,
        backbone_from=f"{backbone.offer.distribution} {backbone.offer.version}",
        strategy=plan.strategy,
        head=head.shape,
        temperature=fit_temperature(solution.out_of_fold, learning.labels),
    )
    classifier = Classifier(encoder, head.eval(), facts)
    encoder_file, head_file, digest = save_bundle(bench.folder, classifier)
    watch.lap("saving")
    correct = int((solution.out_of_fold.argmax(axis=1) == learning.labels).sum())
    result = FitResult(
        encoder_file=encoder_file,
        head_file=head_file,
        model_digest=digest,
        classes=classes,
        backbone=plan.backbone,
        strategy=plan.strategy,
        recipe=plan.recipe,
        preprocessing=plan.preprocessing,
        temperature=facts.temperature,
        validation_accuracy=correct / len(learning),
        validation_interval=wilson(correct, len(learning)),
        seconds=watch.seconds,
        notes=solution.notes,
    )
    return Fitted(result, classifier, frozen)


def head_of(solution: Solution) -> SolvedHead:
    """The head that computes what ``solution`` says."""
    members, classes, width = solution.weight.shape
    head = SolvedHead(HeadShape(kind="solved", feature_dim=width, num_classes=classes, num_members=members))
    arrays = {
        "mean": solution.mean,
        "scale": np.asarray(solution.scale),
        "temperatures": solution.temperatures,
        "weight": solution.weight,
        "bias": solution.bias,
    }
    head.load_state_dict({name: torch.from_numpy(np.asarray(array, dtype=np.float32)) for name, array in arrays.items()})
    return head
