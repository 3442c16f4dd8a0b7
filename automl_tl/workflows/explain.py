"""Explain predictions: a heatmap of the evidence, the probabilities, and the nearest training images.

The heatmap is Grad-CAM (Selvaraju et al., ICCV 2017) at the last boundary between blocks that still has height and width.
A backbone that cannot be cut is probed by occlusion instead (Zeiler and Fergus, ECCV 2014). Either shows what moved the
score, not that the model is right.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from automl_tl import data
from automl_tl.data.in_memory import Images, open_images
from automl_tl.errors import SourceNotFoundError, UndecodableError
from automl_tl.evaluation.reference_features import ReferenceFeatures, nearest
from automl_tl.models.bundle import Classifier
from automl_tl.models.engines import Normalize, load_pixels
from automl_tl.reports import Explanation, Neighbor, render_explanations
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl.workflows.dataset import read_thumbnail
from automl_tl.workflows.model import load

NUM_NEIGHBORS: Final = 4
NUM_TOP: Final = 5
NUM_PATCHES: Final = 7  # per side, for occlusion
# Dark to light in even steps of lightness, readable in gray and for the color-blind (after matplotlib's inferno).
COLORS: Final = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], dtype=np.float32)


def explain(
    model: str,
    images: Images,
    *,
    out: str | Path = "explanations",
    training_images: str | Path | None = None,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> list[Explanation]:
    """Explain what a model predicts for each image; write one JPEG per image and ``explanation.html``.

    Args:
        model: ``name``, ``name@3`` or ``name@production``.
        images: in any form that ``Model.predict`` takes: files, folders, patterns, lists, archives, arrays ...
        out: folder to write to.
        training_images: the images of the fit, to show the nearest of them.
        registry: folder of the registry; by default the user's.
        progress: receives progress, and a warning per unreadable image.

    Raises:
        SourceNotFoundError: none of the images can be read.
        RegistryError: no such version, or a damaged one.
    """
    opened_images, num_images = open_images(images)
    opened = load(model, registry=registry)
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    explanations: list[Explanation] = []
    with progress.track("explaining", num_images) as advance:
        for path, read in opened_images:
            advance(1)
            try:
                pixels = load_pixels(read(), opened.classifier.facts.preprocessing)
            except (UndecodableError, OSError) as error:
                progress.warn(f"{path}: {error}")
                continue
            file = folder / f"{len(explanations) + 1:03}.jpg"
            explanation, heat = _explain_image(opened.classifier, path, pixels, file, opened.reference)
            with writing_to(file):
                _draw_heatmap(pixels, heat).save(file, quality=88)
            explanations.append(explanation)
    if not explanations:
        raise SourceNotFoundError("What is given as images", "at least one readable image")
    thumbnail = None
    if training_images:  # only read by path: what is a class does not matter
        thumbnail = partial(read_thumbnail, data.open_source(training_images, classes_are_folders=True, progress=progress))
    page = render_explanations(explanations, thumbnail)
    with writing_to(folder):
        (folder / "explanation.html").write_text(page, encoding="utf-8")
    return explanations


def _explain_image(
    classifier: Classifier, path: str, pixels: NDArray[np.uint8], file: Path, reference: ReferenceFeatures
) -> tuple[Explanation, NDArray[np.float32]]:
    """Explain the prediction for the image ``pixels`` ``(S, S, 3)``, and return its heatmap ``(S, S)``, 0 to 1.

    ``file`` is where the heatmap will be drawn; ``reference`` gives the nearest training images. Deterministic on the CPU.
    """
    with torch.inference_mode():
        features = classifier.encoder(_as_input(classifier, pixels)).cpu()
        probabilities = classifier.probabilities(features)[0].numpy()
    classes = classifier.facts.classes
    best = np.argsort(-probabilities, kind="stable")[:NUM_TOP]
    heat, method = find_evidence(classifier, pixels, int(best[0]))
    explanation = Explanation(
        path=path,
        label=classes[best[0]],
        top={classes[index]: float(probabilities[index]) for index in best},
        ood_score=float(reference.ood_score(features.numpy())[0]),
        neighbors=find_neighbors(features.numpy(), reference, classes),
        method=method,
        heatmap=file,
    )
    return explanation, heat


def find_neighbors(features: NDArray[np.float32], reference: ReferenceFeatures, classes: Sequence[str]) -> tuple[Neighbor, ...]:
    """Find the training images nearest to an image, nearest first.

    Args:
        features: of the image, ``(1, D)``.
        reference: features of the training images.
        classes: of the model, in its order.
    """
    rows, distances = nearest(features, reference.features, NUM_NEIGHBORS)
    return tuple(
        Neighbor(path=reference.paths[row], label=classes[reference.labels[row]], distance=float(distance))
        for row, distance in zip(rows[0], distances[0], strict=True)
    )


def find_evidence(classifier: Classifier, pixels: NDArray[np.uint8], class_index: int) -> tuple[NDArray[np.float32], str]:
    """Find where in an image the evidence for a class is.

    Args:
        classifier: the model.
        pixels: ``(S, S, 3)``.
        class_index: of the class.

    Returns:
        The heatmap ``(S, S)``, 0 to 1, and how it was computed: Grad-CAM or occlusion.
    """
    inputs = _as_input(classifier, pixels)
    heat, method = _grad_cam(classifier, inputs, class_index), "Grad-CAM"
    if heat is None:
        heat, method = _occlusion(classifier, inputs, class_index), "occlusion"
    scaled = Image.fromarray((heat / (float(heat.max()) or 1.0)).astype(np.float32))
    full = np.array(scaled.resize(pixels.shape[:2], Image.Resampling.BICUBIC))  # square
    return np.asarray(np.clip(full, 0, 1), dtype=np.float32), method


def cover_with_heatmap(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> NDArray[np.float32]:
    """Draw a heatmap over an image, and return the pixels ``(S, S, 3)``, 0 to 255.

    Args:
        pixels: ``(S, S, 3)``.
        heat: ``(S, S)``, 0 to 1.
    """
    image, opacity = pixels.astype(np.float32), 0.75 * heat[:, :, None]
    levels = np.linspace(0, 1, len(COLORS))
    color = np.stack([np.interp(heat, levels, channel) for channel in COLORS.T], axis=2)
    gray = image.mean(axis=2, keepdims=True)
    return np.asarray((1 - opacity) * (0.5 * image + 0.5 * gray) * 0.8 + opacity * color)


def _draw_heatmap(pixels: NDArray[np.uint8], heat: NDArray[np.float32]) -> Image.Image:
    """Draw the image ``(S, S, 3)`` next to itself covered by the heatmap ``(S, S)``: 2 S + 8 pixels wide, S high."""
    gap = np.full((pixels.shape[0], 8, 3), 255, dtype=np.float32)
    drawn = np.concatenate([pixels.astype(np.float32), gap, cover_with_heatmap(pixels, heat)], axis=1)
    return Image.fromarray(drawn.clip(0, 255).astype(np.uint8))


def _as_input(classifier: Classifier, pixels: NDArray[np.uint8]) -> Tensor:
    """Return an image ``(S, S, 3)`` as the encoder's input ``(1, 3, S, S)``, on the encoder's device."""
    device = next((tensor.device for tensor in classifier.encoder.parameters()), torch.device("cpu"))
    normalized: Tensor = Normalize(classifier.facts.preprocessing)(torch.from_numpy(pixels.copy())[None])
    return normalized.to(device)


def _grad_cam(classifier: Classifier, inputs: Tensor, class_index: int) -> NDArray[np.float32] | None:
    """Return Grad-CAM ``(h, w)`` at the last boundary that has height and width; ``None`` if there is none."""
    # 1) Run block by block, and find the last activation with height and width.
    blocks = list(classifier.encoder.children()) if isinstance(classifier.encoder, nn.Sequential) else []
    with torch.no_grad():
        activations = [inputs]
        for block in blocks:
            activations.append(block(activations[-1]))
    spatial = [index for index, value in enumerate(activations) if index and value.ndim == 4 and min(value.shape[2:]) > 1]
    if not spatial:
        return None
    # 2) Differentiate the class's log-probability with respect to it.
    with torch.enable_grad():
        activation = activations[spatial[-1]].detach().clone().requires_grad_(True)
        value = activation
        for block in blocks[spatial[-1] :]:
            value = block(value)
        logits = classifier.head(value.cpu())[0]
        (gradient,) = torch.autograd.grad(logits[class_index] - torch.logsumexp(logits, dim=0), activation)
    # 3) Weight the channels by their mean gradient.
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    heat: NDArray[np.float32] = torch.relu((weights * activation.detach()).sum(dim=1))[0].cpu().numpy()
    return heat


@torch.inference_mode()
def _occlusion(classifier: Classifier, inputs: Tensor, class_index: int) -> NDArray[np.float32]:
    """Return ``(7, 7)``: how much the probability falls when a patch is covered with the mean color."""
    edges = np.linspace(0, inputs.shape[2], NUM_PATCHES + 1).round().astype(int)
    uncovered = classifier.probabilities(classifier.encoder(inputs).cpu())[0, class_index]
    heat = np.zeros((NUM_PATCHES, NUM_PATCHES), dtype=np.float32)
    for row in range(NUM_PATCHES):
        covered = inputs.repeat(NUM_PATCHES, 1, 1, 1)
        for column in range(NUM_PATCHES):
            covered[column, :, edges[row] : edges[row + 1], edges[column] : edges[column + 1]] = 0
        probabilities = classifier.probabilities(classifier.encoder(covered).cpu())[:, class_index]
        heat[row] = (uncovered - probabilities).clamp(min=0).numpy()
    return heat
