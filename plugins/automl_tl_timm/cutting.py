"""How a timm network is taken apart: by its family's adapter, else as one block. And what its classifier is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from automl_tl_timm.encoders import MeanOfHeads, Network, PointwiseClassifier
from automl_tl_timm.families import attention, branches, pyramids, transformers
from automl_tl_timm.families.chains import CHAINS, classifiers, cut_chain

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

__all__ = ["classifier", "cut"]

# Class of the network -> its adapter. A class without one is looked up by its ancestors, then in CHAINS.
ADAPTERS: Final[dict[str, Callable[[Network], list[nn.Module]]]] = {
    "Beit": transformers.cut_beit,
    "Cait": attention.cut_cait,
    "CoaT": pyramids.cut_coat,
    "ConVit": attention.cut_convit,
    "CrossVit": branches.cut_crossvit,
    "EfficientViM": branches.cut_efficientvim,
    "Eva": transformers.cut_eva,
    "Hiera": transformers.cut_hiera,
    "HieraDet": transformers.cut_hieradet,
    "HighResolutionNet": branches.cut_hrnet,
    "Levit": attention.cut_levit,
    "MobileNetV5": pyramids.cut_mobilenetv5,
    "MultiScaleVit": attention.cut_mvit,
    "NaFlexVit": transformers.cut_naflex,
    "Nest": pyramids.cut_nest,
    "PoolingVisionTransformer": attention.cut_pit,
    "SelecSls": pyramids.cut_selecsls,
    "TNT": branches.cut_tnt,
    "Twins": attention.cut_twins,
    "VGG": pyramids.cut_vgg,
    "VOLO": attention.cut_volo,
    "VisionTransformer": transformers.cut_vit,
    "VisionTransformerDistilled": transformers.cut_distilled_vit,
    "VisionTransformerRelPos": transformers.cut_relpos,
    "VisionTransformerSAM": transformers.cut_sam,
    "Visformer": attention.cut_visformer,
    "Xcit": attention.cut_xcit,
}
# Their heads share the features out among themselves; other networks with several heads give all features to each.
SHARED_OUT: Final = frozenset({"CrossVit", "PoolingVisionTransformer", "VisionTransformerDistilled"})


def cut(network: nn.Module) -> Sequence[nn.Module]:
    """Blocks of ``network``, from the image to the features."""
    for ancestor in type(network).__mro__:
        if ancestor.__name__ in ADAPTERS:
            return ADAPTERS[ancestor.__name__](network)
        if ancestor.__name__ in CHAINS:
            return cut_chain(network, CHAINS[ancestor.__name__])
    return transformers.whole(network)


def classifier(network: Network) -> nn.Module | None:
    """Head from features to the logits of ``network``; ``None`` where features alone don't give them, or without classes."""
    names = {ancestor.__name__ for ancestor in type(network).__mro__}
    heads = classifiers(network)
    if not heads or ("VOLO" in names and network.aux_head is not None):
        return None
    if "EfficientViM" in names:
        return branches.classify_efficientvim(network)
    if len(heads) > 1:
        shared_out = bool(names & SHARED_OUT)
        return MeanOfHeads(heads, [int(head.get_parameter("weight").shape[1]) for head in heads] if shared_out else None)
    weight = getattr(heads[0], "weight", None)
    return PointwiseClassifier(heads[0]) if weight is not None and weight.ndim == 4 else heads[0]
