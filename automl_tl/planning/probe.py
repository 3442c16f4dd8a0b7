"""Evidence: a cross-validated linear probe per backbone and ensemble, and measured speeds.

``EvidenceCollector`` is the only part of planning that touches images and networks. Test images are never read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.contracts import Situation
from automl_tl.data.auditing.label_findings import suspect_labels
from automl_tl.errors import PluginError, WeightsError
from automl_tl.evaluation import softmax, unit_length
from automl_tl.models.bundle import build_encoder
from automl_tl.planning.cost import TIMING_S, TrainingCost, Workload, seconds_of_probe, time_short, training_cost
from automl_tl.planning.limits import reject_backbone
from automl_tl.plugin_host import Catalog, LoadedBackbone, ensemble
from automl_tl.runtime.budget import OutOfTime
from automl_tl.training import LabeledImages, Trial, Workspace, trial
from automl_tl.training.budget import solving_s
from automl_tl.training.closed_form import Solver
from automl_tl.training.run import DEFAULT_SOLVER
from automl_tl.training.speed import Speed, TrainingSpeed, forward_speed, latency_ms, training_speed
from automl_tl.training.views import Prefix
from automl_tl.values import BackboneCard, CandidateVerdict, Constraints, DatasetProfile, Plan, Recipe, SplitName

__all__ = [
    "EvidenceCollector",
    "Probe",
    "probe_backbones",
    "probe_ensembles",
    "source_similarity",
]

MIN_SAMPLED: Final = 500  # planner notes, section 7: or 50 of each class, whichever is more
SAMPLED_PER_CLASS: Final = 50
NEARLY_ALL: Final = 1.5  # times a sample: excluding so few images saves less than solving twice costs (decision 43)
PROBE_SHARE: Final = 0.2  # of the time left that the features of one more backbone may take (planner notes, section 7)
DEFAULT_BUDGET_S: Final = 120.0  # that PROBE_SHARE refers to without a budget
NUM_HEADS: Final = 2  # fitted per further backbone: alone, and in an ensemble
# Mean confidence of a classifier on ImageNet's own validation images; EfficientNet-Lite: about 0.7 (planner notes, section 2).
IMAGENET_CONFIDENCE: Final = 0.7


@dataclass(frozen=True)
class Probe:
    """A linear probe of one backbone, cross-validated.

    Attributes:
        backbone: that gave the features.
        num_blocks: of the encoder.
        size_mib: of encoder and head.
        speed: measured on this machine.
        labels: ``(N,)``.
        weights: ``(N,)``, number of images that each stands for: a sample has equally many images of each class.
        features: ``(N, D)``.
        log_probabilities: ``(N, C)``, out of fold.
        similarity: of the images to the pretraining data, 0 to 1; ``None``: unknown.
        is_cached: whether the features are in the cache.
    """

    backbone: LoadedBackbone
    num_blocks: int
    size_mib: float
    speed: Speed
    labels: NDArray[np.int64]
    weights: NDArray[np.float64]
    features: NDArray[np.float32]
    log_probabilities: NDArray[np.float64]
    similarity: float | None
    is_cached: bool = True

    @property
    def card(self) -> BackboneCard:
        """Card of the backbone."""
        return self.backbone.card

    @property
    def name(self) -> str:
        """Name of the backbone."""
        return self.backbone.card.name

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """Out-of-fold probabilities ``(N, C)``."""
        result: NDArray[np.float64] = np.exp(self.log_probabilities)
        return result

    @property
    def accuracy(self) -> float:
        """Out-of-fold accuracy, 0 to 1."""
        return float(np.average(self.log_probabilities.argmax(axis=1) == self.labels, weights=self.weights))

    @property
    def label_noise(self) -> float:
        """Share of labels, 0 to 1, that confident learning suspects to be wrong."""
        return len(suspect_labels(self.labels, self.probabilities)) / len(self.labels)


@dataclass
class EvidenceCollector:
    """Measures what a plan is based on; every method is repeatable and changes no decision by being called.

    Attributes:
        profile: of the dataset.
        images: of each split; test images are counted, never read.
        classes: names, in the order of the model's outputs.
        workspace: gives folders, caches, deadline and progress.
        constraints: of the user; give the seed and the weights file.
    """

    profile: DatasetProfile
    images: Mapping[SplitName, LabeledImages]
    classes: tuple[str, ...]
    workspace: Workspace
    constraints: Constraints
    _training_speeds: dict[str, TrainingSpeed] = field(default_factory=dict, repr=False)

    @property
    def learning(self) -> LabeledImages:
        """Training and validation images."""
        return self.images["train"] + self.images["validation"]

    @property
    def num_validation(self) -> int:
        """Number of validation images, which fine-tuning is evaluated on."""
        return len(self.images["validation"])

    @property
    def workload(self) -> Workload:
        """Numbers of images."""
        return Workload.of(self.profile, self.num_validation)

    @property
    def seconds_left(self) -> float:
        """Seconds left in the budget; infinite without one, 0 after Ctrl-C."""
        return self.workspace.deadline.left_s

    @contextmanager
    def interruptible(self, results: Sized) -> Iterator[None]:
        """Treat Ctrl-C as an exhausted budget: later stages go on with ``results``.

        Raises:
            KeyboardInterrupt: Ctrl-C while ``results`` was still empty.
        """
        try:
            with self.workspace.interruptible():
                yield
        except OutOfTime:
            if not results:
                raise KeyboardInterrupt from None

    def with_label_noise(self, label_noise: float) -> Self:
        """Return a copy whose profile holds the share of labels, 0 to 1, that look wrong."""
        return replace(self, profile=self.profile.model_copy(update={"label_noise": label_noise}))

    def situation(self, card: BackboneCard, num_blocks: int, probe: Probe | None = None) -> Situation:
        """Return what a strategy may know.

        Args:
            card: of the backbone.
            num_blocks: of its encoder.
            probe: adds the measured similarity and accuracy.
        """
        return Situation(
            num_images=self.profile.num_images,
            num_classes=self.profile.num_classes,
            min_images_per_class=self.profile.min_images_per_class,
            imbalance=self.profile.imbalance,
            num_blocks=num_blocks,
            feature_dim=card.feature_dim,
            image_side_px=card.preprocessing.side_px,
            similarity=None if probe is None else probe.similarity,
            probe_accuracy=None if probe is None else probe.accuracy,
        )

    def sample(self) -> LabeledImages:
        """Return the training and validation images; of many, equally many of each class as far as there are enough."""
        images = self.learning
        if len(images) <= NEARLY_ALL * max(MIN_SAMPLED, SAMPLED_PER_CLASS * len(self.classes)):
            return images
        per_class = max(SAMPLED_PER_CLASS, MIN_SAMPLED // len(self.classes))
        return images.at(np.flatnonzero(images.places_in_class < per_class))

    def weights(self, sample: LabeledImages) -> NDArray[np.float64]:
        """Return how many images each image ``(N,)`` of ``sample`` stands for: class frequency in all by that in the sample."""
        num_all, num_sampled = (np.bincount(each.labels, minlength=len(self.classes)) for each in (self.learning, sample))
        result: NDArray[np.float64] = num_all[sample.labels] / num_sampled[sample.labels]
        return result

    def probe(self, backbone: LoadedBackbone, images: LabeledImages | None = None, *, solver: Solver = DEFAULT_SOLVER) -> Probe:
        """Cross-validate a closed-form head on the backbone's features, which come from the cache or go there.

        Args:
            backbone: to probe.
            images: to probe on; absent: the sample.
            solver: of the head.

        Raises:
            PluginFailedError: a third-party backbone fails.
            WeightsError: the weights are not available on this machine.
        """
        images = self.sample() if images is None else images
        with backbone.error_boundary("was probed"):
            network, encoder = self._network(backbone)
            preprocessing = backbone.card.preprocessing
            speed = forward_speed(
                encoder, preprocessing, images, cache_dir=self.workspace.cache_dir, progress=self.workspace.progress
            )
            features = Prefix(encoder, preprocessing, self.workspace.cache, gives_features=True).plain(images).all()
            num_bytes = sum(int(tensor.numel()) * int(tensor.element_size()) for tensor in encoder.state_dict().values())
            return Probe(
                backbone=backbone,
                num_blocks=len(encoder),
                size_mib=(num_bytes + 4 * backbone.card.feature_dim * len(self.classes)) / 2**20,
                speed=speed,
                labels=images.labels,
                weights=self.weights(images),
                features=features,
                log_probabilities=self._out_of_fold(features, images, solver),
                similarity=None if network is None else _similarity(backbone.classifier(network), features),
            )

    def probe_ensemble(self, members: Sequence[Probe]) -> Probe:
        """Probe the concatenated features of ``members``, each of unit length. Costs add up, as the images pass all of them.

        Features of the real ensemble differ slightly: it scales one image for all members.
        """
        images, speeds = self.sample(), [member.speed for member in members]
        features = np.concatenate([unit_length(member.features) for member in members], axis=1)
        return Probe(
            backbone=ensemble([member.backbone for member in members]),
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
            log_probabilities=self._out_of_fold(features, images, DEFAULT_SOLVER),
            similarity=None,
            is_cached=False,
        )

    def _out_of_fold(self, features: NDArray[np.float32], images: LabeledImages, solver: Solver) -> NDArray[np.float64]:
        """Return log-probabilities ``(N, C)``; the workspace keeps the solution for the fit."""
        return self.workspace.solve(
            features, images, solver=solver, num_classes=len(self.classes), seed=self.constraints.seed
        ).out_of_fold

    def latency_ms(self, backbone: LoadedBackbone) -> float:
        """Measure the milliseconds for a single image, with random weights.

        Raises:
            PluginFailedError: a third-party backbone fails.
        """
        with backbone.error_boundary("was timed"):
            encoder = nn.Sequential(*backbone.cut(backbone.build(pretrained=False))).eval()
            return latency_ms(encoder, backbone.card.preprocessing)

    def training_speed(self, backbone: LoadedBackbone) -> TrainingSpeed:
        """Measure the training speed of ``backbone``, once.

        Raises:
            PluginFailedError: a third-party backbone cannot be trained.
        """
        name = backbone.card.name
        if name not in self._training_speeds:
            with backbone.error_boundary("was trained for a step"):
                _, encoder = self._network(backbone)
                speed = training_speed(encoder, backbone.card.preprocessing, cache_dir=self.workspace.cache_dir)
            self._training_speeds[name] = speed
        return self._training_speeds[name]

    def training_cost(self, probe: Probe, recipe: Recipe) -> TrainingCost:
        """Predict the seconds of a recipe on the backbone of ``probe``.

        Args:
            probe: gives the inference speed and the size of the model.
            recipe: to train.

        Raises:
            PluginFailedError: a third-party backbone cannot be trained.
        """
        return training_cost(
            recipe,
            probe.speed,
            self.training_speed(probe.backbone),
            self.workload,
            feature_dim=probe.card.feature_dim,
            publishing_s=self.workspace.publishing_s(probe.size_mib),
        )

    def trial(self, plan: Plan, backbone: LoadedBackbone, epochs: int) -> Trial | None:
        """Train the first ``epochs`` of ``plan`` and evaluate on the validation images; the fit resumes from there.

        Args:
            plan: gives the recipe.
            backbone: of the plan.
            epochs: over all phases.

        Returns:
            The results, or ``None`` if there was no time for one epoch.

        Raises:
            TrainingError: the loss is not finite, or one image does not fit in memory.
            PluginFailedError: a third-party backbone fails.
        """
        with backbone.error_boundary("was trained"):
            return trial(plan, backbone, self.classes, self.images, self.workspace, epochs=epochs)

    def _network(self, backbone: LoadedBackbone) -> tuple[nn.Module | None, nn.Sequential]:
        """Return the network and its encoder; no network with the user's weights, as its classifier does not fit them."""
        if self.constraints.weights is not None:
            file = Path(self.constraints.weights)
            return None, build_encoder(backbone, pretrained=True, weights_file=file, progress=self.workspace.progress)
        network = backbone.build(pretrained=True)
        return network, nn.Sequential(*backbone.cut(network)).eval()


