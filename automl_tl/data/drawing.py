"""The seeded draw of a split: units of images that stay together, on disk in the order in which they are drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, final

from automl_tl.data.joining import join
from automl_tl.data.on_disk import TemporaryDatabase
from automl_tl.data.records import Records
from automl_tl.values import Part

__all__ = ["IS_GIVEN", "Draw"]

IS_GIVEN: Final = "COALESCE(part, 'train') <> 'train'"
"""In SQL: the source itself puts the image aside."""

SCHEMA: Final = """CREATE TABLE units (label, "order", size, digests, part, PRIMARY KEY (label, "order")) WITHOUT ROWID"""
PAGE: Final = 1000  # units
FREE: Final = "label = ? AND part IS NULL"
NOWHERE: Final = ""  # the part of a unit that no part may have


class _Unit(NamedTuple):
    """Images that stay together, their place in the seeded order, and how many they are."""

    order: str
    size: int
    digests: str  # with spaces between them


@final
class Draw:
    """What is to be divided of the images ``used``; a unit is of the class that most of its images have.

    Args:
        used: all images in use; those that are given a part by the source are passed over.
        groups: paths of images that stay together.
        seed: of the order, which depends on the digests besides.
    """

    def __init__(self, used: Records, groups: Iterable[Sequence[str]], seed: int) -> None:
        self._database = TemporaryDatabase(SCHEMA)
        units = ((label, *unit, None) for label, unit in _units(used, groups, seed))
        self._database.add("INSERT OR REPLACE INTO units VALUES (?, ?, ?, ?, ?)", units)

    def labels(self) -> list[str]:
        """Classes, sorted."""
        return [label for (label,) in self._database.ask("SELECT DISTINCT label FROM units ORDER BY label")]

    def size(self, label: str) -> tuple[int, int]:
        """Number of images and of units of a class."""
        num_images, num_units = next(self._database.ask("SELECT SUM(size), COUNT(*) FROM units WHERE label = ?", label))
        return num_images, num_units

    def put_back(self, label: str, placed: Mapping[str, Part], notes: list[str]) -> Counter[Part]:
        """Gives units of which an image was ``placed`` its part; the number of images that each part then has.

        A unit of which images are in several parts is in none, which is noted.
        """
        counts: Counter[Part] = Counter()
        for page in self._pages(label):
            taken: list[tuple[_Unit, Part | None]] = []
            for unit in page:
                sides = Counter(part for digest in unit.digests.split() if (part := placed.get(digest)))
                num_new = unit.size - sides.total()
                counts.update(sides)
                if len(sides) == 1:
                    counts.update({part: num_new for part in sides})
                elif sides:
                    notes.append(
                        f"{label}: similar images lie in two parts of the saved split; {num_new} new ones like them stay out"
                    )
                if sides:
                    taken.append((unit, next(iter(sides)) if len(sides) == 1 else None))
            self._take(label, taken)
        return counts

    def fill(self, label: str, part: Part, target: int, counts: Counter[Part], kept_back: int) -> None:
        """Gives ``part`` units, in their order, as long as it has room for them and more than ``kept_back`` are left.

        It gets at least one, even if that is larger than ``target``.
        """
        left = int(next(self._database.ask(f"SELECT COUNT(*) FROM units WHERE {FREE}", label))[0])
        for page in self._pages(label):
            taken: list[tuple[_Unit, Part | None]] = []
            for unit in page:
                if counts[part] + unit.size <= target and left > kept_back:
                    taken.append((unit, part))
                    counts[part] += unit.size
                    left -= 1
            self._take(label, taken)
            if counts[part] >= target or left <= kept_back:
                break
        if target and not counts[part] and left > kept_back:
            smallest = f'SELECT "order", size, digests FROM units WHERE {FREE} ORDER BY size, "order" LIMIT 1'
            for unit in map(_Unit._make, self._database.ask(smallest, label)):
                self._take(label, [(unit, part)])
                counts[part] += unit.size

    def places(self) -> Iterator[tuple[str, Part]]:
        """Part of every image, by digest; units that were not taken are for train."""
        for part, digests in self._database.ask("SELECT COALESCE(part, 'train'), digests FROM units WHERE part IS NOT ''"):
            yield from ((digest, part) for digest in digests.split())

    def _pages(self, label: str) -> Iterator[list[_Unit]]:
        """Units of a class that nobody took yet, in their order."""
        query = f'SELECT "order", size, digests FROM units WHERE {FREE} AND "order" > ? ORDER BY "order" LIMIT {PAGE}'
        last = ""
        while page := list(map(_Unit._make, self._database.ask(query, label, last))):
            yield page
            last = page[-1].order

    def _take(self, label: str, taken: Iterable[tuple[_Unit, Part | None]]) -> None:
        rows = ((part or NOWHERE, label, unit.order) for unit, part in taken)
        self._database.add('UPDATE units SET part = ? WHERE label = ? AND "order" = ?', rows)


def _units(used: Records, groups: Iterable[Sequence[str]], seed: int) -> Iterator[tuple[str, _Unit]]:
    """Units and their classes."""
    groups = list(groups)
    bound: dict[str, tuple[str, str] | None] = dict.fromkeys(path for group in groups for path in group)
    for path, digest, label in used.select("path, digest, label", f"WHERE NOT {IS_GIVEN}"):
        if path in bound:
            bound[path] = digest, label
        else:
            yield label, _unit([digest], seed)
    known = {path: image for path, image in bound.items() if image}
    for paths in join(known, groups):
        labels = Counter(known[path][1] for path in paths)
        yield min(labels, key=lambda name: (-labels[name], name)), _unit([known[path][0] for path in paths], seed)


def _unit(digests: Sequence[str], seed: int) -> _Unit:
    order = min(sha256(f"{seed} {digest}".encode()).hexdigest() for digest in digests)
    return _Unit(order, len(digests), " ".join(sorted(digests)))
