"""The scikit-learn estimator: scikit-learn's own checks, cross-validation, a pipeline, pickles."""

from __future__ import annotations

import pickle
import pickletools
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import parametrize_with_checks

import automl_tl
from automl_tl.sklearn import ImageClassifier
from automl_tl_registry import Registry
from tests.fakes import COLORS, colored_pixels
from tests.toy_plugin import TOY, toy_backbone

TOY_CLASSIFIER = ImageClassifier(backbone=TOY, strategy="linear_probe", random_state=0)
TABLE = "has to learn from a table of numbers, which is refused because it holds no images"
EXPECTED_FAILED_CHECKS = {
    "check_class_weight_classifiers": TABLE,
    "check_classifier_data_not_an_array": TABLE,
    "check_classifiers_classes": TABLE,
    "check_classifiers_train": TABLE,
    "check_dict_unchanged": TABLE,
    "check_dont_overwrite_parameters": TABLE,
    "check_dtype_object": "numbers in an array of objects are no images",
    "check_estimators_dtypes": TABLE,
    "check_estimators_fit_returns_self": TABLE,
    "check_estimators_nan_inf": TABLE,
    "check_estimators_overwrite_params": TABLE,
    "check_estimators_pickle": TABLE,
    "check_f_contiguous_array_estimator": TABLE,
    "check_fit2d_1feature": "a table of one number per row is refused like any other table",
    "check_fit2d_predict1d": TABLE,
    "check_fit_check_is_fitted": TABLE,
    "check_fit_idempotent": TABLE,
    "check_fit_score_takes_y": TABLE,
    "check_methods_sample_order_invariance": TABLE,
    "check_methods_subset_invariance": TABLE,
    "check_n_features_in": "images have no number of features",
    "check_n_features_in_after_fitting": "images have no number of features",
    "check_pipeline_consistency": TABLE,
    "check_positive_only_tag_during_fit": TABLE,
    "check_readonly_memmap_input": TABLE,
    "check_supervised_y_2d": TABLE,
}


def test_page_lists_the_expected_failures_with_their_reasons() -> None:
    page = (Path(__file__).parents[1] / "docs" / "python.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.*) \| (`check_.*`) \|$", page, flags=re.MULTILINE)

    assert {check: reason for reason, checks in rows for check in re.findall(r"\w+", checks)} == EXPECTED_FAILED_CHECKS


@parametrize_with_checks([ImageClassifier("1m")], expected_failed_checks=lambda estimator: EXPECTED_FAILED_CHECKS)  # type: ignore[untyped-decorator] # scikit-learn has no types
def test_estimator_passes_check(estimator: ImageClassifier, check: Callable[[ImageClassifier], None]) -> None:
    check(estimator)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("toy")
    with toy_backbone(folder):
        yield folder


@pytest.fixture(scope="module")
def images() -> tuple[NDArray[np.uint8], NDArray[np.str_]]:
    """36 images ``(36, 40, 40, 3)`` of three colors, and their names."""
    rng, labels = np.random.default_rng(0), np.array(sorted(COLORS) * 12)
    return np.stack([colored_pixels(label, rng) for label in labels]), labels


@pytest.fixture(scope="module")
def fitted(toy: Path, images: tuple[NDArray[np.uint8], NDArray[np.str_]]) -> ImageClassifier:
    """Fitted with integer labels that are out of order as text: 2, 10, 33."""
    codes = np.array([2, 10, 33])[np.unique(images[1], return_inverse=True)[1]]
    classifier: ImageClassifier = clone(TOY_CLASSIFIER).fit(images[0], codes)
    return classifier


def test_fit_keeps_labels_and_their_order(fitted: ImageClassifier, images: tuple[NDArray[np.uint8], NDArray[np.str_]]) -> None:
    probabilities = fitted.predict_proba(images[0])

    assert fitted.classes_.tolist() == [2, 10, 33]
    assert probabilities.shape == (36, 3)
    assert probabilities.sum(axis=1) == pytest.approx(np.ones(36), abs=1e-5)
    assert fitted.predict(images[0][:3]).tolist() == [2, 10, 33]
    assert fitted.outcome_.test.num_images >= 6


def test_fit_registers_nothing_without_a_name(fitted: ImageClassifier, toy: Path) -> None:
    assert not (toy / "home" / "registry").exists()
    assert not (toy / "home" / "splits").exists()
    assert isinstance(fitted.model_, bytes)


def test_pickle_holds_the_model_as_data(fitted: ImageClassifier, images: tuple[NDArray[np.uint8], NDArray[np.str_]]) -> None:
    data = pickle.dumps(fitted)
    loaded = pickle.loads(data)
    modules = {
        str(argument).split(" ")[0].split(".")[0] for code, argument, _ in pickletools.genops(data) if code.name == "GLOBAL"
    }

    assert loaded.predict_proba(images[0][:6]) == pytest.approx(fitted.predict_proba(images[0][:6]), abs=1e-6)
    assert "torch" not in modules
    assert loaded.get_params() == fitted.get_params()


def test_predict_takes_paths_and_pillow_images(
    fitted: ImageClassifier, images: tuple[NDArray[np.uint8], NDArray[np.str_]], tmp_path: Path
) -> None:
    pillow = [Image.fromarray(pixels) for pixels in images[0][:3]]
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for image, path in zip(pillow, paths, strict=True):
        image.save(path)
    column = np.array([[str(path)] for path in paths], dtype=object)
    forms: list[Any] = [pillow, paths, list(map(str, paths)), column, column.ravel(), [path.read_bytes() for path in paths]]

    assert all(fitted.predict(form).tolist() == [2, 10, 33] for form in forms)


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (np.zeros((4, 64)), r"found an array of float64 of shape \(4, 64\). Rows of pixels become images by X.reshape"),
        (np.zeros((4, 8, 8), np.float32), "found an array of float32"),
        (np.zeros((4, 3, 8, 8), np.uint8), "channels last"),
        (["missing.png"], "cannot be read"),
        ([b"text"], "cannot be read"),
        ([], "0 sample"),
    ],
)
def test_predict_refuses_what_is_no_image(fitted: ImageClassifier, given: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        fitted.predict(given)


def test_predict_needs_a_fit() -> None:
    with pytest.raises(NotFittedError):
        ImageClassifier().predict(["image.png"])


def test_cross_val_score_works_in_a_pipeline(toy: Path, images: tuple[NDArray[np.uint8], NDArray[np.str_]]) -> None:
    rows = images[0].reshape(36, -1)
    pipeline = make_pipeline(FunctionTransformer(lambda table: table.reshape(-1, 40, 40, 3)), clone(TOY_CLASSIFIER))

    scores = cross_val_score(pipeline, rows, images[1], cv=2)

    assert scores.min() >= 0.8


def test_fit_registers_a_model_by_name(toy: Path, images: tuple[NDArray[np.uint8], NDArray[np.str_]], tmp_path: Path) -> None:
    classifier = clone(TOY_CLASSIFIER).set_params(name="colors", registry=tmp_path / "registry").fit(*images)
    loaded = pickle.loads(pickle.dumps(classifier))

    assert classifier.model_ == "colors@1"
    assert [version.ref for version in Registry(tmp_path / "registry").versions()] == ["colors@1"]
    assert loaded.predict(images[0][:3]).tolist() == images[1][:3].tolist()
    assert automl_tl.load("colors", registry=tmp_path / "registry").classes == ("blue", "green", "red")