@torch.inference_mode()
def _similarity(classifier: nn.Module | None, features: NDArray[np.float32]) -> float | None:
    if classifier is None:
        return None
    return round(source_similarity(classifier(torch.from_numpy(features)).float().numpy()), 4)


def source_similarity(logits: NDArray[np.floating]) -> float:
    """Return the similarity, 0 to 1, of images to the pretraining data, from logits ``(N, Z)`` of the pretrained classifier.

    Mean confidence (maximum softmax probability) relative to that on ImageNet: Hendrycks and Gimpel, arXiv 1610.02136.
    """
    return float(min(1.0, softmax(logits).max(axis=1).mean() / IMAGENET_CONFIDENCE))


# ------------------------------------------------------------------------------------------------------------- stages


def probe_backbones(
    cards: Sequence[BackboneCard],
    catalog: Catalog,
    evidence: EvidenceCollector,
    min_training_s: Callable[[Probe], float | None],
) -> tuple[list[Probe], list[CandidateVerdict]]:
    """Probe each shortlisted backbone that the budget has time for.

    Args:
        cards: cheapest first; the first is always probed.
        catalog: gives the backbones.
        evidence: measures them.
        min_training_s: seconds that training the first backbone needs, kept free when probing others; ``None``: not worth it.

    Returns:
        The probes, and verdicts on backbones that fail or are too expensive.

    Raises:
        PluginError, WeightsError: a requested backbone fails.
    """
    probes: list[Probe] = []
    rejected: list[CandidateVerdict] = []
    training_s: float | None = None
    with evidence.interruptible(probes):
        for card in cards:
            if probes and (reason := _too_expensive(evidence, card, probes[0], training_s)):
                rejected.append(reject_backbone(card.name, reason))
                continue
            try:
                probes.append(evidence.probe(catalog.backbone(card.name)))
            except (PluginError, WeightsError) as error:
                if card.name in evidence.constraints.backbones:
                    raise
                rejected.append(reject_backbone(card.name, str(error)))
                evidence.workspace.progress.warn(f"{error} Planning without {card.name}.")
                continue
            if len(probes) == 1 < len(cards) and evidence.constraints.budget_s is not None:
                training_s = min_training_s(probes[0])
    return probes, rejected


