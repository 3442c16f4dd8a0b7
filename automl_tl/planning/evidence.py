"""Evidence: the profile of a dataset, a cross-validated linear probe per backbone or ensemble, and measured speeds.

``EvidenceCollector`` is the only part of planning that touches images and networks. Test images are never read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from automl_tl.contracts import Situation
from automl_tl.data.audit.label_issues import find_label_issues
from automl_tl.data.audit.order import grouping_of
from automl_tl.errors import PluginError
from automl_tl.evaluation import score, softmax, unit_length
from automl_tl.evaluation.scores import Score
from automl_tl.models.bundle import build_encoder
from automl_tl.models.engines import EagerEngine, latency_ms
from automl_tl.planning.cost import STARTUP_S, TrainingCost, Workload, cheaper_cost, cost_in_processes, training_cost
from automl_tl.plugin_host import LoadedBackbone
from automl_tl.plugin_host.ensemble import Ensemble
from automl_tl.plugin_host.levels import Parts, PooledLevels, multi_level, parts_of
from automl_tl.runtime.budget import OutOfTime
from automl_tl.runtime.paths import absolute
from automl_tl.training import LabeledImages, TrainingTask, Trial, Workspace, trial
from automl_tl.training.class_weights import class_weights
from automl_tl.training.closed_form import DEFAULT_SOLVER, Solver
from automl_tl.training.distributed import num_processes
from automl_tl.training.speed import Speed, TrainingSpeed, forward_speed, training_speed
from automl_tl.training.views import Origin, Prefix
from automl_tl.values import BackboneCard, Constraints, DataReport, DatasetProfile, ImageRecord, Metric, Plan, Recipe, SplitName

GRAY_MODES: Final = frozenset({"1", "L", "LA", "I", "I;16", "I;16B", "F"})  # of Pillow
MIN_SAMPLED: Final = 500  # decision 15: or 50 of each class, whichever is more
SAMPLED_PER_CLASS: Final = 50
NEARLY_ALL: Final = 1.5  # times a sample: excluding so few images saves less than solving twice costs (decision 43)
MAX_LEVELS_MIB: Final = 1024  # multi-level features of all images, in memory
# Mean confidence of a classifier on ImageNet's own validation images; EfficientNet-Lite: about 0.7 (decision 15).
IMAGENET_CONFIDENCE: Final = 0.7


def make_profile(splits: Mapping[SplitName, Sequence[ImageRecord]], report: DataReport) -> DatasetProfile:
    """Return a summary of the training and validation images, without opening any; of the test split only the number is used.

    Args:
        splits: records of each split.
        report: of the audit; gives groups and fingerprint.
    """
    learning = [*splits["train"], *splits["validation"]]
    counts = Counter(record.label for record in learning)
    num_grouped = sum(len(group) - 1 for group in report.groups)
    return DatasetProfile(
        num_images=len(learning),
        num_test_images=len(splits["test"]),
        num_classes=len(counts),
        images_per_class=dict(sorted(counts.items())),
        min_images_per_class=min(counts.values()),
        imbalance=max(counts.values()) / min(counts.values()),
        median_side_px=round(median(min(record.width_px, record.height_px) for record in learning)),
        max_side_px=max(max(record.width_px, record.height_px) for record in learning),
        gray_fraction=sum(record.mode in GRAY_MODES for record in learning) / len(learning),
        num_groups=sum(map(len, splits.values())) - num_grouped,
        num_duplicates=sum(excluded.reason == "copy" for excluded in report.left_out) + num_grouped,
        fingerprint=report.fingerprint,
        grouping=grouping_of(report.findings),
    )


@dataclass(frozen=True)
class Probe:
    """A linear probe of one backbone, cross-validated on N images."""

    backbone: LoadedBackbone
    num_blocks: int  # of the encoder
    size_mib: float  # of encoder and head
    speed: Speed  # measured on this machine
    labels: NDArray[np.int64]  # (N,)
    weights: NDArray[np.float64]  # (N,), images that each stands for: a sample has equally many images of each class
    features: NDArray[np.float32]  # (N, D)
    log_probabilities: NDArray[np.float64]  # (N, C), out of fold
    similarity: float | None  # of the images to the pretraining data, 0 to 1; None: unknown
    is_cached: bool = True  # whether the features are in the cache
    parts: Parts = ()  # of multi-level features
    metric: Metric = "accuracy"  # that probes are compared by

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
        return np.asarray(np.exp(self.log_probabilities))

    @property
    def score(self) -> Score:
        """Out-of-fold score of the metric, 0 to 1."""
        return score(self.metric, self.labels, self.probabilities, self.weights)

    @property
    def accuracy(self) -> float:
        """Out-of-fold accuracy, 0 to 1."""
        return float(np.average(self.log_probabilities.argmax(axis=1) == self.labels, weights=self.weights))

    @property
    def recalls(self) -> dict[int, tuple[int, int]]:
        """Images of each class that are found out of fold, and all of them."""
        is_found = self.log_probabilities.argmax(axis=1) == self.labels
        classes = np.unique(self.labels).tolist()
        return {label: (int(is_found[self.labels == label].sum()), int((self.labels == label).sum())) for label in classes}

    @property
    def balanced_accuracy(self) -> float:
        """Out-of-fold balanced accuracy, 0 to 1."""
        return float(np.mean([found / total for found, total in self.recalls.values()]))

    def expected_speed(self, card: BackboneCard) -> Speed:
        """Return the speed of another backbone: it scales with multiply-accumulates; if these are unknown, it is equal."""
        ratio, speed = card.num_macs / self.card.num_macs if card.num_macs and self.card.num_macs else 1.0, self.speed
        return speed.model_copy(update={"forward_s": speed.forward_s * ratio, "latency_ms": speed.latency_ms * ratio})

    @property
    def label_noise(self) -> float:
        """Share of labels, 0 to 1, that confident learning finds likely wrong."""
        return len(find_label_issues(self.labels, self.probabilities)) / len(self.labels)


@dataclass
class EvidenceCollector:
    """Measures what a plan is based on; every method is repeatable and changes no decision by being called."""

    profile: DatasetProfile
    images: Mapping[SplitName, LabeledImages]  # test images are counted, never read
    classes: tuple[str, ...]  # in the order of the model's outputs
    workspace: Workspace
    constraints: Constraints
    _training_speeds: dict[str, TrainingSpeed] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        """Reject weights of unknown classes before anything is measured."""
        class_weights(self.constraints, self.classes, self.learning.labels)

    @property
    def metric(self) -> Metric:
        """Metric that models are chosen by."""
        return self.constraints.metric or "accuracy"

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
        num_train = self.profile.num_images - self.num_validation
        return Workload(num_train, self.num_validation, self.profile.num_test_images, self.profile.num_classes)

    @property
    def seconds_left(self) -> float:
        """Seconds left in the budget; infinite without one, 0 after Ctrl-C."""
        return self.workspace.deadline.left_s

    @contextmanager
    def interruptible(self, results: Sized) -> Iterator[None]:
        """Treat Ctrl-C as an exhausted budget, so that later stages go on with ``results``, unless these are empty."""
        try:
            with self.workspace.deadline.interruptible():
                yield
        except OutOfTime:
            if not results:
                raise

    def situation(self, source: BackboneCard | Probe) -> Situation:
        """Return what a strategy may know of a backbone; a probe adds the measured similarity and accuracy."""
        probe, card = (source, source.card) if isinstance(source, Probe) else (None, source)
        return Situation(
            num_images=self.profile.num_images,
            num_classes=self.profile.num_classes,
            min_images_per_class=self.profile.min_images_per_class,
            imbalance=self.profile.imbalance,
            num_blocks=probe.num_blocks if probe else card.num_blocks or 1,
            feature_dim=card.feature_dim,
            image_side_px=card.preprocessing.side_px,
            similarity=probe.similarity if probe else None,
            probe_accuracy=probe.accuracy if probe else None,
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
        num_all, num_sampled = (np.bincount(images.labels, minlength=len(self.classes)) for images in (self.learning, sample))
        return np.asarray(num_all[sample.labels] / num_sampled[sample.labels])

    def probe(self, backbone: LoadedBackbone, *, solver: Solver = DEFAULT_SOLVER, levels: Probe | None = None) -> Probe:
        """Return a cross-validated probe of the backbone on the sample, whose features come from the cache or go there.

        Args:
            backbone: to probe.
            solver: of the head.
            levels: probe of the multi-level features of the same backbone, whose pass computed its own features as well.

        Raises:
            PluginFailedError: a third-party backbone fails.
            WeightsError: the weights are not available on this machine.
        """
        images, preprocessing, workspace = self.sample(), backbone.card.preprocessing, self.workspace
        with backbone.error_boundary("was probed"):
            network, encoder = self._network(backbone)
            weights = self.constraints.weights
            origin = Origin(backbone.card.name, None if weights is None else absolute(weights))
            prefix = Prefix(encoder, preprocessing, workspace.cache, gives_features=True, origin=origin)
            if levels is None:
                speed = forward_speed(prefix, self.learning)
            else:
                speed = levels.speed
                rows = replace(prefix, blocks=nn.Sequential(PooledLevels(encoder)), origin=None).plain(images).all()
                prefix.add(images, rows[:, -backbone.card.feature_dim :])
            features, parts = prefix.plain(images).all(), parts_of(encoder)
            workspace.cache.compiled.clear()  # heads need the 300 MiB of the network that was timed and extracted
            num_bytes = sum(int(tensor.numel()) * int(tensor.element_size()) for tensor in encoder.state_dict().values())
            return Probe(
                backbone=backbone,
                num_blocks=len(encoder),
                size_mib=(num_bytes + 4 * backbone.card.feature_dim * len(self.classes)) / 2**20,
                speed=speed,
                labels=images.labels,
                weights=self.weights(images),
                features=features,
                log_probabilities=self._out_of_fold(features, images, solver, parts),
                similarity=None if network is None else _similarity(backbone.classifier(network), features),
                parts=parts,
                metric=self.metric,
            )

    def probe_with_levels(self, backbone: LoadedBackbone) -> list[Probe]:
        """Return a probe of the backbone and, if its blocks can be pooled, one of its multi-level features, from one pass.

        Raises:
            PluginFailedError: a third-party backbone fails.
            WeightsError: the weights are not available on this machine.
        """
        try:
            levels = multi_level(backbone)
            num_mib = len(self.learning) * levels.card.feature_dim * 4 / 2**20
            if num_mib > MAX_LEVELS_MIB:
                raise PluginError(f"features of all images would take {num_mib:.0f} MiB; the limit is {MAX_LEVELS_MIB} MiB")
            level_probe = self.probe(levels)
        except PluginError as error:
            self.workspace.progress.info(f"planning without multi-level features of {backbone.card.name}: {error}")
            return [self.probe(backbone)]
        probe = self.probe(backbone, levels=level_probe)
        return [probe, replace(level_probe, similarity=probe.similarity)]

    def probe_ensemble(self, members: Sequence[Probe]) -> Probe:
        """Probe the concatenated features of ``members``, each of unit length. Costs add up, as the images pass all of them."""
        images, speeds = self.sample(), [member.speed for member in members]
        features = np.concatenate([unit_length(member.features) for member in members], axis=1)
        parts = tuple(sizes for member in members for sizes in member.parts) if all(member.parts for member in members) else ()
        return Probe(
            backbone=Ensemble([member.backbone for member in members]),
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
            log_probabilities=self._out_of_fold(features, images, DEFAULT_SOLVER, parts),
            similarity=None,
            is_cached=False,
            parts=parts,
            metric=self.metric,
        )

    def _out_of_fold(
        self, features: NDArray[np.float32], images: LabeledImages, solver: Solver, parts: Parts
    ) -> NDArray[np.float64]:
        """Return log-probabilities ``(N, C)``; the workspace keeps the solution for the fit."""
        return self.workspace.solve(
            features.copy(),
            images,
            solver=solver,
            num_classes=len(self.classes),
            seed=self.constraints.seed,
            parts=parts,
            class_weights=class_weights(self.constraints, self.classes, images.labels),
        ).out_of_fold

    def latency_ms(self, backbone: LoadedBackbone) -> float:
        """Measure the milliseconds for a single image, with random weights; 0.0 if it fails, which is reported later."""
        with suppress(PluginError), backbone.error_boundary("was timed"):
            encoder = nn.Sequential(*backbone.cut(backbone.build(pretrained=False))).eval()
            preprocessing = backbone.card.preprocessing
            return latency_ms(EagerEngine(encoder, preprocessing), preprocessing.side_px)
        return 0.0

    def training_speed(self, backbone: LoadedBackbone) -> TrainingSpeed:
        """Measure the training speed of ``backbone``, once."""
        name = backbone.card.name
        if name not in self._training_speeds:
            with backbone.error_boundary("was trained for a step"):
                _, encoder = self._network(backbone)
                speed = training_speed(encoder, backbone.card.preprocessing, cache_dir=self.workspace.cache_dir)
            self._training_speeds[name] = speed
        return self._training_speeds[name]

    def training_cost(self, probe: Probe, recipe: Recipe) -> TrainingCost:
        """Return the predicted seconds of ``recipe`` on the backbone of ``probe``, from the measured training speed.

        Args:
            probe: of the backbone.
            recipe: to train.
        """
        size_mib, device, requested = probe.size_mib, self.workspace.device, self.constraints.processes
        # 1) In one process.
        speed, publishing_s = self.training_speed(probe.backbone), self.workspace.publishing_s(size_mib)
        dim = probe.card.feature_dim
        cost = training_cost(recipe, probe.speed, speed, self.workload, feature_dim=dim, publishing_s=publishing_s)
        # 2) In several, if they are requested or there are several GPUs.
        processes = num_processes(requested, device)
        if processes == 1:
            return cost
        startup_s = self.workspace.deadline.startup_s or STARTUP_S
        shared = cost_in_processes(cost, recipe, self.workload, processes=processes, size_mib=size_mib, startup_s=startup_s)
        return shared if requested else cheaper_cost(cost, shared)

    def trial(self, plan: Plan, backbone: LoadedBackbone, epochs: int) -> Trial | None:
        """Return the trial of the first ``epochs`` of ``plan``, where the fit resumes; ``None`` without time for one epoch.

        Args:
            plan: whose recipe is trained.
            backbone: of the plan.
            epochs: number of epochs, over all phases.
        """
        with backbone.error_boundary("was trained"):
            return trial(self.task(plan, backbone), epochs=epochs)

    def task(self, plan: Plan, backbone: LoadedBackbone) -> TrainingTask:
        """Return what trains ``plan``.

        Args:
            plan: to train.
            backbone: of the plan.
        """
        return TrainingTask(plan, backbone, self.classes, self.images, self.workspace)

    def _network(self, backbone: LoadedBackbone) -> tuple[nn.Module | None, nn.Sequential]:
        """Return the network and its encoder; no network with the user's weights, as its classifier does not fit them."""
        if self.constraints.weights is not None:
            file = Path(self.constraints.weights)
            return None, build_encoder(backbone, pretrained=True, weights_file=file, progress=self.workspace.progress)
        network = backbone.build(pretrained=True)
        return network, backbone.blocks(network)


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
