"""A folder that timm and transformers load: ``config.json``, ``model.safetensors`` and a model card.

timm's networks end in a linear layer, so the head becomes one. A trained linear head does so exactly. A closed-form head works
on features of unit length, which no linear layer computes: it is folded with their mean length, and the card says by how much
that changes the probabilities (decision 60). timm's own decoding and transform differ from ours; that is measured, too.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from automl_tl.errors import ModelError
from automl_tl.exports.formats import END, NEEDS, PREPROCESS, START
from automl_tl.models.bundle import Classifier, separate_tensors
from automl_tl.models.heads import ClosedFormHead, TrainedHead
from automl_tl.plugin_host import Catalog, LoadedBackbone

ELSEWHERE: Final = "The formats onnx, openvino and torch-export support every model."
SOURCE_KEYS: Final = ("architecture", "custom_load", "num_classes", "label_offset", "url", "file", "hf_hub_id", "state_dict")

PROGRAM: Final = '''import timm
import torch


{preprocess}

def load():
    """Raw pixels (H, W, 3), uint8, upright RGB of any size -> probabilities (C,)."""
    network = timm.create_model(f"local-dir:{{FOLDER}}", pretrained=True).eval()

    @torch.inference_mode()
    def run(pixels):
        return torch.softmax(network(preprocess(pixels)), dim=1)[0].numpy()

    return run
'''

# What users of timm write, and what the pipeline of transformers does: timm's transform on what Pillow makes of a file.
LIBRARY_ROUTE: Final = """
import json, sys
from pathlib import Path
import numpy as np, timm, torch
from PIL import Image, ImageOps

folder, images, out = sys.argv[1:]
network = timm.create_model("local-dir:" + folder, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))

@torch.inference_mode()
def run(file):
    try:
        image = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    except (OSError, ValueError):  # HEIC, and what else Pillow alone can't read
        return np.full(network.num_classes, np.nan)
    return torch.softmax(network(transform(image)[None]), dim=1)[0].numpy()

rows = [run(file) for file in sorted(Path(images).iterdir())]
np.savez(out, probabilities=np.stack(rows).astype(np.float32))
print(json.dumps({"latency_ms": 0.0}))
"""


def is_folded_exactly(classifier: Classifier) -> bool:
    """Whether the head is a linear map of the features."""
    return isinstance(classifier.head, TrainedHead)


def linear_head(classifier: Classifier, feature_length: float) -> tuple[Tensor, Tensor]:
    """Fold head and temperature into one linear layer; see the module's docstring for what that changes.

    Args:
        classifier: to export.
        feature_length: mean Euclidean length of the features of images, for closed-form heads.

    Returns:
        Weight ``(C, D)`` and bias ``(C,)``.

    Raises:
        ModelError: the head has hidden layers.
    """
    head, temperature = classifier.head, classifier.facts.temperature
    if isinstance(head, TrainedHead):
        if len(head.hidden):
            widths = ", ".join(map(str, classifier.facts.head.hidden_dims))
            raise ModelError(
                f"The head has hidden layers ({widths}), and networks of timm end in one linear layer. {ELSEWHERE} "
                "Or fit again with `--head linear`."
            )
        return head.last.weight.detach() / temperature, head.last.bias.detach() / temperature
    assert isinstance(head, ClosedFormHead)
    mean, scale, temperatures = head.mean, head.scale, head.temperatures
    # 1) Standardization and the temperatures of the linear maps fold exactly.
    weights = head.weight.detach() / (scale * temperatures[:, None, None])
    biases = head.bias.detach() / temperatures[:, None] - torch.einsum("kcd,d->kc", weights, mean)
    # 2) The mean of the logits stands for the mean of the probabilities, and the mean length for that of each image.
    return weights.mean(dim=0) / (feature_length * temperature), biases.mean(dim=0) / temperature


def write_hugging_face(classifier: Classifier, catalog: Catalog, folder: Path, head: tuple[Tensor, Tensor]) -> str:
    """Write ``config.json`` and ``model.safetensors`` and return the source of ``predict.py``.

    Args:
        classifier: to export.
        catalog: of the installed backbones.
        folder: to write to; must exist.
        head: weight and bias of the last layer.

    Raises:
        ModelError: timm has no network of this backbone, or the head can't become its classifier.
    """
    weight, bias = head
    backbone = _timm_backbone(classifier, catalog)
    network: Any = backbone.build(pretrained=False)
    _load_in_order(backbone.blocks(network), classifier.encoder)
    network.reset_classifier(len(classifier.facts.classes))
    last: Any = backbone.classifier(network)
    last = getattr(last, "convolution", last)  # the adapter of a 1 x 1 convolution
    if not isinstance(last, (nn.Linear, nn.Conv2d)) or last.weight.numel() != weight.numel() or last.bias is None:
        raise ModelError(f"{backbone.card.name} does not end in one linear layer on its features. {ELSEWHERE}")
    with torch.no_grad():
        last.weight.copy_(weight.reshape(last.weight.shape))
        last.bias.copy_(bias)
    save_file(separate_tensors(network), folder / "model.safetensors", metadata={"format": "pt"})
    config = json.dumps(_config(network, classifier), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "config.json").write_text(config, encoding="utf-8")
    return START.format(needs=NEEDS["hf"]) + PROGRAM.format(preprocess=PREPROCESS) + END


def _timm_backbone(classifier: Classifier, catalog: Catalog) -> LoadedBackbone:
    """The backbone itself if it is timm's, or timm's with the same tensors."""
    facts = classifier.facts
    for name in (facts.backbone, *facts.same_network_as):
        if name.startswith("timm/") and "+" not in name and name in catalog.backbones:
            return catalog.backbone(name)
    if "+" in facts.backbone:
        raise ModelError(
            f"{facts.backbone} is an ensemble, and timm's models are one network. {ELSEWHERE} "
            f"Or fit again with one of its members: `--backbone {facts.backbone.partition('+')[0]}`."
        )
    raise ModelError(f"timm has no network with the weights of {facts.backbone}. {ELSEWHERE}")


def _load_in_order(blocks: nn.Module, encoder: nn.Module) -> None:
    """Copy the tensors of an encoder; another plugin names them differently, in the same order."""
    theirs = encoder.state_dict()
    ours = blocks.state_dict()
    if [tensor.shape for tensor in ours.values()] != [tensor.shape for tensor in theirs.values()]:
        raise ModelError(f"The installed timm builds another network than the one that was trained. {ELSEWHERE}")
    blocks.load_state_dict(dict(zip(ours, theirs.values(), strict=True)))


def _config(network: Any, classifier: Classifier) -> dict[str, Any]:  # noqa: ANN401 - one of timm's hundred classes
    """Timm's ``config.json``, which transformers reads as well."""
    facts, prepare = classifier.facts, classifier.facts.preprocessing
    source = {key: value for key, value in network.pretrained_cfg.items() if key not in SOURCE_KEYS and value is not None}
    side = (3, prepare.side_px, prepare.side_px)
    return {
        "architecture": network.pretrained_cfg["architecture"],
        "num_classes": len(facts.classes),
        "num_features": network.num_features,
        "label_names": list(facts.classes),
        "pretrained_cfg": {
            **{key: source[key] for key in ("tag", "first_conv", "classifier", "fixed_input_size", "license") if key in source},
            "custom_load": False,
            "input_size": side,
            "pool_size": None,
            "crop_pct": prepare.crop_fraction,
            "crop_mode": "center",
            "interpolation": prepare.interpolation,
            "mean": prepare.mean,
            "std": prepare.std,
            "num_classes": len(facts.classes),
        },
    }
