"""Figures in plain words, for people who are no statisticians."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from automl_tl.evaluation.intervals import wilson
from automl_tl.runtime.formatting import percent, percent_range

__all__ = ["in_words"]

MIN_IMAGES_TO_NAME = 5  # of a class, before its weakness is worth a sentence


def in_words(correct: int, confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    """What a measurement means: the range behind the percentage, against guessing, and where the model is weak.

    Args:
        correct: images predicted right.
        confusion: ``(C, C)``, counts, row true, column predicted.
        classes: C names.
    """
    sentences = [_range_sentence(correct, int(confusion.sum())), _guess_sentence(correct, confusion, classes)]
    sentences += [_weakest_sentence(confusion, classes), _confused_sentence(confusion, classes)]
    return " ".join(sentence for sentence in sentences if sentence)


def _range_sentence(correct: int, total: int) -> str:
    interval = wilson(correct, total)
    images = "1 image" if total == 1 else f"{total} images"
    meaning = f"{percent(correct / total)} on {images} means {percent_range(interval)}"
    if interval[1] - interval[0] > 0.2:
        return f"{meaning}: too few images for a sharper answer."
    return f"{meaning} on new images of the same kind (95% sure)."


def _guess_sentence(correct: int, confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    by_class, total = confusion.sum(axis=1), int(confusion.sum())
    largest = int(by_class.argmax())
    if (by_class > 0).sum() < 2:
        return f"All of them are {classes[largest]!r}: mistakes on other classes can't show here."
    guess = int(by_class[largest]) / total
    if wilson(correct, total)[0] <= guess:
        return f"That is not clearly better than always saying {classes[largest]!r} ({percent(guess)})."
    return f"Always saying {classes[largest]!r} would give {percent(guess)}."


def _weakest_sentence(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    by_class = confusion.sum(axis=1)
    known = np.flatnonzero(by_class >= MIN_IMAGES_TO_NAME)
    recalls = confusion.diagonal()[known] / by_class[known]
    if known.size < 2 or recalls.min() == recalls.max():
        return ""
    weakest = int(known[recalls.argmin()])
    found, of = int(confusion[weakest, weakest]), int(by_class[weakest])
    return f"Hardest is {classes[weakest]!r}: {found} of {of} recognized ({percent_range(wilson(found, of))})."


def _confused_sentence(confusion: npt.NDArray[np.int64], classes: Sequence[str]) -> str:
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    if wrong.max() < 2:
        return ""
    true, said = (int(index) for index in np.unravel_index(wrong.argmax(), wrong.shape))
    return f"Most often {classes[true]!r} is taken for {classes[said]!r} ({wrong[true, said]} times)."
