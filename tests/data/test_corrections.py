"""Corrections: the file that survives everything, and what it does to a dataset."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from automl_tl.data import (
    Correction,
    append_correction,
    assign_splits,
    audit_index,
    corrections_file,
    images_by_split,
    open_source,
    read_corrections,
    scan,
)
from automl_tl.data.corrections import HEADER, apply_corrections
from automl_tl.errors import BrokenSourceError, SourceNotFoundError
from automl_tl.values import DatasetIndex, RejectedFile
from tests.data.sample_images import index_of, record, write_tree

AT = "2026-05-01T12:00:00Z"


def digest(number: int) -> str:
    return f"{number:064x}"


def correction(number: int, decision: str = "relabel", label: str = "bees", **cells: str) -> Correction:
    given_cells = {"path": f"ants/{number}.jpg", "decided_at": AT, **cells}
    return Correction(digest(number), decision=decision, label=label, **given_cells)


def ants_and_bees(num: int = 12) -> DatasetIndex:
    names = [("ants", number) for number in range(num)] + [("bees", number) for number in range(num, 2 * num)]
    return index_of([record(f"{label}/{number}.jpg", label=label, digest=digest(number)) for label, number in names])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "images.corrections.csv"


# ---------------------------------------------------------------------------------------------------------------- file


def test_read_corrections_returns_the_last_decision_of_each_image(file: Path) -> None:
    for row in (
        correction(1),
        correction(2, "exclude", ""),
        correction(3),
        correction(3, "undo", ""),
        correction(1, label="a"),
    ):
        append_correction(file, row)

    corrections = read_corrections(file)

    assert {row.digest: row.label for row in corrections.by_digest.values()} == {digest(2): "", digest(1): "a"}
    assert corrections.counts == {"relabel": 1, "keep": 0, "exclude": 1}


def test_corrections_digest_depends_on_what_counts_alone(file: Path, tmp_path: Path) -> None:
    for row in (correction(1, label="x"), correction(2, "keep", ""), correction(3), correction(3, "undo", ""), correction(1)):
        append_correction(file, row)
    for row in (correction(1, decided_at="2026-06-01T00:00:00+02:00"), correction(2, "keep", "")):
        append_correction(tmp_path / "other.csv", row)

    assert read_corrections(file).digest == read_corrections(tmp_path / "other.csv").digest


def test_append_correction_sets_the_time_and_writes_names_of_any_form(file: Path) -> None:
    written = append_correction(file, correction(1, label='bee, "queen"\n', path="a\nb,c.jpg", decided_at=""))

    (row,) = read_corrections(file).by_digest.values()
    assert row == written
    assert (row.label, row.path, row.decided_at[-1]) == ('bee, "queen"\n', "a\nb,c.jpg", "Z")


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 400), path=st.sampled_from(["ants/1.jpg", 'a "quoted"\n\nname,.jpg']))
def test_append_correction_repairs_what_an_interrupted_writer_left(
    tmp_path_factory: pytest.TempPathFactory, cut: int, path: str
) -> None:
    file = tmp_path_factory.mktemp("cut") / "file.csv"
    for number in (1, 2):
        append_correction(file, correction(number, path=path))
    content = file.read_bytes()[:cut]
    file.write_bytes(content)

    before = read_corrections(file)
    append_correction(file, correction(9))
    after = read_corrections(file)

    assert [*before.by_digest, digest(9)] == list(after.by_digest)
    assert file.read_bytes().startswith(content[: len(content) - len(before.incomplete.encode())])
    assert not after.incomplete


def test_read_corrections_accepts_what_editors_make_of_the_file(file: Path) -> None:
    rows = "\r\n".join(
        [",".join(HEADER), f"{digest(1).upper()},a.jpg,relabel,bees,ants,,{AT}", "", f"{digest(2)},b,keep,,,,{AT}"]
    )
    file.write_bytes(b"\xef\xbb\xbf" + rows.encode())

    corrections = read_corrections(file)
    append_correction(file, correction(3))

    assert (list(corrections.by_digest), corrections.incomplete) == ([digest(1), digest(2)], "")
    assert list(read_corrections(file).by_digest) == [digest(1), digest(2), digest(3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\na.jpg,bees\n", "its first line is 'path,label'"),
        ("path,label,action,value,reason\n", "tl review IMAGES --fixes"),
        ("\x00\x01", "its first line is"),
        (
            ",".join(HEADER) + "\n" + f"{digest(1)},a,relable,bees,,,{AT}\n",
            "line 2: unknown decision 'relable'. Did you mean 'relabel'",
        ),
        (
            ",".join(HEADER) + "\n" + f'{digest(1)},a,relabel,"6 inch,,,{AT}\n{digest(2)},a,keep,,,,{AT}\n',
            "a quote that begins in line 2 is not closed",
        ),
        (
            ",".join(HEADER) + "\n" + f"{digest(1)},a,relabel,,,,{AT}\n12,a,keep,,,,{AT}\nx\n",
            "line 2: .* line 3: .* line 4 has 1 cell",
        ),
    ],
)
def test_read_corrections_names_what_is_wrong(file: Path, content: str, message: str) -> None:
    file.write_text(content, newline="")

    with pytest.raises(BrokenSourceError, match=message):
        read_corrections(file)


def test_append_correction_leaves_foreign_files_alone(file: Path) -> None:
    file.write_text('a,"b')

    with pytest.raises(BrokenSourceError, match="its first line"):
        append_correction(file, correction(1))
    with pytest.raises(ValueError, match="needs a label"):
        append_correction(file, correction(1, label=""))
    assert file.read_text() == 'a,"b'


def test_read_corrections_reports_a_missing_file(file: Path) -> None:
    with pytest.raises(SourceNotFoundError, match="does not exist"):
        read_corrections(file)


def test_append_correction_serves_several_writers(file: Path) -> None:
    with ThreadPoolExecutor(4) as writers:  # locks are those of the open files, so threads wait as processes do
        list(writers.map(lambda number: append_correction(file, correction(number)), range(40)))

    assert len(read_corrections(file).by_digest) == 40


def test_corrections_file_lies_beside_the_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flowers").mkdir()
    monkeypatch.chdir(tmp_path / "flowers")

    for images in (tmp_path / "flowers", "../flowers/", "."):
        assert corrections_file(images) == tmp_path / "flowers.corrections.csv"
    assert corrections_file("a.zip") == tmp_path / "flowers" / "a.zip.corrections.csv"


# ------------------------------------------------------------------------------------------------------------ applying


def test_apply_corrections_changes_all_copies_and_counts_everything(file: Path) -> None:
    index = ants_and_bees(3)
    copy = record("bees/copy of 0.jpg", label="bees", digest=digest(0))
    broken = RejectedFile(path="ants/broken.jpg", label="ants", reason="truncated", detail="", digest=digest(90))
    index = index.model_copy(update={"images": (*index.images, copy), "rejected": (broken,), "num_files": 8})
    for row in (
        correction(0),  # the copy has this label already
        correction(1, "exclude", ""),
        correction(2, "keep", ""),
        correction(3),
        correction(90, "exclude", ""),
        correction(99, path="gone.jpg"),
    ):
        append_correction(file, row)

    corrected, applied = apply_corrections(index, read_corrections(file))

    assert {image.path: image.label for image in corrected.images}["ants/0.jpg"] == "bees"
    assert [(image.path, image.before, image.after) for image in applied.images] == [
        ("ants/0.jpg", "ants", "bees"),
        ("ants/1.jpg", "ants", None),
    ]
    assert applied.words == "1 label corrected, 2 images excluded, 1 confirmed, 2 already corrected"
    assert applied.decided == {"ants/0.jpg", "ants/1.jpg", "ants/2.jpg", "bees/3.jpg", "bees/copy of 0.jpg"}
    assert applied.unmatched == ("gone.jpg",)
    assert corrected.num_files == len(corrected.images) + len(corrected.rejected) + sum(corrected.ignored.values())
    assert (corrected.rejected, corrected.ignored) == ((), {"excluded": 1})


def test_apply_corrections_makes_new_classes_and_names_near_ones(file: Path) -> None:
    for number in range(3):
        append_correction(file, correction(number, label="beess"))

    corrected, applied = apply_corrections(ants_and_bees(3), read_corrections(file))
    (warning,) = [row for row in audit_index(corrected, None, applied).findings if row.code == "new_classes"]

    assert (corrected.classes, corrected.empty_classes) == (("bees", "beess"), ("ants",))
    assert "'beess' (Did you mean 'bees'?)" in warning.title


def test_audit_leaves_excluded_images_out_of_everything(file: Path) -> None:
    index = ants_and_bees()
    copies = (record("bees/copy.jpg", label="bees", digest=digest(0)), record("bees/same.jpg", label="bees", digest=digest(1)))
    index = index.model_copy(update={"images": (*index.images, *copies)})
    append_correction(file, correction(0, "exclude", ""))
    append_correction(file, correction(1, label="bees"))

    corrected, applied = apply_corrections(index, read_corrections(file))
    report = audit_index(corrected, None, applied)

    assert {row.path: row.reason for row in report.left_out} == {
        "ants/0.jpg": "excluded",
        "bees/copy.jpg": "excluded",
        "bees/same.jpg": "copy",
    }
    assert "conflicting_labels" not in {finding.code for finding in report.findings}
    assert report.fingerprint != audit_index(index).fingerprint


def test_report_counts_corrected_test_images(file: Path) -> None:
    index = ants_and_bees()
    split, _ = assign_splits(index, audit_index(index))
    tested = [image for image in index.images if split.splits[image.digest] == "test"]
    append_correction(file, correction(int(tested[0].digest, 16), label="bees"))

    corrected, applied = apply_corrections(index, read_corrections(file))
    _, report = assign_splits(corrected, audit_index(corrected, None, applied))

    (finding,) = [row for row in report.findings if row.code == "corrections"]
    assert finding.title == "Corrections applied: 1 label corrected, 0 images excluded"
    assert "Test images among them: 1" in finding.why


@settings(max_examples=15, deadline=None)
@given(decisions=st.dictionaries(st.integers(0, 39), st.sampled_from(["ants", "bees", "cats", ""]), max_size=15))
def test_corrections_move_no_image_to_another_split(
    tmp_path_factory: pytest.TempPathFactory, decisions: dict[int, str]
) -> None:
    file, index = tmp_path_factory.mktemp("moved") / "file.csv", ants_and_bees(20)
    conflict = (
        record("bees/copy.jpg", label="bees", digest=digest(0)),
        record("bees/more.jpg", label="bees", digest=digest(99)),
    )
    index = index.model_copy(update={"images": (*index.images, *conflict)})
    append_correction(file, correction(1, "keep", ""))
    for number, label in decisions.items():
        append_correction(file, correction(number, "relabel" if label else "exclude", label))

    before, _ = assign_splits(index, audit_index(index))
    corrected, applied = apply_corrections(index, read_corrections(file))
    report = audit_index(corrected, None, applied)
    after, report = assign_splits(corrected, report)

    used = {image.digest for images in images_by_split(corrected, report, after).values() for image in images}
    assert used.isdisjoint(digest(number) for number, label in decisions.items() if not label)
    assert {key: after.splits[key] for key in used if key in before.splits} == {
        key: split for key, split in before.splits.items() if key in used
    }


def test_rejected_files_have_a_digest_of_their_bytes_or_their_path(tmp_path: Path) -> None:
    images = write_tree(tmp_path / "images", {"ants": 1, "bees": 1})
    (images / "ants" / "broken.jpg").write_bytes(b"no image")
    (images / "ants" / "gone.jpg").symlink_to("nowhere")

    digests = {row.path: row.digest for row in scan(open_source(images)).rejected}

    assert digests == {
        "ants/broken.jpg": sha256(b"no image").hexdigest(),
        "ants/gone.jpg": sha256(b"ants/gone.jpg").hexdigest(),
    }


def test_corrections_beside_tables_are_no_table_of_images(tmp_path: Path, file: Path) -> None:
    images = write_tree(tmp_path / "images", {"photos": 4})
    names = sorted(path.name for path in (images / "photos").iterdir())
    rows = "".join(f"photos/{name},{'ab'[at % 2]}\n" for at, name in enumerate(names))
    (images / "labels.csv").write_text(f"path,label\n{rows}")
    append_correction(images / "labels.csv.corrections.csv", correction(1, path=f"photos/{names[0]}"))

    assert scan(open_source(images)).classes == ("a", "b")
