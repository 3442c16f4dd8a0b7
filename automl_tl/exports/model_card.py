"""The model card of a Hugging Face folder: Markdown with YAML front matter that the hub reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from automl_tl.exports.exporter import Exported
from automl_tl.exports.linear_layer import Folding
from automl_tl.runtime.formatting import percent
from automl_tl_registry import Facts

METRICS: Final = (  # key in the version's metrics, type on the hub, name
    ("accuracy", "accuracy", "Accuracy"),
    ("balanced_accuracy", "balanced_accuracy", "Balanced accuracy"),
    ("macro_f1", "f1", "Macro F1"),
    ("log_loss", "log_loss", "Log loss"),
    ("calibration_error", "expected_calibration_error", "Expected calibration error"),
)

MARKDOWN: Final = str.maketrans({"\\": "\\\\", "|": "\\|", "[": "\\[", "&": "&amp;", "<": "&lt;", "`": "\\`"})

LAYER: Final[Mapping[Folding, str]] = {
    "exact": "The linear layer computes the model's head and temperature exactly.",
    "mean_length": "The model's head works on features of unit length, which a linear layer cannot compute. Standardization "
    "and temperature are folded exactly; the length of each image's features is replaced by the mean length, and the mean of "
    "the probabilities of several linear maps by the mean of their logits.",
    "distilled": "The model's head has hidden layers, or works on features that this network alone does not have. The linear "
    "layer was distilled from it: ridge regression from the network's features of training images to the model's logits.",
}

USE: Final = """## Use

```python
import timm, torch
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()  # on the hub: "hf-hub:USER/REPOSITORY"
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.inference_mode():
    probabilities = model(transform(Image.open("photo.jpg").convert("RGB"))[None]).softmax(1)[0]
print(model.pretrained_cfg["label_names"][probabilities.argmax()])
```

```python
from transformers import pipeline

print(pipeline("image-classification", model="FOLDER")("photo.jpg"))
```

`python predict.py photo.jpg` needs timm only and decodes and resizes exactly as in training.
"""


def write_model_card(folder: Path, name: str, facts: Facts, exported: Exported, *, base_license: str | None) -> Path:
    """Write ``README.md``.

    Args:
        folder: of the export, with its ``config.json``.
        name: of the model and its version.
        facts: of the version.
        exported: the measured agreement.
        base_license: SPDX name of the license of the pretrained weights; ``None`` if not stated.
    """
    text = "\n".join(
        (
            "---",
            _front_matter(folder, name, facts, base_license).strip(),
            "---",
            "",
            f"# {_plain(name)}",
            "",
            f"Image classifier for {len(facts.classes)} classes: {', '.join(map(_plain, facts.classes))}. "
            f"Transfer learning ({facts.strategy}) on {facts.backbone}, by automl_tl.",
            "",
            USE,
            _evaluation(facts),
            _use_and_limits(facts, base_license),
            _agreement(exported),
        )
    )
    (file := folder / "README.md").write_text(text, encoding="utf-8")
    return file


def _front_matter(folder: Path, name: str, facts: Facts, base_license: str | None) -> str:
    from huggingface_hub import EvalResult, ModelCardData

    metrics = facts.metrics.model_dump(mode="json")
    results = [
        EvalResult(
            task_type="image-classification",
            dataset_type="private",
            dataset_name=f"{name}, test split",
            dataset_split="test",
            metric_type=kind,
            metric_name=f"{title}{_interval_text(metrics, key)}",
            metric_value=round(metrics[key], 5),
            metric_args=_interval_args(metrics, key),
        )
        for key, kind, title in METRICS
        if isinstance(metrics.get(key), float)
    ]
    data = ModelCardData(
        license=(base_license or "unknown").lower(),
        base_model=_base_model(folder, facts),
        library_name="timm",
        pipeline_tag="image-classification",
        tags=["image-classification", "timm", "transformers", "automl_tl"],
        model_name=name,
        eval_results=results,
    )
    return str(data.to_yaml())


def _base_model(folder: Path, facts: Facts) -> str | None:
    """Repository of the pretrained weights in timm's collection; ``None`` if training started from others."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    recipe: Any = facts.plan.get("recipe") or {}
    constraints: Any = facts.plan.get("constraints") or {}
    tag = config["pretrained_cfg"].get("tag")
    if not tag or constraints.get("weights") or not recipe.get("pretrained", True):
        return None
    return f"timm/{config['architecture']}.{tag}"


