"""The seeded draw of a split: units of images that stay together, on disk in the order in which they are drawn."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import NamedTuple, final

from automl_tl.data.joining import join
from automl_tl.values import ImageRecord, SplitName

__all__ = ["Draw", "is_held_out"]


def is_held_out(image: ImageRecord) -> bool:
    """Whether the source itself gives the image to validation or test."""
    return image.split not in (None, "train")


class _Unit(NamedTuple):
    """Images that stay together, and their place in the seeded order."""

    order: str
    digests: tuple[str, ...]

    @property
    def size(self) -> int:
        return len(self.digests)


@final
class Draw:
    """The units of images to be split; a unit belongs to the class that most of its images have."""

    def __init__(self, used: Sequence[ImageRecord], groups: Iterable[Sequence[str]], seed: int) -> None:
        """Form the units.

        Args:
            used: all images in use; those to which the source gives a split are passed over.
            groups: paths of images that stay together.
            seed: of the order, which otherwise depends on the digests alone.
        """
        units: dict[str, dict[str, _Unit]] = defaultdict(dict)
        for label, unit in _units(used, groups, seed):
            units[label][unit.order] = unit
        self._size = {label: (sum(unit.size for unit in by.values()), len(by)) for label, by in units.items()}
        self._free = {label: [unit for _, unit in sorted(by.items())] for label, by in units.items()}
        self._places: dict[str, SplitName] = {}

    def labels(self) -> list[str]:
        """Classes, sorted."""
        return sorted(self._free)

    def size(self, label: str) -> tuple[int, int]:
        """Number of images and of units of a class."""
        return self._size[label]

    def put_back(self, label: str, placed: Mapping[str, SplitName], notes: list[str]) -> Counter[SplitName]:
        """Give units that have images in ``placed`` the split of those images.

        A unit with images in several splits is left out of all, which is noted.

        Args:
            label: class of the units.
            placed: image digest -> split, from a saved assignment.
            notes: extended by one note per unit that is left out.

        Returns:
            Number of images that each split then has of the class.
        """
        counts: Counter[SplitName] = Counter()
        free: list[_Unit] = []
        for unit in self._free[label]:
            sides = Counter(part for digest in unit.digests if (part := placed.get(digest)))
            num_new = unit.size - sides.total()
            counts.update(sides)
            if not sides:
                free.append(unit)
            elif len(sides) == 1:
                (part,) = sides
                counts[part] += num_new
                self._take(unit, part)
            else:
                notes.append(
                    f"{label}: similar images lie in two parts of the saved split; {num_new} new ones like them stay out"
                )
        self._free[label] = free
        return counts

    def fill(self, label: str, part: SplitName, target: int, counts: Counter[SplitName], kept_back: int) -> None:
        """Give ``part`` units, in their order, as long as it has room and more than ``kept_back`` are left.

        It gets at least one, even if that is larger than ``target``.

        Args:
            label: class of the units.
            part: the split to fill.
            target: wanted number of images.
            counts: number of images that each split has of the class; updated.
            kept_back: number of units that stay free for other splits.
        """
        waiting, free = self._free[label], list[_Unit]()
        left = len(waiting)
        for unit in waiting:
            if counts[part] + unit.size <= target and left > kept_back:
                self._take(unit, part)
                counts[part] += unit.size
                left -= 1
            else:
                free.append(unit)
        if target and not counts[part] and free and left > kept_back:
            smallest = min(free, key=lambda unit: (unit.size, unit.order))
            free.remove(smallest)
            self._take(smallest, part)
            counts[part] += smallest.size
        self._free[label] = free

    def places(self) -> dict[str, SplitName]:
        """Split of every image, by digest; units that were not taken are for training."""
        rest: dict[str, SplitName] = {
            digest: "train" for units in self._free.values() for unit in units for digest in unit.digests
        }
        return rest | self._places

    def _take(self, unit: _Unit, part: SplitName) -> None:
        self._places.update(dict.fromkeys(unit.digests, part))


def _units(used: Sequence[ImageRecord], groups: Iterable[Sequence[str]], seed: int) -> Iterator[tuple[str, _Unit]]:
    """Units and their classes."""
    groups = list(groups)
    bound: dict[str, tuple[str, str] | None] = dict.fromkeys(path for group in groups for path in group)
    for image in used:
        if is_held_out(image):
            continue
        if image.path in bound:
            bound[image.path] = image.digest, image.label
        else:
            yield image.label, _unit([image.digest], seed)
    known = {path: image for path, image in bound.items() if image}
    for paths in join(known, groups):
        labels = Counter(known[path][1] for path in paths)
        yield min(labels, key=lambda name: (-labels[name], name)), _unit([known[path][0] for path in paths], seed)


def _unit(digests: Sequence[str], seed: int) -> _Unit:
    order = min(sha256(f"{seed} {digest}".encode()).hexdigest() for digest in digests)
    return _Unit(order, tuple(sorted(digests)))
