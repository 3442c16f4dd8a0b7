"""Explain a prediction: a heat map of the evidence, the probabilities, and the nearest training images.

The heat map is Grad-CAM (Selvaraju et al., ICCV 2017) at the last boundary between blocks that still has height and width.
A backbone that cannot be cut is probed by occlusion instead (Zeiler and Fergus, ECCV 2014). Either shows what
moved the score, not that the model is right.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from automl_tl import data
from automl_tl.errors import SourceNotFoundError, UndecodableError
from automl_tl.evaluation.ood import nearest
from automl_tl.evaluation.reference_features import ReferenceFeatures
from automl_tl.models.bundle import Classifier
from automl_tl.models.engines import Normalize
from automl_tl.models.features import load_pixels
from automl_tl.models.image_inputs import find_images
from automl_tl.runtime.formatting import percent
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.workflows.dataset import read_thumbnail
from automl_tl.workflows.model import open_model

__all__ = ["Explained", "Explanation", "Neighbor", "explain", "explain_image", "to_html", "to_picture"]

NUM_NEIGHBORS: Final = 4
NUM_TOP: Final = 5
NUM_PATCHES: Final = 7  # across and down, where blocks can't be had
# From dark to light in even steps of lightness, so that it reads in gray and for the color-blind (after matplotlib's inferno).
COLORS: Final = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float32)

MAGIC: Final = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg"}

Picture = Callable[[str], bytes | None]


@dataclass(frozen=True)
class Neighbor:
    """A training image and how far it is: cosine distance, 0 (the same) to 2."""

    path: str
    label: str
    distance: float


@dataclass(frozen=True)
class Explanation:
    """What can be shown of one prediction.

    Attributes:
        path: of the image.
        pixels: ``(S, S, 3)``, uint8, as the network saw it.
        heat: ``(S, S)``, float32, 0 to 1: where the evidence for ``label`` is.
        method: how ``heat`` came about.
        label: what the model says.
        top: the most probable classes, best first.
        neighbors: the nearest training images; empty if the model has no reference features.
        ood_score: above 1 the image is unlike anything in training; ``None`` without a reference.
    """

    path: str
    pixels: NDArray[np.uint8]
    heat: NDArray[np.float32]
    method: str
    label: str
    top: dict[str, float]
    neighbors: tuple[Neighbor, ...]
    ood_score: float | None


@dataclass(frozen=True)
class Explained:
    """One explained image and the PNG that was written for it."""

    explanation: Explanation
    file: Path


def explain(
    model: str,
    images: Sequence[str],
    *,
    out: Path = Path("explanations"),
    training_images: Path | None = None,
    registry: Path | None = None,
    progress: Progress = QUIET,
) -> list[Explained]:
    """Explain what a model predicts for each image; write one PNG per image and ``explanation.html``.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: files, folders, patterns, lists or archives.
        out: folder to write to.
        training_images: the images of the fit, to show the nearest of them.
        registry: folder of the registry; by default the user's.
        progress: receives progress, and a warning per unreadable image.

    Raises:
        SourceNotFoundError: none of the images can be read.
        RegistryError: no such version, or a damaged one.
    """
    inputs, opened = find_images(list(images)), open_model(model, registry=registry)
    explanations = []
    with progress.track("explaining", len(inputs)) as advance:
        for path in inputs:
            try:
                pixels = load_pixels(inputs.read(path), opened.classifier.facts.preprocessing)
                explanations.append(explain_image(opened.classifier, path, pixels, opened.reference))
            except (UndecodableError, OSError) as error:
                progress.warn(f"{path}: {error}")
            advance(1)
    if not explanations:
        raise SourceNotFoundError(" ".join(images), "at least one readable image")
    out.mkdir(parents=True, exist_ok=True)
    explained = [Explained(one, out / f"{number:03}.png") for number, one in enumerate(explanations, start=1)]
    for one in explained:
        to_picture(one.explanation).save(one.file)
    thumbnails = partial(read_thumbnail, data.open_source(training_images)) if training_images else None
    (out / "explanation.html").write_text(to_html(explanations, thumbnails), encoding="utf-8")
    return explained


def explain_image(
    classifier: Classifier, path: str, pixels: NDArray[np.uint8], reference: ReferenceFeatures | None = None
) -> Explanation:
    """Explain the prediction for one image. Deterministic on the CPU.

    Args:
        classifier: the model.
        path: path of the image, for display.
        pixels: ``(S, S, 3)`` uint8, preprocessed.
        reference: reference features of the training images, for the nearest neighbors.
    """
    inputs = _inputs(classifier, pixels)
    with torch.inference_mode():
        features = classifier.encoder(inputs)
        probabilities = classifier.probabilities(features)[0].numpy()
    best = np.argsort(-probabilities, kind="stable")[:NUM_TOP]
    number = int(best[0])
    heat, method = _grad_cam(classifier, inputs, number), "Grad-CAM"
    if heat is None:
        heat, method = _occlusion(classifier, inputs, number), "occlusion"
    neighbors, ood_score = _neighbors(classifier, features.numpy(), reference)
    return Explanation(
        path=path,
        pixels=pixels,
        heat=_full_size(heat, pixels.shape[0]),
        method=method,
        label=classifier.facts.classes[number],
        top={classifier.facts.classes[row]: float(probabilities[row]) for row in best},
        neighbors=neighbors,
        ood_score=ood_score,
    )


def to_picture(explanation: Explanation) -> Image.Image:
    """The image as the network saw it beside the same with the heat over it, ``2 S + 8`` by ``S``."""
    pixels, heat = explanation.pixels.astype(np.float32), explanation.heat[:, :, None]
    places = explanation.heat * (len(COLORS) - 1)
    below = np.minimum(places.astype(np.int64), len(COLORS) - 2)
    color = COLORS[below] + (places - below)[:, :, None] * (COLORS[below + 1] - COLORS[below])
    gray = pixels.mean(axis=2, keepdims=True)
    covered = (1 - 0.75 * heat) * (0.5 * pixels + 0.5 * gray) * 0.8 + 0.75 * heat * color
    gap = np.full((pixels.shape[0], 8, 3), 255, dtype=np.float32)
    return Image.fromarray(np.concatenate([pixels, gap, covered], axis=1).clip(0, 255).astype(np.uint8))


def to_html(explanations: Sequence[Explanation], picture: Picture | None = None) -> str:
    """One self-contained page; ``picture`` gives a PNG or JPEG of a training image, to show the neighbors."""
    loader = PackageLoader("automl_tl.reports", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters.update(percent=percent)
    explained = [
        (one, _uri(_jpeg(one)), [_uri(picture(near.path) if picture else None) for near in one.neighbors])
        for one in explanations
    ]
    return environment.get_template("explain.html.j2").render(explained=explained)


def _inputs(classifier: Classifier, pixels: NDArray[np.uint8]) -> Tensor:
    planes: Tensor = Normalize(classifier.facts.preprocessing)(torch.from_numpy(pixels.copy())[None])
    return planes


def _grad_cam(classifier: Classifier, inputs: Tensor, number: int) -> NDArray[np.float32] | None:
    """Heat ``(h, w)`` at the last boundary that has height and width; ``None`` if there is none."""
    blocks = list(classifier.encoder.children()) if isinstance(classifier.encoder, nn.Sequential) else []
    with torch.no_grad():
        passed = [inputs]
        for block in blocks:
            passed.append(block(passed[-1]))
    spatial = [index for index, value in enumerate(passed[1:], start=1) if value.ndim == 4 and min(value.shape[2:]) > 1]
    if not spatial:
        return None
    last = spatial[-1]
    with torch.enable_grad():
        activation = passed[last].detach().clone().requires_grad_(True)
        value = activation
        for block in blocks[last:]:
            value = block(value)
        score = classifier.head(value)[0]
        (gradient,) = torch.autograd.grad(score[number] - torch.logsumexp(score, dim=0), activation)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat: NDArray[np.float32] = torch.relu((weights * activation.detach()).sum(dim=1))[0].numpy()
    return heat


@torch.inference_mode()
def _occlusion(classifier: Classifier, inputs: Tensor, number: int) -> NDArray[np.float32]:
    """Heat ``(7, 7)``: how much the probability falls when a patch is covered with the mean color."""
    side = inputs.shape[2]
    edges = np.linspace(0, side, NUM_PATCHES + 1).round().astype(int)
    before = classifier.probabilities(classifier.encoder(inputs))[0, number]
    heat = np.zeros((NUM_PATCHES, NUM_PATCHES), dtype=np.float32)
    for row in range(NUM_PATCHES):
        covered = inputs.repeat(NUM_PATCHES, 1, 1, 1)
        for column in range(NUM_PATCHES):
            covered[column, :, edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = 0
        heat[row] = (before - classifier.probabilities(classifier.encoder(covered))[:, number]).clamp(min=0).numpy()
    return heat


def _full_size(heat: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    largest = float(heat.max())
    scaled = heat / largest if largest > 0 else heat
    full = Image.fromarray(scaled.astype(np.float32)).resize((side_px, side_px), Image.Resampling.BICUBIC)
    return np.asarray(np.clip(np.array(full), 0, 1), dtype=np.float32)


def _neighbors(
    classifier: Classifier, features: NDArray[np.float32], reference: ReferenceFeatures | None
) -> tuple[tuple[Neighbor, ...], float | None]:
    if reference is None:
        return (), None
    rows, distances = nearest(features, reference.features, NUM_NEIGHBORS)
    classes = classifier.facts.classes
    found = tuple(
        Neighbor(reference.paths[row], classes[reference.labels[row]], float(distance))
        for row, distance in zip(rows[0], distances[0], strict=True)
    )
    return found, float(reference.ood_score(features)[0])


def _jpeg(explanation: Explanation) -> bytes:
    target = io.BytesIO()
    to_picture(explanation).save(target, "JPEG", quality=88)
    return target.getvalue()


def _uri(data: bytes | None) -> str | None:
    """A picture as a data URI; ``None`` for what is neither PNG nor JPEG."""
    kind = next((kind for magic, kind in MAGIC.items() if data and data.startswith(magic)), None)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}" if data and kind else None
