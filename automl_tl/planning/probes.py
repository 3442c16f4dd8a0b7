"""A cross-validated linear probe per backbone, on cached features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.data.auditing.label_findings import suspect_labels
from automl_tl.evaluation import unit_length
from automl_tl.models.bundle import build_encoder
from automl_tl.planning.similarity import source_similarity
from automl_tl.plugin_host import LoadedBackbone
from automl_tl.training import LabeledImages, Workspace
from automl_tl.training.closed_form import Solver
from automl_tl.training.run import DEFAULT_SOLVER
from automl_tl.training.speed import Speed, TrainingSpeed, forward_speed, latency_ms, training_speed
from automl_tl.training.views import Prefix
from automl_tl.values import Constraints, SplitName

__all__ = ["Lab", "Probe"]

FEWEST_SAMPLED: Final = 500  # planner notes, section 7: or 50 of each class, whatever is more
SAMPLED_PER_CLASS: Final = 50
NEARLY_ALL: Final = 1.5  # times a sample: leaving so few out saves less than solving twice costs (decision 43)


@dataclass(frozen=True)
class Probe:
    """A linear probe of one backbone: log-probabilities ``(N, C)`` out of fold, with what was measured on the way.

    ``weights`` ``(N,)`` say how many images each stands for: of a sample that has as many of each class, those of frequent
    classes count for more.
    """

    backbone: LoadedBackbone
    num_blocks: int
    size_mib: float  # of encoder and head
    speed: Speed
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    features: NDArray[np.float32]
    log_probabilities: NDArray[np.float64]
    similarity: float | None
    is_kept: bool = True  # its features are in the cache

    @property
    def name(self) -> str:
        """Of the backbone."""
        return self.backbone.card.name

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """``(N, C)``, out of fold."""
        result: NDArray[np.float64] = np.exp(self.log_probabilities)
        return result

    @property
    def accuracy(self) -> float:
        """Out of fold, 0 to 1."""
        return float(np.average(self.log_probabilities.argmax(axis=1) == self.labels, weights=self.weights))

    @property
    def label_noise(self) -> float:
        """Share of labels, 0 to 1, that confident learning suspects."""
        return len(suspect_labels(self.labels, self.probabilities)) / len(self.labels)


@dataclass(frozen=True)
class Lab:
    """What planning measures with: the images of each part, the classes, and where to work. Test images stay unseen."""

    images: Mapping[SplitName, LabeledImages]
    classes: tuple[str, ...]
    workspace: Workspace
    constraints: Constraints
    _training_speeds: dict[str, TrainingSpeed] = field(default_factory=dict)

    @property
    def learning(self) -> LabeledImages:
        """Training and validation images."""
        return self.images["train"] + self.images["validation"]

    def probe(self, backbone: LoadedBackbone, images: LabeledImages, solver: Solver = DEFAULT_SOLVER) -> Probe:
        """Probe ``backbone`` on ``images``. Features come from the cache, or go there.

        Raises:
            PluginFailedError: somebody's backbone doesn't work.
            WeightsError: its weights can't be had here.
        """
        with backbone.error_boundary("was probed"):
            network, encoder = self._network(backbone)
            preprocessing = backbone.card.preprocessing
            speed = forward_speed(
                encoder, preprocessing, images, cache_dir=self.workspace.cache_dir, progress=self.workspace.progress
            )
            features = Prefix(encoder, preprocessing, self.workspace.cache, gives_features=True).plain(images).all()
            solution = self.workspace.solve(
                features, images, solver=solver, num_classes=len(self.classes), seed=self.constraints.seed
            )
            return Probe(
                backbone=backbone,
                num_blocks=len(encoder),
                size_mib=_size_mib(encoder, backbone.card.feature_dim * len(self.classes)),
                speed=speed,
                labels=images.labels,
                weights=self.weights(images),
                features=features,
                log_probabilities=solution.out_of_fold,
                similarity=None if network is None else _similarity(backbone.classifier(network), features),
            )

    def together(self, backbone: LoadedBackbone, members: Sequence[Probe], images: LabeledImages) -> Probe:
        """Probe ``backbone``, which is ``members`` side by side, on their features; its own differ a little, by scaling."""
        features = np.concatenate([unit_length(member.features) for member in members], axis=1)
        solution = self.workspace.solve(
            features, images, solver=DEFAULT_SOLVER, num_classes=len(self.classes), seed=self.constraints.seed
        )
        speeds = [member.speed for member in members]
        return Probe(
            backbone=backbone,
            num_blocks=1,
            size_mib=sum(member.size_mib for member in members),
            speed=Speed(
                load_s=max(speed.load_s for speed in speeds),
                forward_s=sum(speed.forward_s for speed in speeds),
                latency_ms=sum(speed.latency_ms for speed in speeds),
            ),
            labels=images.labels,
            weights=self.weights(images),
            features=features,
            log_probabilities=solution.out_of_fold,
            similarity=None,
            is_kept=False,
        )

    def training_speed(self, backbone: LoadedBackbone) -> TrainingSpeed:
        """How fast ``backbone`` trains here.

        Raises:
            PluginFailedError: somebody's backbone can't be trained.
        """
        name = backbone.card.name
        if name not in self._training_speeds:
            with backbone.error_boundary("was trained for a step"):
                _, encoder = self._network(backbone)
                speed = training_speed(encoder, backbone.card.preprocessing, cache_dir=self.workspace.cache_dir)
            self._training_speeds[name] = speed
        return self._training_speeds[name]

    def latency_ms(self, backbone: LoadedBackbone) -> float:
        """Milliseconds per image alone; random weights tell that as well."""
        with backbone.error_boundary("was timed"):
            encoder = nn.Sequential(*backbone.cut(backbone.build(pretrained=False))).eval()
            return latency_ms(encoder, backbone.card.preprocessing)

    def sample(self) -> LabeledImages:
        """The images to learn from, or of many the same number of each class as far as there are."""
        images = self.learning
        if len(images) <= NEARLY_ALL * max(FEWEST_SAMPLED, SAMPLED_PER_CLASS * len(self.classes)):
            return images
        per_class = max(SAMPLED_PER_CLASS, FEWEST_SAMPLED // len(self.classes))
        return images.at(np.flatnonzero(images.places_in_class < per_class))

    def weights(self, images: LabeledImages) -> NDArray[np.float64]:
        """How many images to learn from each of ``images`` stands for, by its class."""
        there, taken = (np.bincount(each.labels, minlength=len(self.classes)) for each in (self.learning, images))
        result: NDArray[np.float64] = there[images.labels] / taken[images.labels]
        return result

    def _network(self, backbone: LoadedBackbone) -> tuple[nn.Module | None, nn.Sequential]:
        """The whole network with its encoder; ``None`` with weights of the user's, to which the classifier doesn't belong."""
        weights = self.constraints.weights
        if weights is not None:
            encoder = build_encoder(backbone, pretrained=True, weights_file=Path(weights), progress=self.workspace.progress)
            return None, encoder
        network = backbone.build(pretrained=True)
        return network, nn.Sequential(*backbone.cut(network)).eval()


def _size_mib(encoder: nn.Sequential, num_head_weights: int) -> float:
    num_bytes = sum(int(tensor.numel()) * int(tensor.element_size()) for tensor in encoder.state_dict().values())
    return (num_bytes + 4 * num_head_weights) / 2**20


@torch.inference_mode()
def _similarity(classifier: nn.Module | None, features: NDArray[np.float32]) -> float | None:
    if classifier is None:
        return None
    return round(source_similarity(classifier(torch.from_numpy(features)).float().numpy()), 4)
