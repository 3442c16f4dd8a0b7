"""The LiteRT export (TensorFlow Lite) for phones and small boards: one input size, so its program crops and resizes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import torch
from torch import Tensor, nn

from automl_tl.exports.graph import WholeModel
from automl_tl.models.bundle import Classifier


class ChannelsFirst(nn.Module):
    """Takes the place of the resize: images have the input's size already."""

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(B, side_px, side_px, 3)`` to ``(B, 3, side_px, side_px)``."""
        return images.permute(0, 3, 1, 2)


def write_litert(classifier: Classifier, folder: Path) -> None:
    """Write ``model.tflite``: float32 pixels ``(1, side_px, side_px, 3)``, 0 to 255, to probabilities ``(1, C)``.

    Args:
        classifier: to export.
        folder: to write to; must exist.
    """
    import litert_torch

    model, side_px = WholeModel(classifier), classifier.facts.preprocessing.side_px
    model.resize = ChannelsFirst()  # type: ignore[assignment]
    with warnings.catch_warnings(action="ignore"):
        litert_torch.convert(model.eval(), (torch.zeros(1, side_px, side_px, 3),)).export(str(folder / "model.tflite"))


LITERT_LOADER: Final = '''from ai_edge_litert.interpreter import Interpreter


def resize(pixels):
    """The center of an image (H, W, 3) as float32 (1, side, side, 3), 0 to 255, which is what model.tflite takes."""
    image, prepare = Image.fromarray(pixels), FACTS["preprocessing"]
    side, square = prepare["side_px"], min(image.size) * prepare["crop_fraction"]
    left, top = (image.width - square) / 2, (image.height - square) / 2
    resampling = Image.Resampling[prepare["interpolation"].upper()]
    resized = image.resize((side, side), resampling, box=(left, top, left + square, top + square))
    return np.array(resized, dtype=np.float32)[None]


def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,)."""
    model = Interpreter(str(FOLDER / "model.tflite"))
    model.allocate_tensors()
    place, result = model.get_input_details()[0]["index"], model.get_output_details()[0]["index"]

    def run(pixels):
        model.set_tensor(place, resize(pixels))
        model.invoke()
        return model.get_tensor(result)[0]

    return run
'''
