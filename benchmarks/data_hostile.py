"""Hostile files: compare the verdict of scan and audit on each file of the hostile dataset with the one its README expects.

    python benchmarks/data_hostile.py ../shared/datasets-hostile

The dataset is copied first. Links that a transport has turned into small text files are restored, and a name with a line break
and a file without permission, which git can't store, are added. An expectation is ``used``, ``rejected REASON``,
``left out REASON``, ``ignored WHY`` or a remark; ``+ CODE`` is a finding that must name the file.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import PIL

from automl_tl.data import Thumbnails, audit_index, open_source, scan
from automl_tl.values import DataReport, DatasetIndex

LINKS = (
    "train/ants/loop",
    "train/tulips/link_to_file.jpg",
    "train/tulips/dangling_link.jpg",
    "train/tulips/link_to_ants_folder",
)
LONG = "train/bees/long_" + "x" * 190 + ".jpg"
NEAR_DUPLICATES = "near_duplicates"
EXPECTED = {
    "train/ants/truncated_half.jpg": "rejected truncated",
    "train/ants/truncated_header.jpg": "rejected truncated",
    "train/ants/zero_bytes.jpg": "rejected empty",
    "train/ants/text_renamed.jpg": "rejected not_an_image",
    "train/ants/html_error_page.jpg": "rejected not_an_image",
    "train/ants/bitflipped.jpg": "damaged inside + damaged_images",
    "train/ants/trailing_garbage.jpg": "used",
    "train/ants/png_renamed.jpg": "used + wrong_suffixes",
    "train/ants/png_bad_crc.png": "rejected damaged",
    "train/ants/png_truncated.png": "rejected truncated",
    "train/ants/wide_4000x3.png": "used + extreme_aspect",
    "train/ants/tall_3x4000.png": "used + extreme_aspect",
    "train/ants/one_pixel_1x1.png": "used + tiny_images",
    "train/ants/all_black.png": "used + blank_images",
    "train/ants/bomb_30000x30000.png": "rejected too_many_pixels",
    "train/ants/big_10000x10000.png": "rejected too_many_pixels",
    "train/ants/declared_65500x65500_no_data.png": "rejected too_many_pixels",
    "train/ants/ok_01.jpg": "left out copy + exact_copies",
    "train/ants/loop": "rejected link_to_folder",
    "train/bees/conflict_same_as_ants_ok_00.jpg": "left out conflicting_label + conflicting_labels",
    "train/ants/ok_00.jpg": "left out conflicting_label + conflicting_labels",
    "train/bees/alpha_rgba.png": "transparency on white",
    "train/bees/alpha_grey_la.png": "transparency on white",
    "train/bees/palette_transparent.png": "transparency on white",
    "train/bees/cmyk.jpg": "converted from CMYK",
    "train/bees/grey_16bit.png": "scaled from 16 bits",
    "train/bees/one_bit.png": "used",
    "train/bees/grey_8bit.jpg": "used",
    "train/bees/lab.tif": "converted from CIELAB",
    "train/bees/float32.tif": "scaled from floats 0 to 1",
    "train/bees/naïve café 蜂 🐝.jpg": "used",
    "train/bees/  leading and  double spaces .jpg": "used",
    "train/bees/semi;colon,comma'quote\"$(x)&.jpg": "used",
    "train/bees/-dash_first.jpg": "used",
    LONG: "used",
    "train/tulips/real.webp": "used",
    "train/tulips/real.bmp": "used",
    "train/tulips/real.tif": "used",
    "train/tulips/multipage.tif": "first frame (of 3)",
    "train/tulips/animated.gif": "first frame (of 6)",
    "train/tulips/animated.webp": "first frame (of 3)",
    "train/tulips/animated_apng.png": "first frame (of 3)",
    "train/tulips/exif_orientation_3.jpg": "turned upright by EXIF (3)",
    "train/tulips/exif_orientation_6.jpg": "turned upright by EXIF (6)",
    "train/tulips/exif_orientation_8.jpg": "turned upright by EXIF (8)",
    "train/tulips/UPPERCASE.JPG": "used",
    "train/tulips/jpeg_ext.JpEg": "left out copy + exact_copies",
    "train/tulips/no_extension": "used",
    "train/tulips/ok_00.jpg": "left out copy + exact_copies",
    "train/tulips/link_to_file.jpg": "used",
    "train/tulips/ok_04.jpg": "left out copy + exact_copies",
    "train/tulips/dangling_link.jpg": "rejected dangling_link",
    "train/tulips/link_to_ants_folder": "rejected link_to_folder",
    "train/single_image_class/only.jpg": "used",
    "train/train_only_class/a.jpg": "used",
    "test/test_only_class/a.jpg": "used",
    "train/all_broken_class/a.jpg": "rejected empty",
    "train/all_broken_class/b.jpg": "rejected truncated",
    "train/BEES/case_twin.jpg": "used",
    "train/nested/north/bees/deep_a.jpg": "used + nested_folders",
    "train/nested/south/ants/deep_b.jpg": "used + nested_folders",
    "train/nested/north/bees/deeper/still/deep_c.jpg": "used + nested_folders",
    "train/stray_image_beside_the_classes.jpg": "rejected no_class",
    "test/ants/leak_same_as_train_ok_02.jpg": "used",
    "train/ants/ok_02.jpg": "left out leak + leaks",
    "train/bees/ok_02.jpg": "left out leak + leaks",
    "train/tulips/ok_03.jpg": f"left out leak + {NEAR_DUPLICATES}",
    "train/ants/line\nbreak.jpg": "left out copy + exact_copies",
    "train/ants/closed.jpg": "rejected unreadable",
}
IN_TITLES = {
    "unlearnable_classes": ("single_image_class (1)", "BEES (1)", "test_only_class (1)"),
    "empty_classes": ("empty class", "all_broken_class", "no_images_class", "a_folder_named.jpg"),
    "similar_class_names": ("BEES, bees",),
    "splits_differ": ("train_only_class", "test_only_class"),
}
IGNORED = {"hidden": 8, "litter": 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true", help="print every row, not only those that differ")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="hostile_") as temporary:
        root = prepare(options.folder, Path(temporary) / "hostile")
        thumbnails = Thumbnails()
        index = scan(open_source(root), thumbnails=thumbnails)
        on_disk = sum(
            len(files) + sum((Path(at) / name).is_symlink() for name in folders) for at, folders, files in os.walk(root)
        )
    report = audit_index(index, thumbnails)
    rows = [*outcome_rows(index, report), *title_rows(report), ("hidden and litter", str(IGNORED), str(ignored(index)))]
    num_equal = sum(expected == outcome for _, expected, outcome in rows)
    for what, expected, outcome in rows:
        if options.all or expected != outcome:
            print(
                f"{'  ' if expected == outcome else '! '}{what[:60]!r}: {outcome}"
                + ("" if expected == outcome else f", not {expected}")
            )
    files = f"{len(index.images)} images + {len(index.rejected)} rejected + {sum(index.ignored.values())} ignored"
    print(f"{platform.machine()}, python {platform.python_version()}, Pillow {PIL.__version__}")
    print(f"{num_equal} of {len(rows)} rows as expected; {on_disk} files on disk = {index.num_files} = {files}")


def prepare(folder: Path, root: Path) -> Path:
    """Copy the dataset with its links and the files that git can't store."""
    shutil.copytree(folder, root, symlinks=True)
    for link in (root / name for name in LINKS):
        if not link.is_symlink():
            target = link.read_text(encoding="utf-8")
            link.unlink()
            link.symlink_to(target)
    ants = root / "train" / "ants"
    shutil.copyfile(ants / "ok_05.jpg", ants / "line\nbreak.jpg")
    (ants / "ok_05.jpg").rename(ants / "a_ok_05.jpg")  # so that the odd name is the copy
    shutil.copyfile(ants / "ok_06.jpg", ants / "closed.jpg")
    (ants / "closed.jpg").chmod(0)
    if os.geteuid() == 0:
        print("root reads files without permission: run as another user to check that row")
        EXPECTED["train/ants/closed.jpg"] = "left out copy + exact_copies"
        (ants / "ok_06.jpg").rename(ants / "a_ok_06.jpg")
    return root


