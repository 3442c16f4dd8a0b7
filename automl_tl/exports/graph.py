"""The whole model as one graph: from raw pixels of any size to calibrated probabilities.

The resize inside is Pillow's own algorithm (resampling with support, in two passes, each rounded to bytes) written as two
matrix products whose weights are computed from the image's size, so one file accepts photographs of any size, and no runtime
needs a resize operator that agrees with Pillow (decision 13).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from automl_tl.models.bundle import Classifier
from automl_tl.models.engines import Normalize
from automl_tl.values import Preprocessing

SUPPORT: Final = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}


class CenterResize(nn.Module):
    """The center of an image, scaled like ``data.decoding.to_input``, with differences of at most two levels of 255."""

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.side_px, self.crop = preprocessing.side_px, preprocessing.crop_fraction
        self.interpolation = preprocessing.interpolation
        self.vertical_first = _pillow_is_vertical_first()

    def forward(self, images: Tensor) -> Tensor:
        """Map uint8 ``(B, H, W, 3)`` to float32 ``(B, 3, side_px, side_px)``, whole numbers from 0 to 255."""
        # 1) Size and square crop as tensors, so that the traced graph takes any size.
        planes = images.permute(0, 3, 1, 2).float()
        rows = torch.arange(images.shape[1], device=images.device, dtype=torch.float32)
        columns = torch.arange(images.shape[2], device=images.device, dtype=torch.float32)
        height, width = rows.max() + 1, columns.max() + 1
        square = torch.minimum(height, width) * self.crop
        # 2) One weight matrix per direction.
        across = self._weights(columns, (width - square) / 2, square)
        down = self._weights(rows, (height - square) / 2, square)
        # 3) Two passes, each rounded to bytes as Pillow does.
        across_first = _bytes(torch.matmul(down, _bytes(torch.matmul(planes, across.transpose(0, 1)))))
        if not self.vertical_first:
            return across_first
        down_first = _bytes(torch.matmul(_bytes(torch.matmul(down, planes)), across.transpose(0, 1)))
        is_tall = (height > self.side_px) & (height + self.side_px > 2 * width)
        return torch.where(is_tall, down_first, across_first)

    def _weights(self, places: Tensor, start: Tensor, length: Tensor) -> Tensor:
        """Weights ``(side_px, N)`` of input pixels ``places`` ``(N,)`` for each output pixel of a crop; rows sum to 1."""
        scale = length / self.side_px
        # OpenVINO multiplies by 1 / side_px, which may be one bit off; halves would then be rounded the other way.
        scale = scale + (length - scale * self.side_px) / self.side_px
        outputs = torch.arange(self.side_px, device=places.device, dtype=torch.float32)
        centers = (start + (outputs + 0.5) * scale).unsqueeze(1)
        if self.interpolation == "nearest":
            return (places.unsqueeze(0) == torch.floor(centers)).float()
        distance = (places.unsqueeze(0) + 0.5 - centers) / torch.clamp(scale, min=1.0)
        weights = self._filter(distance.abs())
        return weights / weights.sum(dim=1, keepdim=True)

    def _filter(self, x: Tensor) -> Tensor:
        """Pillow's filters (``Resample.c``) at distance ``x``, 0 or more."""
        support = SUPPORT[self.interpolation]
        if self.interpolation == "bilinear":
            inside = 1 - x
        elif self.interpolation == "bicubic":  # a = -0.5
            inside = torch.where(x < 1, (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2)
        else:
            inside = _sinc(x) * _sinc(x / 3)
        return torch.where(x < support, inside, torch.zeros_like(x))


class WholeModel(nn.Module):
    """Preprocessing, encoder, head and temperature in one module. Eval mode, float32, CPU."""

    factor: Tensor
    offset: Tensor

    def __init__(self, classifier: Classifier) -> None:
        super().__init__()
        self.resize = CenterResize(classifier.facts.preprocessing)
        for name, buffer in Normalize(classifier.facts.preprocessing).named_buffers():
            self.register_buffer(name, buffer)
        self.encoder, self.head = classifier.encoder, classifier.head
        self.temperature = classifier.facts.temperature
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map raw images ``(B, H, W, 3)``, uint8, RGB, upright, to probabilities ``(B, C)``."""
        planes = self.resize(images) * self.factor + self.offset
        return torch.softmax(self.head(self.encoder(planes)) / self.temperature, dim=1)


def _pillow_is_vertical_first() -> bool:
    """Whether Pillow resizes tall images vertically first: Pillow 13 does, earlier versions never do."""
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 30), dtype=np.uint8))
    both = image.resize((20, 20), Image.Resampling.BICUBIC)
    down_first = image.resize((30, 20), Image.Resampling.BICUBIC).resize((20, 20), Image.Resampling.BICUBIC)
    return np.array_equal(np.asarray(both), np.asarray(down_first))


def _bytes(values: Tensor) -> Tensor:
    return torch.clamp(torch.floor(values + 0.5), 0, 255)


def _sinc(x: Tensor) -> Tensor:
    angle = torch.pi * torch.clamp(x, min=1e-6)
    return torch.sin(angle) / angle
