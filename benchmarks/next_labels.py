"""Active learning: how many labels do ways of choosing the next images need, beside a random choice?

    python -m benchmarks.next_labels ../shared/datasets/{flowers5,trashnet,gtsrb14,sign_digits,neu_defects,digits8x8} --seeds 5

The pool is two thirds of the training images of a dataset, with features of EfficientNet-Lite0. Five random images per class
are labeled first; each of six rounds chooses three images per class, learns their labels and fits the closed-form head of
`tl auto fit`. The other third of the training images ("validation") was used to decide between the methods; the test images
are only reported. "gain" is the mean difference to the random choice with the same seed, over the rounds, with its 95%
interval over the seeds. "labels" is the number of labels with which a method reaches the accuracy that the random choice has
at the end, as a share of those of the random choice.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from automl_tl.evaluation import softmax, unit_length
from automl_tl.evaluation.next_labels import choose_diverse_uncertain, uncertainty

BACKBONE = "lite/efficientnet_lite0"
FIRST_PER_CLASS = 5
NUM_ROUNDS = 6
PER_CLASS = 3

Features = NDArray[np.float32]
Integers = NDArray[np.int64]
Choose = Callable[[Features, NDArray[np.float64], int, np.random.Generator], Sequence[int]]
Curve = list[tuple[int, float, float]]  # labels, accuracy on validation and on test images


def choose_random(features: Features, probabilities: NDArray[np.float64], num: int, rng: np.random.Generator) -> Sequence[int]:
    return [int(position) for position in rng.permutation(len(features))[:num]]


def choose_margin(features: Features, probabilities: NDArray[np.float64], num: int, rng: np.random.Generator) -> Sequence[int]:
    return [int(position) for position in np.argsort(-uncertainty(probabilities), kind="stable")[:num]]


def choose_next(features: Features, probabilities: NDArray[np.float64], num: int, rng: np.random.Generator) -> Sequence[int]:
    return choose_diverse_uncertain(features, probabilities, num)


def choose_badge(features: Features, probabilities: NDArray[np.float64], num: int, rng: np.random.Generator) -> Sequence[int]:
    """BADGE: k-means++ on the gradients of the last layer (Ash et al., ICLR 2020, arXiv 1906.03671)."""
    rows, errors = unit_length(features), probabilities.copy()
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    norms = np.einsum("nc,nc->n", errors, errors)
    chosen = [int(norms.argmax())]
    distances = np.full(len(rows), np.inf)
    while len(chosen) < num:
        last = chosen[-1]
        to_last = norms + norms[last] - 2 * (errors @ errors[last]) * (rows @ rows[last])
        distances = np.minimum(distances, np.maximum(to_last, 0))
        distances[chosen] = 0
        chosen.append(int(rng.choice(len(rows), p=distances / distances.sum())))
    return chosen


METHODS: dict[str, Choose] = {
    "random": choose_random,
    "margin": choose_margin,
    "badge": choose_badge,
    "tl data next": choose_next,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    print("| set | labels | method | validation gain, pp | test gain, pp | labels for the same validation accuracy |")
    print("| --- | --- | --- | --- | --- | --- |")
    for folder in options.sets:
        images = {split: read_features(folder / split) for split in ("train", "test")}
        cells = list(product(METHODS, range(options.seeds)))
        with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
            curves = dict(zip(cells, pool.map(partial(curve, images), cells), strict=True))
        for method in METHODS:
            pairs = [(curves[method, seed], curves["random", seed]) for seed in range(options.seeds)]
            first, last = pairs[0][0][0][0], pairs[0][0][-1][0]
            gains = " | ".join(gain(pairs, column) for column in (1, 2))
            print(f"| {folder.name} | {first}-{last} | {method} | {gains} | {labels_needed(pairs):.0%} |", flush=True)


def gain(pairs: Sequence[tuple[Curve, Curve]], column: int) -> str:
    """Mean accuracy over the rounds minus that of the random choice, with a 95% interval over the seeds."""
    differences = [
        100 * np.mean([a[column] - b[column] for a, b in zip(ours[1:], random[1:], strict=True)]) for ours, random in pairs
    ]
    half = 1.96 * np.std(differences, ddof=1) / len(differences) ** 0.5
    mean = np.mean(differences)
    return f"{mean:+.1f} ({mean - half:+.1f} to {mean + half:+.1f})"


def labels_needed(pairs: Sequence[tuple[Curve, Curve]]) -> float:
    """Share of the random choice's labels that reach its last validation accuracy, by the mean curves, interpolated."""
    labels = [step[0] for step in pairs[0][0]]
    ours, random = ([float(np.mean([pair[side][step][1] for pair in pairs])) for step in range(len(labels))] for side in (0, 1))
    best_so_far = np.maximum.accumulate(ours)
    return float(np.interp(random[-1], best_so_far, labels)) / labels[-1]


def curve(images: dict[str, tuple[Features, Integers]], cell: tuple[str, int]) -> Curve:
    """Accuracies of one method after each round."""
    method, seed = cell
    (features, labels), (test, test_labels) = images["train"], images["test"]
    num_classes = int(labels.max()) + 1
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    validation, pool = shuffled[: len(labels) // 3], shuffled[len(labels) // 3 :]
    known = [int(row) for number in range(num_classes) for row in pool[labels[pool] == number][:FIRST_PER_CLASS]]
    rng, steps = np.random.default_rng([seed, 1]), []
    for _ in range(NUM_ROUNDS + 1):
        predict = fit(features[known], labels[known], num_classes)
        on_validation = float((predict(features[validation]).argmax(axis=1) == labels[validation]).mean())
        steps.append((len(known), on_validation, float((predict(test).argmax(axis=1) == test_labels).mean())))
        rest = np.setdiff1d(pool, known)
        num = min(PER_CLASS * num_classes, len(rest))
        chosen = METHODS[method](features[rest], predict(features[rest]), num, rng)
        known.extend(int(rest[position]) for position in chosen)
    return steps


def fit(features: Features, labels: Integers, num_classes: int) -> Callable[[Features], NDArray[np.float64]]:
    """The closed-form head of `tl auto fit`, as a function from features to probabilities."""
    from automl_tl.training.closed_form import solve

    head = solve(features.copy(), labels, np.arange(len(labels)), solver="average", num_classes=num_classes, seed=0)

    def predict(rows: Features) -> NDArray[np.float64]:
        points = (unit_length(rows).astype(np.float64) - head.mean) / head.scale
        models = zip(head.weight, head.bias, head.temperatures, strict=True)
        return np.asarray(np.mean([softmax(points @ weight.T + bias, t) for weight, bias, t in models], axis=0))

    return predict


def read_features(folder: Path) -> tuple[Features, Integers]:
    from torch import nn

    from automl_tl.models.engines import EagerEngine, embed
    from automl_tl.plugin_host import discover

    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    classes = sorted({path.parent.name for path in paths})
    backbone = discover().backbone(BACKBONE)
    preprocessing = backbone.card.preprocessing
    engine = EagerEngine(nn.Sequential(*backbone.cut(backbone.build(pretrained=True))), preprocessing)
    rows = embed(list(map(str, paths)), lambda path: Path(path).read_bytes(), engine, preprocessing)
    return np.concatenate(list(rows)), np.array([classes.index(path.parent.name) for path in paths])


if __name__ == "__main__":
    main()
