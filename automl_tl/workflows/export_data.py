"""Export data: a corrected copy of a dataset, as class folders that every other program reads."""

from __future__ import annotations

import csv
import errno
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath
from tempfile import mkdtemp
from typing import Final

from pydantic import Field

from automl_tl import data
from automl_tl.data.audit.findings import SUFFIXES
from automl_tl.errors import DataError
from automl_tl.runtime.file_names import file_name, folder_names
from automl_tl.runtime.paths import splits_dir
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.runtime.resources import writing_to
from automl_tl.values import AppliedCorrections, DataReport, DatasetIndex, ImageRecord, SplitName, Value
from automl_tl.workflows.dataset import open_corrections, remembered_grouping

MANIFEST: Final = "manifest.csv"
SPLITS: Final[tuple[SplitName, ...]] = ("train", "validation", "test")


class DataExport(Value):
    """A corrected copy of a dataset."""

    folder: Path
    num_images: dict[str, int] = Field(description="copied images per split; all if there are no split folders")
    classes: tuple[str, ...]
    left_out: dict[str, int] = Field(description="reason -> number of images and files that were not copied")
    corrections: AppliedCorrections | None
    fingerprint: str = Field(description="of the images in use; `tl data check` of the copy has the same")


def export_data(
    images: str | Path,
    *,
    out: str | Path,
    split: bool = False,
    seed: int = 0,
    corrections: str | Path | None = None,
    classes_are_folders: bool = False,
    progress: Progress = QUIET,
) -> DataExport:
    """Write the images in use as class folders, inside split folders if there are splits; all of it or nothing.

    The bytes of each image are copied, never encoded again. Copies, leaks and excluded images are left out, as they are of
    a fit; ``manifest.csv`` says where each image came from.

    Args:
        images: any source that ``fit`` reads.
        out: folder to write; it must be empty or missing, and outside of ``images``.
        split: write split folders also where the source gives none, with the split that ``fit`` uses.
        seed: of the split, as of ``fit``.
        corrections: file of decisions about single images, as `tl review` writes it; applied by image digest.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        progress: receives progress and warnings.

    Raises:
        DataError: the source cannot be read, or an image changed meanwhile.
        OSError: the folder cannot be written, or is not empty.
    """
    out = Path(out).absolute()
    _check_target(out, Path(images))
    decisions = open_corrections(images, corrections, progress)
    source = data.open_source(images, classes_are_folders=classes_are_folders, progress=progress)
    group_by = remembered_grouping(source, seed)
    index, report = data.scan_and_audit(source, progress, corrections=decisions, group_by=group_by)
    splits: dict[str, SplitName] = {}
    if split:
        data.check_learnable(index, report)
        assignment, report = data.assign_splits(index, report, seed=seed, folder=splits_dir(), group_by=group_by)
        splits = assignment.splits
    elif any(image.split for image in index.images):
        splits = {image.digest: image.split or "train" for image in index.images}
    records = data.images_in_use(index, report)
    names = _file_names(records, index.classes, splits)
    out.parent.mkdir(parents=True, exist_ok=True)
    with writing_to(out):
        _write(source, names, out, _manifest(records, names, report, splits), progress)
    num_images = Counter(splits[record.digest] if splits else "all" for record in records)
    return DataExport(
        folder=out,
        num_images={name: num_images[name] for name in (*SPLITS, "all") if num_images[name]},
        classes=index.classes,
        left_out=_count_left_out(index, report),
        corrections=report.corrections,
        fingerprint=report.fingerprint,
    )


def _check_target(out: Path, images: Path) -> None:
    """Refuse a folder with anything in it, and one inside the images, which would become part of them."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OSError(errno.ENOTEMPTY, "it is not an empty folder", str(out))
    if images.is_dir() and out.resolve().is_relative_to(images.resolve()):
        raise OSError(errno.EINVAL, "it is inside the images", str(out))


def _file_names(
    records: Sequence[ImageRecord], classes: Sequence[str], splits: Mapping[str, SplitName]
) -> dict[str, ImageRecord]:
    """Records by their new path, in the order of their old ones; a name that is taken in its folder gets a digest."""
    folders, taken = folder_names(classes), set[str]()
    names: dict[str, ImageRecord] = {}
    for record in records:
        name = file_name(PurePosixPath(record.path).name)
        if PurePosixPath(name).suffix.lower() not in data.IMAGE_SUFFIXES:  # programs that go by names would pass it over
            name += SUFFIXES.get(record.format, (f".{record.format.lower()}",))[0]
        folder = "/".join([*([splits[record.digest]] if splits else []), folders[record.label]])
        if f"{folder}/{name}".casefold() in taken:
            path = PurePosixPath(name)
            name = f"{path.stem}-{record.digest[:12]}{path.suffix}"
        taken.add(f"{folder}/{name}".casefold())
        names[f"{folder}/{name}"] = record
    return names


def _manifest(
    records: Sequence[ImageRecord], names: Mapping[str, ImageRecord], report: DataReport, splits: Mapping[str, SplitName]
) -> list[tuple[str, ...]]:
    """Rows of the manifest: a table that `tl` itself reads, and from where each image came."""
    corrected = {image.path: image.before for image in report.corrections.images} if report.corrections else {}
    header = ("path", "label", *(["split"] if splits else []), "digest", "source_path", "source_label")
    rows = [
        (
            *(path, record.label),
            *([splits[record.digest]] if splits else []),
            *(record.digest, record.path, corrected.get(record.path, record.label)),
        )
        for path, record in names.items()
    ]
    return [header, *rows]


def _write(
    source: data.Source, names: Mapping[str, ImageRecord], out: Path, manifest: Sequence[Sequence[str]], progress: Progress
) -> None:
    """Copy the images to a temporary folder beside ``out``, which then gets its name."""
    draft = Path(mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        with progress.track("copying", len(names)) as advance:
            for name, record in names.items():
                content = source.read(record.path)
                if sha256(content).hexdigest() != record.digest:
                    raise DataError(f"{record.path} changed while the copy was written. Run the command again.")
                file = draft / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
                advance(1)
        with (draft / MANIFEST).open("w", newline="", encoding="utf-8") as table:
            csv.writer(table).writerows(manifest)
        draft.chmod(0o755)
        if out.exists():
            out.rmdir()
        draft.rename(out)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def _count_left_out(index: DatasetIndex, report: DataReport) -> dict[str, int]:
    reasons = [row.reason for row in report.left_out] + [row.reason for row in index.rejected]
    return dict(sorted(Counter(reasons).items()))
