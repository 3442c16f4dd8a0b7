"""Near-duplicates: plant changed copies in real datasets; count those listed, those in the same split, and other listed pairs.

    python benchmarks/data_near_duplicates.py ../shared/datasets/* --planted 20

Each dataset is pooled to class folders, so that the split is made here. The copies are resized, recompressed, cropped by up to
5% per side, or brightened by 15 to 35%. ``others`` are pairs without a planted copy: false ones, or near-duplicates of the
dataset itself; ``--sheet FOLDER`` writes a contact sheet of them per dataset.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from PIL import Image, ImageEnhance

from automl_tl.data import Thumbnails, audit_index, images_by_split, images_in_use, make_split, open_source, scan
from automl_tl.data.audit.duplicates import NearDuplicatePair, near_duplicate_pairs
from automl_tl.data.decode import decode

Change = Callable[[Image.Image, np.random.Generator], Image.Image]


def resized(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    factor = generator.uniform(0.5, 0.8)
    size = max(8, round(image.width * factor)), max(8, round(image.height * factor))
    return image.resize(size, Image.Resampling.LANCZOS)


def recompressed(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    buffer = BytesIO()
    image.save(buffer, "JPEG", quality=int(generator.integers(30, 60)))
    return Image.open(buffer)


def cropped(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    left, top, right, bottom = generator.uniform(0.01, 0.05, 4)
    box = left * image.width, top * image.height, (1 - right) * image.width, (1 - bottom) * image.height
    return image.crop(tuple(map(round, box)))


def brightened(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(generator.uniform(1.15, 1.35))


def everything(image: Image.Image, generator: np.random.Generator) -> Image.Image:
    return recompressed(resized(cropped(brightened(image, generator), generator), generator), generator)


CHANGES: tuple[Change, ...] = (resized, recompressed, cropped, brightened)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--planted", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--everything", action="store_true", help="every fifth copy has all changes at once")
    parser.add_argument("--sheet", type=Path)
    options = parser.parse_args()
    print(f"{'dataset':14} images planted listed same split others audit s")
    for folder in sorted(path for path in options.sets if path.is_dir()):
        with TemporaryDirectory(prefix="planted_") as place:
            measure(folder, Path(place), options)


def measure(folder: Path, place: Path, options: argparse.Namespace) -> None:
    generator = np.random.default_rng(options.seed)
    pool(folder, place)
    changes = (*CHANGES, everything) if options.everything else CHANGES
    pairs = plant(place, options.planted, changes, generator)
    thumbnails = Thumbnails()
    index = scan(open_source(place), thumbnails=thumbnails)
    start = time.perf_counter()
    report = audit_index(index, thumbnails)
    seconds = time.perf_counter() - start
    near_pairs = near_duplicate_pairs(images_in_use(index, report), thumbnails)
    listed = {frozenset((pair.first.path, pair.second.path)) for pair in near_pairs}
    splits = images_by_split(index, report, make_split(index, report))
    split_of = {image.path: split for split, images in splits.items() for image in images}
    num_listed = sum(frozenset(pair) in listed for pair in pairs)
    together = sum(split_of[one] == split_of[other] for one, other in pairs)
    others = [pair for pair in near_pairs if "planted" not in pair.first.path + pair.second.path]
    numbers = f"{num_listed:6} {together:8} {len(others):6} {seconds:7.1f}"
    print(f"{folder.name:14} {len(index.images):6} {len(pairs):7} {numbers}", flush=True)
    if options.sheet and others:
        sheet(place, others, options.sheet / f"{folder.name}.png")


def pool(folder: Path, place: Path) -> None:
    """Copy the dataset to class folders; file names start with the split."""
    for file in sorted(path for path in folder.glob("*/*/*") if path.is_file()):
        split, label = file.relative_to(folder).parts[:2]
        (place / label).mkdir(exist_ok=True)
        shutil.copyfile(file, place / label / f"{split}_{file.name}")


def plant(place: Path, number: int, changes: Sequence[Change], generator: np.random.Generator) -> list[tuple[str, str]]:
    files = sorted(place.glob("*/*"))
    times = Counter(file.read_bytes() for file in files)
    files = [file for file in files if times[file.read_bytes()] == 1]  # the audit leaves out byte copies
    pairs = []
    for position, chosen in enumerate(generator.choice(len(files), size=number, replace=False)):
        file = files[chosen]
        image = changes[position % len(changes)](decode(file.read_bytes()).image, generator)
        planted = file.with_name(f"planted_{position}.jpg")
        image.convert("RGB").save(planted, "JPEG", quality=85)
        pairs.append((str(file.relative_to(place)), str(planted.relative_to(place))))
    return pairs


def sheet(place: Path, pairs: Sequence[NearDuplicatePair], file: Path, side: int = 96, columns: int = 6) -> None:
    rows = (len(pairs) + columns - 1) // columns
    canvas = Image.new("RGB", (columns * (2 * side + 6), rows * (side + 4)), "white")
    for number, pair in enumerate(pairs):
        x, y = number % columns * (2 * side + 6), number // columns * (side + 4)
        for position, record in enumerate((pair.first, pair.second)):
            canvas.paste(decode((place / record.path).read_bytes()).image.resize((side, side)), (x + position * side, y))
    file.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(file)


if __name__ == "__main__":
    main()
