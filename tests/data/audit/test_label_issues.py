"""Label issues and outliers, from features and out-of-fold probabilities."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.data import audit_features, audit_index, propose_fixes
from automl_tl.data.audit.label_issues import find_label_issues
from automl_tl.values import AppliedCorrections
from tests.data.sample_images import index_of, record

PATHS = [f"{label}/{number:02}.jpg" for label in ("ants", "bees") for number in range(20)]
INDEX = index_of([record(path, label=path.split("/")[0]) for path in PATHS])
LABELS = np.array([0] * 20 + [1] * 20)


def probabilities_of(looks_like: np.ndarray[tuple[int], np.dtype[np.int64]], sure: float = 0.9) -> list[list[float]]:
    return [[sure if label == column else 1 - sure for column in (0, 1)] for label in looks_like]


def features_of(looks_like: np.ndarray[tuple[int], np.dtype[np.int64]]) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(2, 16))
    return centers[looks_like] + generator.normal(0, 0.2, (len(looks_like), 16))


def test_find_label_issues_reports_confident_disagreement() -> None:
    looks_like = LABELS.copy()
    looks_like[[3, 30]] = [1, 0]

    issues = find_label_issues(LABELS, probabilities_of(looks_like))

    assert [(issue.position, issue.predicted) for issue in issues] == [(3, 1), (30, 0)]


def test_find_label_issues_matches_manual_computation() -> None:
    # Usual confidences: class 0 (0.9 + 0.8 + 0.1) / 3 = 0.6, class 1 (0.7 + 0.5) / 2 = 0.6. Image 2 is 0.9 sure of class 1.
    # Image 4 is only 0.5 sure of class 0, less than 0.6: no issue.
    probabilities = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.3, 0.7], [0.5, 0.5]]

    issues = find_label_issues([0, 0, 0, 1, 1], probabilities)

    assert [(issue.position, issue.predicted, issue.own) for issue in issues] == [(2, 1, 0.1)]


def test_find_label_issues_sorts_by_own_probability() -> None:
    looks_like = LABELS.copy()
    looks_like[[3, 5]] = 1
    probabilities = probabilities_of(looks_like)
    probabilities[5] = [0.01, 0.99]

    assert [issue.position for issue in find_label_issues(LABELS, probabilities)] == [5, 3]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 2), max_size=30), st.integers(0, 1000))
def test_find_label_issues_accepts_any_input(labels: list[int], seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), size=len(labels))

    issues = find_label_issues(labels, probabilities.reshape(-1, 3))

    assert all(issue.predicted != labels[issue.position] for issue in issues)


def test_audit_features_adds_issues_and_outliers_and_leaves_nothing_out() -> None:
    looks_like = LABELS.copy()
    looks_like[3] = 1
    features = features_of(LABELS)
    features[7] = np.random.default_rng(9).normal(size=16) * 3
    before = audit_index(INDEX)

    after = audit_features(INDEX, before, paths=PATHS, features=features, probabilities=probabilities_of(looks_like))

    findings = {finding.code: finding for finding in after.findings}
    assert findings["label_issues"].paths == (PATHS[3],)
    assert findings["label_issues"].facts == {PATHS[3]: "bees"}
    assert findings["outliers"].paths == (PATHS[7],)
    assert (after.left_out, after.groups, after.fingerprint) == (before.left_out, before.groups, before.fingerprint)


def test_audit_features_does_not_list_images_that_a_person_decided_about() -> None:
    looks_like = LABELS.copy()
    looks_like[3] = 1
    features = features_of(LABELS)
    features[7] = np.random.default_rng(9).normal(size=16) * 3
    decided = AppliedCorrections(file="file.csv", digest="", kept=(PATHS[3],), unchanged=(PATHS[7],))
    before = audit_index(INDEX, None, decided)

    after = audit_features(INDEX, before, paths=PATHS, features=features, probabilities=probabilities_of(looks_like))

    assert after == before


def test_audit_features_replaces_earlier_findings() -> None:
    looks_like = LABELS.copy()
    looks_like[3] = 1
    given_features = features_of(LABELS)
    once = audit_features(
        INDEX, audit_index(INDEX), paths=PATHS, features=given_features, probabilities=probabilities_of(looks_like)
    )

    again = audit_features(INDEX, once, paths=PATHS, features=given_features, probabilities=probabilities_of(LABELS))

    assert again == audit_index(INDEX)


def test_propose_fixes_relabels_label_issues() -> None:
    looks_like = LABELS.copy()
    looks_like[3] = 1
    report = audit_features(
        INDEX, audit_index(INDEX), paths=PATHS, features=features_of(LABELS), probabilities=probabilities_of(looks_like)
    )

    relabel = [fix for fix in propose_fixes(INDEX, report) if fix.action == "relabel"]

    assert [(fix.path, fix.label, fix.value) for fix in relabel] == [(PATHS[3], "ants", "bees")]