def _interval(metrics: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    return metrics.get("interval" if key == "accuracy" else f"{key}_interval")


def _interval_text(metrics: Mapping[str, Any], key: str) -> str:
    interval = _interval(metrics, key)
    shown = f"95% CI {percent(interval[0])} to {percent(interval[1])}, " if interval else ""
    return f" ({shown}n = {metrics['num_images']})"


def _interval_args(metrics: Mapping[str, Any], key: str) -> dict[str, Any]:
    interval = _interval(metrics, key)
    bounds = {"confidence": 0.95, "low": round(interval[0], 5), "high": round(interval[1], 5)} if interval else {}
    return {**bounds, "num_images": metrics["num_images"]}


def _evaluation(facts: Facts) -> str:
    metrics = facts.metrics.model_dump(mode="json")
    rows = [
        (
            title,
            f"{metrics[key]:.3f}" if key == "log_loss" else percent(metrics[key]),
            _interval_text(metrics, key).strip(" ()"),
        )
        for key, _, title in METRICS
        if isinstance(metrics.get(key), float)
    ]
    scores: Mapping[str, Any] = metrics.get("per_class") or {}
    recalls = [
        (f"Recall of {label}", percent(score["recall"]), f"95% CI {percent(low)} to {percent(high)}, n = {score['num_images']}")
        for label, score in scores.items()
        if score["recall"] is not None
        for low, high in [score["recall_interval"]]
    ]
    text = "On the images of the test split, which training and selection did not use."
    return f"## Evaluation\n\n{text}\n\n{_table(('metric', 'value', 'interval and images'), [*rows, *recalls])}"


def _use_and_limits(facts: Facts, base_license: str | None) -> str:
    counts: Any = facts.data.get("counts") or {}
    limits = [
        "Every image gets one of these classes, also one that shows none of them; the checks of `tl predict` that reject "
        "images unlike the training images are not part of this folder.",
        f"The intervals cover chance among {facts.metrics.num_images} test images, not a change of camera, place or season.",
        *map(_plain, facts.metrics.texts("warnings")),
        f"The pretrained weights are under {base_license}; choose the license of the model accordingly."
        if base_license
        else "The license of the pretrained weights is not stated by their authors.",
    ]
    lines = "\n".join(f"- {limit}" for limit in limits)
    number = f"{counts['train'] + counts.get('validation', 0)} images" if "train" in counts else "images"
    return (
        f"## Intended use\n\nTo classify images like the {number} of its training, each of one class.\n\n## Limits\n\n{lines}\n"
    )


def _agreement(exported: Exported) -> str:
    rows = [
        ("predict.py", "all", *_counts(exported.num_images, exported.same_labels, exported.largest_difference)),
        *(
            ("timm, transformers", row.kind, *_counts(row.num_images, row.same_labels, row.largest_difference))
            for row in exported.library
        ),
    ]
    columns = ("read by", "files", "same label as the original", "largest difference in probability")
    mean = f"`predict.py` differs by {exported.mean_difference:.1e} on average"
    if exported.accuracy is not None and exported.reference_accuracy is not None:
        mean += f"; its accuracy on these images is {percent(exported.accuracy)}, {percent(exported.reference_accuracy)} before"
    return (
        f"## Agreement with the original model\n\n{LAYER[exported.folding or 'exact']}\n\nMeasured from image files, against "
        f"`tl predict`. {mean}. timm and transformers decode with Pillow alone and resize before they crop, which `predict.py` "
        f"does as in training.\n\n{_table(columns, rows)}"
    )


def _counts(num_images: int, same_labels: float, largest_difference: float) -> tuple[str, str]:
    return f"{round(same_labels * num_images)} of {num_images}", f"{largest_difference:.1e}"


def _table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(columns)
    lines = [f"| {' | '.join(map(_plain, row))} |" for row in (header, ["---"] * len(header), *rows)]
    return "\n".join(lines) + "\n"


def _plain(text: str) -> str:
    """``text`` on one line, without anything that Markdown reads as a table, tag or link."""
    visible = "".join(character if character.isprintable() else " " for character in text)
    return visible.translate(MARKDOWN)