def outcome_rows(index: DatasetIndex, report: DataReport) -> list[tuple[str, str, str]]:
    """Return path, expected outcome and outcome of each file."""
    outcomes = {image.path: ", ".join(image.remarks) or "used" for image in index.images}
    outcomes |= {row.path: f"rejected {row.reason}" for row in index.rejected}
    outcomes |= {row.path: f"left out {row.reason}" for row in report.left_out}
    codes: dict[str, set[str]] = {}
    for finding in report.findings:
        for path in (*finding.paths, *(path for group in finding.groups for path in group)):
            codes.setdefault(path, set()).add(finding.code)
    rows = []
    for path, expected in EXPECTED.items():
        name = next((known for known in outcomes if known.startswith(path[:100])), path) if path == LONG else path
        code = expected.partition(" + ")[2]
        outcome = outcomes.get(name, "nothing")
        rows.append((path, expected, f"{outcome} + {code}" if code and code in codes.get(name, ()) else outcome))
    return rows


def title_rows(report: DataReport) -> list[tuple[str, str, str]]:
    titles = {finding.code: finding.title for finding in report.findings}
    wanted = [(code, word) for code, words in IN_TITLES.items() for word in words]
    return [(f"{code}: {word}", "named", "named" if word in titles.get(code, "") else "missing") for code, word in wanted]


def ignored(index: DatasetIndex) -> dict[str, int]:
    return {why: number for why, number in Counter(index.ignored).items() if why in IGNORED}


if __name__ == "__main__":
    main()
