"""The network of several backbones as one. Imported when one is built; needs torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from automl_tl.values import Preprocessing

__all__ = ["FeatureConcatenation"]


class FeatureConcatenation(nn.Module):
    """Each encoder's features, scaled to unit length, side by side: ``(B, 3, S, S)`` to ``(B, sum of the widths)``."""

    def __init__(
        self, encoders: Sequence[nn.Module], preprocessings: Sequence[Preprocessing], preprocessing: Preprocessing
    ) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(encoders)
        self.sides_px = [each.side_px for each in preprocessings]
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        for index, each in enumerate(preprocessings):  # from what the images were normalized by to what the member expects
            own_mean, own_std = torch.tensor(each.mean), torch.tensor(each.std)
            self.register_buffer(f"factor_{index}", (std / own_std).view(1, 3, 1, 1), persistent=False)
            self.register_buffer(f"offset_{index}", ((mean - own_mean) / own_std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map normalized images ``(B, 3, S, S)`` to features."""
        found = []
        for index, (encoder, side_px) in enumerate(zip(self.encoders, self.sides_px, strict=True)):
            given = images
            if side_px != images.shape[-1]:
                given = functional.interpolate(images, size=(side_px, side_px), mode="bilinear", align_corners=False)
            given = given * self.get_buffer(f"factor_{index}") + self.get_buffer(f"offset_{index}")
            found.append(functional.normalize(encoder(given), dim=1))
        return torch.cat(found, dim=1)
