"""The order of the review queue, and what it suggests, from findings and probabilities."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from automl_tl import data
from automl_tl.data import Fix, audit_features, audit_index, read_fixes, write_fixes
from automl_tl.errors import BrokenSourceError
from automl_tl.runtime.progress import QUIET
from automl_tl.values import DatasetIndex, Finding, ImageRecord, RejectedFile
from automl_tl.workflows.review import Judgment, ReviewItem, rank_images, review, typical_images
from tests.data.sample_images import index_of, record
from tests.workflows.test_dataset import stripes

ANTS = [record(f"ants/{number:02}.jpg", label="ants") for number in range(10)]
BEES = [record(f"bees/{number:02}.jpg", label="bees") for number in range(10)]
INDEX = index_of([*ANTS, *BEES])


def judged(index: DatasetIndex, unsure: dict[str, float], name: str = "A network") -> Judgment:
    """Gives 0.9 to the label of each image, and to those in ``unsure`` that."""
    rows = {}
    for image in index.images:
        own = unsure.get(image.path, 0.9)
        rows[image.digest] = np.array([own if label == image.label else 1 - own for label in index.classes])
    return Judgment(name, index.classes, rows)


def ranked(index: DatasetIndex, unsure: dict[str, float], fixes: tuple[Fix, ...] = ()) -> tuple[ReviewItem, ...]:
    """Rank with the label issues that the probabilities give."""
    probe = judged(index, unsure)
    report = audit_features(
        index,
        audit_index(index),
        paths=[image.path for image in index.images],
        features=np.ones((len(index.images), 4)),
        probabilities=np.stack([probe.probabilities[image.digest] for image in index.images]),
    )
    return rank_images(index, report, probe=probe, fixes=fixes)


def with_finding(code: str, *paths: str) -> tuple[ReviewItem, ...]:
    finding = Finding(code=code, severity="warning", title="", why="", advice="", paths=paths, groups=(paths,))
    report = audit_index(INDEX).model_copy(update={"findings": (finding,)})
    return rank_images(INDEX, report, probe=judged(INDEX, {"bees/01.jpg": 0.2}))


def test_rank_images_puts_the_least_probable_label_first() -> None:
    items = ranked(INDEX, {"ants/03.jpg": 0.04, "bees/07.jpg": 0.01})

    assert [(item.paths, item.decision, item.label) for item in items[:2]] == [
        (("bees/07.jpg",), "relabel", "ants"),
        (("ants/03.jpg",), "relabel", "bees"),
    ]
    assert items[0].reasons == ("A network says ants (99%), and gives bees 1%.",)
    assert items[0].top == (("ants", 0.99), ("bees", 0.01))


def test_rank_images_lists_every_image_once() -> None:
    items = ranked(INDEX, {"ants/03.jpg": 0.01})

    assert sorted(path for item in items for path in item.paths) == [image.path for image in INDEX.images]
    assert [item.is_suspicious for item in items] == [True, *[False] * 19]


def test_rank_images_orders_unsuspicious_images_by_probability() -> None:
    items = ranked(INDEX, {"ants/03.jpg": 0.7, "bees/02.jpg": 0.8})

    assert [item.paths[0] for item in items[:2]] == ["ants/03.jpg", "bees/02.jpg"]
    assert {item.kinds for item in items} == {("others",)}


def test_rank_images_joins_copies_with_two_labels() -> None:
    copy = record("bees/copy.jpg", label="bees", digest=ANTS[0].digest)
    index = index_of(sorted([*ANTS, *BEES, copy], key=lambda image: image.path))
    probe = judged(index, {})._replace(probabilities={ANTS[0].digest: np.array([0.8, 0.2])})

    items = rank_images(index, audit_index(index), probe=probe)

    assert (items[0].paths, items[0].labels) == (("ants/00.jpg", "bees/copy.jpg"), ("ants", "bees"))
    assert (items[0].kinds, items[0].decision, items[0].label) == (("conflicting_labels",), "relabel", "ants")
    assert len(items) == 20


def test_rank_images_suggests_one_label_for_near_duplicates() -> None:
    first, second = with_finding("near_duplicates_of_two_classes", "ants/01.jpg", "bees/01.jpg")[:2]

    assert (first.paths, first.decision, first.label) == (("ants/01.jpg",), "keep", "ants")
    assert (second.paths, second.decision, second.label) == (("bees/01.jpg",), "relabel", "ants")
    assert first.related == (second.digest,)
    assert "A near-duplicate is labeled bees: bees/01.jpg." in first.reasons[0]


@pytest.mark.parametrize(
    ("code", "kind"),
    [("outliers", "outliers"), ("damaged_images", "damaged_images"), ("blank_images", "unusual_images")],
)
def test_rank_images_shows_findings_about_single_images(code: str, kind: str) -> None:
    items = with_finding(code, "ants/05.jpg")

    assert (items[0].paths, items[0].kinds, items[0].decision) == (("ants/05.jpg",), (kind,), None)


def test_rank_images_shows_mistakes_of_a_model_for_classes_it_knows() -> None:
    wasp = record("wasps/00.jpg", label="wasps")
    index = index_of([*ANTS, *BEES, wasp])
    model = judged(INDEX, {"ants/04.jpg": 0.1}, "insects@2")
    model = model._replace(probabilities={**model.probabilities, wasp.digest: np.array([0.5, 0.5])})

    items = [item for item in rank_images(index, audit_index(index), model=model) if item.is_suspicious]

    assert [(item.paths, item.kinds, item.label) for item in items] == [(("ants/04.jpg",), ("model_mistakes",), "bees")]
    assert items[0].reasons == ("insects@2 says bees (90%), and gives ants 10%.",)


def test_rank_images_lists_broken_files_but_not_rows_without_a_file() -> None:
    broken = RejectedFile(path="ants/x.jpg", label="ants", reason="truncated", detail="it ends too early", digest="ab" * 32)
    row = RejectedFile(path="list.csv", reason="malformed_row", detail="line 3", digest="cd" * 32)
    index = index_of([*ANTS, *BEES], rejected=[broken, row])

    items = [item for item in rank_images(index, audit_index(index)) if item.is_suspicious]

    assert [(item.digest, item.paths, item.decision) for item in items] == [("ab" * 32, ("ants/x.jpg",), "exclude")]
    assert items[0].error == "truncated: it ends too early"


def test_rank_images_shows_proposals_of_a_table() -> None:
    fixes = (
        Fix("ants/01.jpg", "ants", "relabel", "wasps", "seen by Ada"),
        Fix("bees/02.jpg", "bees", "delete", "", "blurred"),
        Fix("bees/03.jpg", "bees", "group", "bees/04.jpg", "bursts"),
    )

    items = ranked(INDEX, {"ants/09.jpg": 0.02}, fixes)

    assert [(item.paths[0], item.decision, item.label) for item in items[:3]] == [
        ("ants/09.jpg", "relabel", "bees"),
        ("ants/01.jpg", "relabel", "wasps"),
        ("bees/02.jpg", "exclude", None),
    ]
    assert items[1].reasons == ("The table of fixes proposes to relabel it wasps (seen by Ada).",)
    assert not items[3].is_suspicious


def test_rank_images_does_not_propose_to_exclude_copies() -> None:
    copy = record("ants/copy.jpg", label="ants", digest=ANTS[0].digest)
    index = index_of([*ANTS, copy, *BEES])
    report = audit_index(index)

    items = rank_images(index, report, fixes=data.propose_fixes(index, report))

    assert not any(item.is_suspicious for item in items)


def test_typical_images_are_the_most_probable_of_their_class() -> None:
    unsure = {image.path: 0.6 for image in (*ANTS[4:], *BEES[4:])}
    items = ranked(INDEX, unsure)

    examples = typical_images(items, judged(INDEX, unsure))

    assert set(examples["ants"]) == digests(ANTS[:4])
    assert set(examples["bees"]) == digests(BEES[:4])


def digests(images: list[ImageRecord]) -> set[str]:
    return {image.digest for image in images}


def test_read_fixes_reads_what_write_fixes_wrote_and_a_spreadsheet_saved(tmp_path: Path) -> None:
    fixes = [Fix("ants/a;b\n1.jpg", "ants", "relabel", "bees", "label_issues"), Fix("x.jpg", "", "replace", "", "truncated")]
    write_fixes(tmp_path / "fixes.csv", fixes)
    saved = "\ufeffpath;label;action;value;reason\nants/1.jpg;ants;relabel;bees;seen\n"
    (tmp_path / "saved.csv").write_text(saved, encoding="utf-8")

    assert read_fixes(tmp_path / "fixes.csv") == fixes
    assert read_fixes(tmp_path / "saved.csv") == [Fix("ants/1.jpg", "ants", "relabel", "bees", "seen")]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("path,label\na.jpg,ants\n", "no column action"),
        ("path,label,action,value,reason\na.jpg,ants,relable,bees,\n", "no action 'relable'"),
        ("", "no column path"),
    ],
)
def test_read_fixes_refuses_other_tables(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "fixes.csv").write_text(text, encoding="utf-8")

    with pytest.raises(BrokenSourceError, match=problem):
        read_fixes(tmp_path / "fixes.csv")


def test_review_finds_planted_label_errors(tmp_path: Path) -> None:
    for at, label in enumerate(("across", "upright")):
        (tmp_path / label).mkdir()
        for number in range(16):
            upright = bool(at) != (number == 7)
            stripes(100 * at + number, upright=upright).save(tmp_path / label / f"{number:02}x.png")
    (tmp_path / "upright" / "empty.png").touch()

    queue = review(tmp_path, progress=QUIET)

    assert {(item.paths[0], item.label) for item in queue.items[:2]} == {
        ("across/07x.png", "upright"),
        ("upright/07x.png", "across"),
    }
    assert [item.error for item in queue.items if item.error] == ["empty: the file has 0 bytes"]
    assert len(queue.items) == 33
    assert queue.num_suspicious < 33


class Warnings:
    """Progress that keeps what it is told."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    info = warn = lambda self, text: self.texts.append(text)
    track = staticmethod(QUIET.track)


def test_review_works_without_label_issues(tmp_path: Path) -> None:
    (tmp_path / "images" / "ants").mkdir(parents=True)
    Image.new("RGB", (40, 30), "red").save(tmp_path / "images" / "ants" / "1.png")
    write_fixes(tmp_path / "fixes.csv", [Fix("ants/2.png", "ants", "delete", "", "gone")])
    warnings = Warnings()

    queue = review(tmp_path / "images", fixes=tmp_path / "fixes.csv", progress=warnings)

    assert len(queue.items) == 1
    assert any("Label issues are not looked for" in text for text in warnings.texts)
    assert any("name no image" in text and "ants/2.png" in text for text in warnings.texts)