def _too_expensive(evidence: EvidenceCollector, card: BackboneCard, first: Probe, training_s: float | None) -> str | None:
    """Return why a backbone is too expensive to probe, or ``None``."""
    budget_s, left_s, work = evidence.constraints.budget_s, evidence.seconds_left, evidence.workload
    num_sampled = len(first.labels)
    # 1) Seconds scale with multiply-accumulates. If these are unknown, assume equal cost: cards are sorted by cost.
    ratio = card.num_macs / first.card.num_macs if card.num_macs and first.card.num_macs else 1.0
    speed = first.speed.model_copy(update={"forward_s": first.speed.forward_s * ratio})
    # 2) Features of the sample: a fixed share of the time that is left.
    limit_s = PROBE_SHARE * min(left_s, budget_s or DEFAULT_BUDGET_S)
    features_s = num_sampled * max(speed.load_s, speed.forward_s)
    if features_s > limit_s and card.name not in evidence.constraints.backbones:
        return f"feature extraction would take about {features_s:.0f} s; the limit is {max(limit_s, 0):.0f} s"
    # 3) The probe, then publishing this backbone with a closed-form head.
    probe_s = TIMING_S + features_s + NUM_HEADS * solving_s(num_sampled, card.feature_dim, work.num_classes)
    publish_s = seconds_of_probe(
        speed,
        work,
        feature_dim=card.feature_dim,
        num_cached=num_sampled,
        publishing_s=evidence.workspace.publishing_s(card.weights_mib or first.size_mib),
    )
    if probe_s + publish_s > left_s:
        return f"needs about {time_short(probe_s + publish_s, left_s)}"
    # 4) The probe, then training the first backbone.
    if training_s is not None and probe_s + training_s > left_s:
        return f"probing and then training needs {time_short(probe_s + training_s, left_s)}"
    return None


def probe_ensembles(catalog: Catalog, evidence: EvidenceCollector, probes: Sequence[Probe]) -> list[Probe]:
    """Probe ensembles of the best two backbones, the best three, and so on; none if the user listed backbones.

    Args:
        catalog: knows ensembles that failed before.
        evidence: measures them.
        probes: of single backbones, cheapest first.
    """
    if evidence.constraints.backbones:
        return []
    ranked = sorted(probes, key=lambda probe: -probe.accuracy)
    ensembles = []
    for count in range(2, len(ranked) + 1):
        members = [probe for probe in probes if any(probe is each for each in ranked[:count])]  # the cheapest first
        if not catalog.leaves_out(ensemble([member.backbone for member in members]).card.name):
            ensembles.append(evidence.probe_ensemble(members))
    return ensembles
