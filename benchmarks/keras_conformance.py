"""Check every family of Keras backbones against the plugin contract: ``python benchmarks/keras_conformance.py``.

Runs all checks of ``automl_tl.testing`` on the smallest member of each family, with random weights, and compares the translated
network with Keras itself. Writes ``benchmarks/results/keras_conformance.md``; takes about ten minutes on two cores.
"""

from __future__ import annotations

import sys
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Final

import numpy as np
import torch

from automl_tl.plugin_host import PluginEntry
from automl_tl.testing import run_checks
from automl_tl.testing.plugin_under_test import BackboneUnderTest
from automl_tl_keras.cards import Entry, entries
from automl_tl_keras.encoders import copy_weights, translate
from automl_tl_keras.models import build_model

RESULTS: Final = Path(__file__).parent / "results" / "keras_conformance.md"
PLUGIN: Final = PluginEntry(
    kind="backbones", name="keras", distribution="automl-tl", version="0", entry_point="automl_tl_keras:backbones"
)
HEADER: Final = """# Keras backbones: conformance

Written by `benchmarks/keras_conformance.py`: all checks of `tl plugins check` on the smallest member of each family, with
random weights (none could be downloaded), and the largest difference of the logits or features from Keras' own, relative
to the largest.

| backbone | blocks | passed | failed | skipped | difference from Keras |
| --- | ---: | ---: | ---: | ---: | ---: |
"""


def main() -> None:
    smallest: dict[str, Entry] = {}
    for entry in entries():
        family = entry.card.family
        smallest[family] = min(smallest.get(family, entry), entry, key=lambda entry: entry.card.num_parameters or 0)
    rows, num_failed = [], 0
    for entry in smallest.values():
        results = run_checks(BackboneUnderTest(PLUGIN, entry.card.name), lambda _: None)
        outcomes = Counter(result.outcome for result in results)
        for result in results:
            if result.outcome == "failed":
                print(f"{entry.card.name} {result.check}: {result.reason}", file=sys.stderr)
        num_failed += outcomes["failed"]
        counts = " | ".join(str(outcomes[outcome]) for outcome in ("passed", "failed", "skipped"))
        rows.append(f"| {entry.card.name} | {entry.card.num_blocks} | {counts} | {_difference(entry):.0e} |")
        print(rows[-1], flush=True)
    RESULTS.write_text(HEADER + "\n".join(rows) + "\n", encoding="utf-8")
    sys.exit(num_failed > 0)


def _difference(entry: Entry) -> float:
    model, preprocessing = build_model(entry), entry.card.preprocessing
    pixels = np.random.default_rng(0).uniform(0, 255, (2, preprocessing.side_px, preprocessing.side_px, 3)).astype(np.float32)
    theirs = import_module(f"keras.src.applications.{entry.card.family}").preprocess_input(pixels.copy())
    expected = model(theirs, training=False).detach().numpy()
    ours = ((pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)).transpose(0, 3, 1, 2)
    network = translate(model, reads_bgr=entry.reads_bgr)
    copy_weights(model, network)
    with torch.no_grad():
        actual = network(torch.from_numpy(ours.copy()).float()).numpy()
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


if __name__ == "__main__":
    main()
