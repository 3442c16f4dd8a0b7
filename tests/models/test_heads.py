"""Heads: what they compute."""

from __future__ import annotations

import torch

from automl_tl.models.heads import HeadShape, average_heads, build_head


def test_average_heads_averages_probabilities_at_their_temperatures() -> None:
    torch.manual_seed(0)
    shapes = [HeadShape(kind="trained", feature_dim=4, num_classes=3), HeadShape(kind="solved", feature_dim=7, num_classes=3)]
    heads, features, temperatures = [build_head(shape) for shape in shapes], [torch.rand(5, 4), torch.rand(5, 7)], [2.0, 0.5]
    for parameter in heads[1].parameters():
        torch.nn.init.normal_(parameter)

    with torch.no_grad():
        average = average_heads(heads, temperatures)(torch.cat(features, dim=1)).exp()
        members = zip(heads, features, temperatures, strict=True)
        expected = torch.stack([torch.softmax(head(rows) / t, dim=1) for head, rows, t in members]).mean(dim=0)

    assert torch.allclose(average, expected, atol=1e-6)
