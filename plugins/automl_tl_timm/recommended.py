"""Models that are worth a download, with published figures and their sources; ``docs/backbones.md`` shows the same table.

Few, so that a person can read them: for each situation the best known accuracy per cost, under a permissive license. Only
names with a tag, because a tag never changes its weights.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from automl_tl.contracts import Recommendation

TIMM: Final = "timm, results/results-imagenet.csv"
DINOV2: Final = "README of facebookresearch/dinov2; arXiv 2304.07193"
MAPS, CLASS_TOKEN = "mean of the last maps", "class token"


def _row(top1: float, *, situation: Literal["laptop", "gpu"], pooling: str, evidence: str, source: str) -> dict[str, Any]:
    """Return what the table adds to a card."""
    recommended = Recommendation(situation=situation, pooling=pooling, evidence=evidence, source=source)
    return {"imagenet_top1": top1, "recommended": recommended}


RECOMMENDED: Final = {
    "mobilenetv4_hybrid_medium.ix_e550_r256_in1k": _row(
        0.81446, situation="laptop", pooling=MAPS, evidence="81.4% fine-tuned, 256 px", source="card of the model on the hub"
    ),
    "convnext_nano.in12k_ft_in1k": _row(
        0.82862, situation="laptop", pooling=MAPS, evidence="82.9% fine-tuned, 288 px", source=TIMM
    ),
    "convnext_tiny.in12k_ft_in1k": _row(
        0.8445, situation="laptop", pooling=MAPS, evidence="84.5% fine-tuned, 288 px", source=TIMM
    ),
    "vit_base_patch16_clip_224.openai_ft_in12k_in1k": _row(
        0.8594, situation="gpu", pooling=CLASS_TOKEN, evidence="85.9% fine-tuned, 224 px", source=TIMM
    ),
    "vit_small_patch14_dinov2.lvd142m": _row(
        0.811, situation="gpu", pooling=CLASS_TOKEN, evidence="81.1% linear probe, 79.0% k-NN", source=DINOV2
    ),
    "vit_base_patch14_dinov2.lvd142m": _row(
        0.845, situation="gpu", pooling=CLASS_TOKEN, evidence="84.5% linear probe, 82.1% k-NN", source=DINOV2
    ),
}
