"""Write the table of Keras cards from the installed keras: ``python benchmarks/make_cards_keras.py``.

Every model is built on the meta device, translated, cut into blocks, and run on a meta image for its dimensions; keras states
where it takes its weights from. Takes a few minutes; the same keras gives the same file.
"""

from __future__ import annotations

import inspect
import json
from importlib.resources import files
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode

from automl_tl.contracts import BackboneCard, Preprocessing
from automl_tl_keras.cards import TABLE, Entry
from automl_tl_keras.encoders import cut, translate
from automl_tl_keras.models import build_model, find_constructor, import_keras

# Name on the card, constructor, published top-1 accuracy in percent (keras.io/api/applications; MobileNet v3: its docstring).
MODELS: Final = (
    ("convnext_tiny", "ConvNeXtTiny", 81.3),
    ("convnext_small", "ConvNeXtSmall", 82.3),
    ("convnext_base", "ConvNeXtBase", 85.3),
    ("convnext_large", "ConvNeXtLarge", 86.3),
    ("convnext_xlarge", "ConvNeXtXLarge", 86.7),
    ("densenet121", "DenseNet121", 75.0),
    ("densenet169", "DenseNet169", 76.2),
    ("densenet201", "DenseNet201", 77.3),
    ("efficientnet_b0", "EfficientNetB0", 77.1),
    ("efficientnet_b1", "EfficientNetB1", 79.1),
    ("efficientnet_b2", "EfficientNetB2", 80.1),
    ("efficientnet_b3", "EfficientNetB3", 81.6),
    ("efficientnet_b4", "EfficientNetB4", 82.9),
    ("efficientnet_b5", "EfficientNetB5", 83.6),
    ("efficientnet_b6", "EfficientNetB6", 84.0),
    ("efficientnet_b7", "EfficientNetB7", 84.3),
    ("efficientnet_v2_b0", "EfficientNetV2B0", 78.7),
    ("efficientnet_v2_b1", "EfficientNetV2B1", 79.8),
    ("efficientnet_v2_b2", "EfficientNetV2B2", 80.5),
    ("efficientnet_v2_b3", "EfficientNetV2B3", 82.0),
    ("efficientnet_v2_s", "EfficientNetV2S", 83.9),
    ("efficientnet_v2_m", "EfficientNetV2M", 85.3),
    ("efficientnet_v2_l", "EfficientNetV2L", 85.7),
    ("inception_resnet_v2", "InceptionResNetV2", 80.3),
    ("inception_v3", "InceptionV3", 77.9),
    ("mobilenet", "MobileNet", 70.4),
    ("mobilenet_0.25", "MobileNet", None),
    ("mobilenet_0.50", "MobileNet", None),
    ("mobilenet_0.75", "MobileNet", None),
    ("mobilenet_v2", "MobileNetV2", 71.3),
    ("mobilenet_v2_0.35", "MobileNetV2", None),
    ("mobilenet_v2_0.50", "MobileNetV2", None),
    ("mobilenet_v2_0.75", "MobileNetV2", None),
    ("mobilenet_v2_1.30", "MobileNetV2", None),
    ("mobilenet_v2_1.40", "MobileNetV2", None),
    ("mobilenet_v3_large", "MobileNetV3Large", 75.6),
    ("mobilenet_v3_large_0.75", "MobileNetV3Large", 73.3),
    ("mobilenet_v3_large_minimalistic", "MobileNetV3Large", 72.3),
    ("mobilenet_v3_small", "MobileNetV3Small", 68.1),
    ("mobilenet_v3_small_0.75", "MobileNetV3Small", 65.4),
    ("mobilenet_v3_small_minimalistic", "MobileNetV3Small", 61.9),
    ("nasnet_large", "NASNetLarge", 82.5),
    ("nasnet_mobile", "NASNetMobile", 74.4),
    ("resnet50", "ResNet50", 74.9),
    ("resnet101", "ResNet101", 76.4),
    ("resnet152", "ResNet152", 76.6),
    ("resnet50_v2", "ResNet50V2", 76.0),
    ("resnet101_v2", "ResNet101V2", 77.2),
    ("resnet152_v2", "ResNet152V2", 78.0),
    ("vgg16", "VGG16", 71.3),
    ("vgg19", "VGG19", 71.3),
    ("xception", "Xception", 79.0),
)
IMAGENET: Final = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
ONE_TO_ONE: Final = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # -1 to 1
PIXELS: Final = {"mean": (0.0, 0.0, 0.0), "std": (1 / 255,) * 3}  # 0 to 255: the graph normalizes them
CAFFE: Final = {"mean": (123.68 / 255, 116.779 / 255, 103.939 / 255), "std": (1 / 255,) * 3}
# `preprocess_input` of each module of keras.applications.
NORMALIZATION: Final = {
    "convnext": PIXELS,
    "densenet": IMAGENET,
    "efficientnet": PIXELS,
    "efficientnet_v2": PIXELS,
    "inception_resnet_v2": ONE_TO_ONE,
    "inception_v3": ONE_TO_ONE,
    "mobilenet": ONE_TO_ONE,
    "mobilenet_v2": ONE_TO_ONE,
    "mobilenet_v3": PIXELS,
    "nasnet": ONE_TO_ONE,
    "resnet": CAFFE,
    "resnet_v2": ONE_TO_ONE,
    "vgg16": CAFFE,
    "vgg19": CAFFE,
    "xception": ONE_TO_ONE,
}
BICUBIC: Final = ("convnext", "efficientnet", "efficientnet_v2")
DEFAULT_SIDE_PX: Final = 224  # of models without a side of their own
IMAGENET_21K: Final = ("convnext_base", "convnext_large", "convnext_xlarge")
SAME: Final = {"vgg16": ("torchvision/vgg16.IMAGENET1K_FEATURES",)}
BYTES_PER_PARAMETER: Final = 4  # float32


def main() -> None:
    keras = import_keras()
    rows = []
    for name, constructor, top1 in MODELS:
        rows.append(_row(keras, name, constructor, top1))
        print(rows[-1]["name"], rows[-1]["num_blocks"], flush=True)
        keras.utils.clear_session(free_memory=True)
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    text = f'{{"library": "keras", "version": "{keras.__version__}", "models": [\n{lines}\n]}}\n'
    Path(str(files("automl_tl_keras").joinpath(TABLE))).write_text(text, encoding="utf-8")


def _row(keras: Any, name: str, constructor: str, top1: float | None) -> dict[str, Any]:  # noqa: ANN401
    build = find_constructor(constructor)
    module = getattr(keras.applications, constructor).__module__.rpartition(".")[2]
    options = _options(name, build)
    has_top, reads_bgr = module not in ("vgg16", "vgg19"), NORMALIZATION[module] is CAFFE
    side_px, url, file_hash = _published(keras, build, options, has_top=has_top)
    preprocessing = Preprocessing.model_validate(
        {"side_px": side_px, "interpolation": "bicubic" if module in BICUBIC else "bilinear", **NORMALIZATION[module]}
    )
    card = BackboneCard(name=f"keras/{name}", family=module, preprocessing=preprocessing, feature_dim=1)
    entry = Entry(card, constructor, options, has_top, reads_bgr, "", "")
    measured = _measured(entry)
    return {
        "name": card.name,
        "constructor": constructor,
        "options": options,
        "has_top": has_top,
        "reads_bgr": reads_bgr,
        "url": url,
        "hash": file_hash,
        "family": module,
        "preprocessing": preprocessing.model_dump(mode="json"),
        **measured,
        "weights_mib": round(measured["num_parameters"] * BYTES_PER_PARAMETER / 2**20, 1),
        "pretrained_on": "imagenet-21k+imagenet-1k" if name in IMAGENET_21K else "imagenet-1k",
        "imagenet_top1": None if top1 is None else round(top1 / 100, 3),
        "same_network_as": SAME.get(name, ()),
    }


def _options(name: str, build: Any) -> dict[str, Any]:  # noqa: ANN401
    """Options of the constructor from the end of the name: width, or fewer kinds of layers."""
    ending = name.rpartition("_")[2]
    if ending == "minimalistic":
        return {"minimalistic": True}
    has_width = "alpha" in inspect.signature(build).parameters and "." in ending
    return {"alpha": float(ending)} if has_width else {}


def _published(keras: Any, build: Any, options: dict[str, Any], *, has_top: bool) -> tuple[int, str, str | None]:  # noqa: ANN401
    """Let keras build the model with its weights; note the side of its images and the file it asks for."""
    found: list[tuple[str, str | None]] = []

    def note(fname: str, origin: str, *, file_hash: str | None = None, **_: object) -> None:
        found.append((origin, file_hash))

    with (
        patch("keras.src.utils.file_utils.get_file", note),
        patch("keras.src.models.model.Model.load_weights"),
        keras.device("meta"),
    ):
        model = build(weights="imagenet", include_top=has_top, **options)
    ((url, file_hash),) = found
    return model.input_shape[1] or DEFAULT_SIDE_PX, url, file_hash


def _measured(entry: Entry) -> dict[str, Any]:
    model = build_model(entry, device="meta")
    with torch.device("meta"):
        network = translate(model, reads_bgr=entry.reads_bgr)
    blocks, side_px = cut(network), entry.card.preprocessing.side_px
    encoder = torch.nn.Sequential(*blocks)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        features = encoder(torch.zeros(1, 3, side_px, side_px, device="meta"))
    with torch.no_grad():
        try:
            encoder(torch.zeros(1, 3, 2 * side_px, 2 * side_px, device="meta"))
            fixed_side = False
        except (RuntimeError, ValueError):
            fixed_side = True
    return {
        "feature_dim": features.shape[1],
        "num_blocks": len(blocks),
        "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "fixed_side": fixed_side,
        "num_macs": counter.get_total_flops() // 2,
    }


if __name__ == "__main__":
    main()
