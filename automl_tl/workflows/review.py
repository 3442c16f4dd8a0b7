"""Review: rank the images whose label, or whose file, is most worth a look. The ranking is pure, and nothing is written.

``tl review`` shows the queue in a browser and appends each decision to a corrections file (``automl_tl.server.review``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from automl_tl import data
from automl_tl.errors import DataError, TooFewImagesError
from automl_tl.models.predictor import Predictor
from automl_tl.runtime.formatting import percent
from automl_tl.runtime.progress import QUIET, Progress
from automl_tl.values import DataReport, DatasetIndex, ImageRecord, RejectedFile, Value
from automl_tl.workflows.check import LabelEvidence, measure_labels
from automl_tl.workflows.model import Model, load

Kind = Literal[
    "conflicting_labels",
    "proposals",
    "label_issues",
    "model_mistakes",
    "near_duplicates_of_two_classes",
    "outliers",
    "damaged_images",
    "unusual_images",
    "broken_files",
    "others",
]
KINDS: Final[dict[Kind, str]] = {
    "conflicting_labels": "Copies with two labels",
    "proposals": "Proposed fixes",
    "label_issues": "Label issues",
    "model_mistakes": "Mistakes of the model",
    "near_duplicates_of_two_classes": "Near-duplicates with two labels",
    "outliers": "Outliers",
    "damaged_images": "Damaged images",
    "unusual_images": "Unusual images",
    "broken_files": "Broken files",
    "others": "Nothing suspicious",
}
"""Titles of the kinds, in the order in which a page lists them."""

# Chance that something is wrong, where no probability says so: one of two near-duplicates with two labels is wrong; the others
# are judgments that order the kinds as a person would look at them, behind label issues.
SUSPICIONS: Final[dict[Kind, float]] = {
    "conflicting_labels": 1.0,
    "proposals": 0.9,
    "near_duplicates_of_two_classes": 0.5,
    "damaged_images": 0.4,
    "outliers": 0.3,
    "broken_files": 0.2,
    "unusual_images": 0.1,
    "others": 0.05,
}
SHOWN_FINDINGS: Final[dict[str, tuple[Kind, str]]] = {
    "outliers": ("outliers", "It resembles no other image."),
    "damaged_images": ("damaged_images", "It is damaged inside: part of what is drawn is probably noise."),
    "blank_images": ("unusual_images", "It has almost no contrast."),
    "dark_images": ("unusual_images", "It is darker than nearly all other images."),
    "bright_images": ("unusual_images", "It is brighter than nearly all other images."),
    "blurred_images": ("unusual_images", "It is much less sharp than the other images."),
    "tiny_images": ("unusual_images", "It is tiny; networks see it enlarged."),
    "extreme_aspect": ("unusual_images", "It is very long or high; networks see only its center."),
}
BROKEN: Final = frozenset(
    (
        *("empty", "truncated", "damaged", "not_an_image", "too_many_pixels", "needs_plugin", "unsupported", "camera_raw"),
        *("unreadable", "missing_file", "no_bytes"),
    )
)
"""Reasons of rejected files that a person can look at; the others are rows of tables and members of archives."""
NUM_EXAMPLES: Final = 4  # of a class
NUM_TOP: Final = 5  # classes of an image
ACTION_TEXTS: Final = {"delete": "delete it", "replace": "replace it", "review": "review it"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why an image is worth a look, and what to do about it as far as that is known."""

    kind: Kind
    suspicion: float
    text: str
    decision: Literal["relabel", "keep", "exclude"] | None = None
    label: str | None = None
    related: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewItem:
    """An image to review, all its copies included; ``decision`` and ``label`` are the suggestion."""

    __pydantic_config__: ClassVar = ConfigDict(extra="forbid", allow_inf_nan=False)

    digest: Annotated[str, Field(description="sha256 of the bytes, hexadecimal; of the path if they cannot be read")]
    paths: tuple[str, ...]
    labels: Annotated[tuple[str, ...], Field(description="several if copies disagree; none if a broken file has no class")]
    kinds: Annotated[tuple[Kind, ...], Field(description="strongest first")]
    suspicion: Annotated[float, Field(description="0 to 1; orders the queue within what has a reason and what has none")]
    decision: Annotated[Literal["relabel", "keep", "exclude"] | None, Field(description="suggestion, if any")]
    label: Annotated[str | None, Field(description="suggested class, if any")]
    reasons: tuple[str, ...]
    related: Annotated[tuple[str, ...], Field(description="digests of near-duplicates with another label")]
    top: Annotated[tuple[tuple[str, float], ...], Field(description="most probable classes; empty without a reason")] = ()
    error: Annotated[str | None, Field(description="why the file cannot be used")] = None

    @property
    def is_suspicious(self) -> bool:
        """Whether anything speaks for a look."""
        return self.kinds != ("others",)


class ReviewQueue(Value):
    """All images of a dataset, most suspicious first."""

    images: str = Field(description="folder, table or archive")
    classes: tuple[str, ...]
    model: str | None = Field(description="name@version whose mistakes are among the kinds")
    num_suspicious: int = Field(description="how many items, from the first, have any reason")
    items: tuple[ReviewItem, ...] = Field(description="one per different image, most suspicious first")
    examples: dict[str, tuple[str, ...]] = Field(description="class -> digests of images that are typical of it")


class Judgment(NamedTuple):
    """What a network says of images: probabilities ``(C,)`` of ``classes`` by image digest."""

    name: str
    classes: tuple[str, ...]
    probabilities: Mapping[str, NDArray[np.floating]]

    def probability(self, digest: str, label: str) -> float | None:
        """Return the probability of a class.

        Args:
            digest: of the image.
            label: name of the class.

        Returns:
            ``None`` for an unknown image or class.
        """
        if digest not in self.probabilities or label not in self.classes:
            return None
        return min(1.0, float(self.probabilities[digest][self.classes.index(label)]))

    def top(self, digest: str) -> tuple[tuple[str, float], ...]:
        """Return the most probable classes of an image with their probabilities, best first."""
        row = self.probabilities.get(digest, np.zeros(0))
        best = np.argsort(-row, kind="stable")[:NUM_TOP]
        return tuple((self.classes[at], min(1.0, round(float(row[at]), 4))) for at in best)


def review(
    images: str | Path,
    *,
    model: str | None = None,
    fixes: str | Path | None = None,
    classes_are_folders: bool = False,
    registry: str | Path | None = None,
    progress: Progress = QUIET,
) -> ReviewQueue:
    """Rank the images at ``images`` for a review of their labels; ``tl review`` shows them in a browser.

    Args:
        images: any source that ``fit`` reads.
        model: a registered model whose mistakes are shown too.
        fixes: table of ``tl data check --fix``, whose rows are shown too.
        classes_are_folders: every folder at the top is a class, even if it is called like a split.
        registry: folder of the registry; by default the user's.
        progress: receives progress and warnings.

    Raises:
        DataError: the source or ``fixes`` cannot be read.
        RegistryError: no such model.
    """
    # 1) What the check finds.
    opened = load(model, registry=registry) if model else None
    proposals = data.read_fixes(Path(fixes)) if fixes else []
    source = data.open_source(images, classes_are_folders=classes_are_folders, progress=progress)
    index, report = data.scan_and_audit(source, progress, allow_empty=True)
    # 2) What a pretrained network says of the labels, and the model.
    probe = None
    try:
        evidence = measure_labels(source, index, report, progress)
    except TooFewImagesError as error:
        progress.warn(f"Label issues are not looked for. {error}")
    else:
        report = evidence.add_to(index, report)
        probe = _judge_by_probe(index, evidence)
    judged = _judge_by_model(opened, source, index, progress) if opened else None
    # 3) Rank.
    items = rank_images(index, report, probe=probe, model=judged, fixes=proposals)
    new_classes = {fix.value for fix in proposals if fix.action == "relabel"} - {"", *index.classes}
    _warn_about_fixes(fixes, proposals, {path for item in items for path in item.paths}, new_classes, progress)
    return ReviewQueue(
        images=index.root,
        classes=tuple(sorted({*index.classes, *new_classes})),
        model=judged.name if judged else None,
        num_suspicious=sum(item.is_suspicious for item in items),
        items=items,
        examples=typical_images(items, probe),
    )


def _judge_by_probe(index: DatasetIndex, evidence: LabelEvidence) -> Judgment:
    """What the probe says of every image; those that are left out were not learned from."""
    digest_of = {record.path: record.digest for record in index.images}
    rows = dict(zip((digest_of[path] for path in evidence.paths), evidence.probabilities, strict=True))
    others = {record.digest: record for record in index.images if record.digest not in rows}
    if others:
        rows |= dict(zip(others, evidence.predict(tuple(others.values())), strict=True))
    return Judgment("A network that did not learn from it", index.classes, rows)


def _judge_by_model(model: Model, source: data.Source, index: DatasetIndex, progress: Progress) -> Judgment:
    if not {*index.classes} & {*model.classes}:
        raise DataError(
            f"{source.name} has the classes {list(index.classes)}; {model.ref} knows {list(model.classes)}. "
            "Name a model of these classes, or leave out --model."
        )
    path_of = {record.digest: record.path for record in index.images}
    predictor = Predictor.for_many(model.classifier, len(path_of), progress)
    rows = predictor.probabilities_of(list(path_of.values()), source.read, progress)
    return Judgment(model.ref, model.classes, dict(zip(path_of, rows, strict=True)))


def _warn_about_fixes(
    file: str | Path | None, fixes: Sequence[data.Fix], known: set[str], new_classes: set[str], progress: Progress
) -> None:
    if unknown := sorted({fix.path for fix in fixes} - known):
        progress.warn(f"Rows of {file} that name no image, and are passed over: {len(unknown)}, such as {unknown[0]}")
    if new_classes:
        progress.warn(f"{file} relabels images to classes that do not exist yet: {', '.join(sorted(new_classes))}")


def rank_images(
    index: DatasetIndex,
    report: DataReport,
    *,
    probe: Judgment | None = None,
    model: Judgment | None = None,
    fixes: Sequence[data.Fix] = (),
) -> tuple[ReviewItem, ...]:
    """Rank all images of a dataset and its broken files, most suspicious first.

    An image that has several reasons takes the place of the strongest, and the suggestion of the strongest that has one.

    Args:
        index: of the scan.
        report: of the audit, with the findings of ``audit_features`` if ``probe`` is given.
        probe: judged each image without having learned from it.
        model: a model whose mistakes are reasons.
        fixes: proposals of a table.
    """
    records: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in index.images:
        records[record.digest].append(record)
    broken = [row for row in index.rejected if row.reason in BROKEN]
    digest_of = {row.path: row.digest for row in index.images} | {row.path: row.digest for row in broken}
    reasons: dict[str, list[Reason]] = defaultdict(list)
    for digest, reason in (
        *_conflicts(records, probe),
        *_label_issues(report, records, digest_of, probe),
        *_mistakes(records, model),
        *_near_duplicates(report, records, digest_of, probe),
        *_proposals(fixes, report, digest_of, probe),
        *_findings(report, digest_of),
    ):
        reasons[digest].append(reason)
    items = [_image_item(digest, copies, reasons.get(digest, []), probe, model) for digest, copies in records.items()]
    items += _broken_items(broken, reasons)
    return tuple(sorted(items, key=lambda item: (not item.is_suspicious, -item.suspicion, item.paths)))


def typical_images(items: Sequence[ReviewItem], probe: Judgment | None) -> dict[str, tuple[str, ...]]:
    """Return up to four typical images of each class, which a person compares with a suspicious one.

    Args:
        items: of the queue.
        probe: judged the images; without it, any that are not suspicious are taken.
    """
    by_class: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for item in items:
        if not item.is_suspicious:
            label = item.labels[0]
            sureness = (probe.probability(item.digest, label) if probe else None) or 0.0
            by_class[label].append((-sureness, item.digest))
    return {label: tuple(digest for _, digest in sorted(rows)[:NUM_EXAMPLES]) for label, rows in sorted(by_class.items())}


# ------------------------------------------------------------------------------------------------------------- reasons

Reasons = Iterator[tuple[str, Reason]]
Records = Mapping[str, Sequence[ImageRecord]]


def _conflicts(records: Records, probe: Judgment | None) -> Reasons:
    for digest, copies in records.items():
        labels = sorted({record.label for record in copies})
        if len(labels) > 1:
            where = " and ".join(f"{record.label} ({record.path})" for record in copies)
            best = _most_probable([digest], labels, probe)
            yield (
                digest,
                Reason(
                    kind="conflicting_labels",
                    suspicion=SUSPICIONS["conflicting_labels"],
                    text=f"The same image is labeled {where}.{_opinion(probe, digest, best)}",
                    decision="relabel" if best else None,
                    label=best,
                ),
            )


def _label_issues(report: DataReport, records: Records, digest_of: Mapping[str, str], probe: Judgment | None) -> Reasons:
    for finding in report.findings:
        if finding.code == "label_issues" and probe:
            for path in finding.paths:
                digest, predicted = digest_of[path], str(finding.facts[path])
                own = records[digest][0].label
                yield digest, _disagreement("label_issues", digest, own, predicted, probe)


def _mistakes(records: Records, model: Judgment | None) -> Reasons:
    if model is None:
        return
    for digest, row in model.probabilities.items():
        labels, predicted = {record.label for record in records[digest]}, model.classes[int(row.argmax())]
        if len(labels) == 1 and predicted not in labels and labels <= set(model.classes):
            yield digest, _disagreement("model_mistakes", digest, labels.pop(), predicted, model)


def _disagreement(kind: Kind, digest: str, own: str, predicted: str, judge: Judgment) -> Reason:
    own_probability, probability = (judge.probability(digest, label) or 0.0 for label in (own, predicted))
    return Reason(
        kind=kind,
        suspicion=1 - own_probability,
        text=f"{judge.name} says {predicted} ({percent(probability)}), and gives {own} {percent(own_probability)}.",
        decision="relabel",
        label=predicted,
    )


def _near_duplicates(report: DataReport, records: Records, digest_of: Mapping[str, str], probe: Judgment | None) -> Reasons:
    for finding in report.findings:
        if finding.code != "near_duplicates_of_two_classes":
            continue
        for paths in finding.groups:
            pair = [digest_of[path] for path in paths]
            labels = [records[digest][0].label for digest in pair]
            best = _most_probable(pair, labels, probe)
            for at, digest in enumerate(pair):
                yield (
                    digest,
                    Reason(
                        kind="near_duplicates_of_two_classes",
                        suspicion=SUSPICIONS["near_duplicates_of_two_classes"],
                        text=f"A near-duplicate is labeled {labels[1 - at]}: {paths[1 - at]}.{_opinion(probe, digest, best)}",
                        decision=None if best is None else "keep" if best == labels[at] else "relabel",
                        label=best,
                        related=(pair[1 - at],),
                    ),
                )


def _proposals(fixes: Sequence[data.Fix], report: DataReport, digest_of: Mapping[str, str], probe: Judgment | None) -> Reasons:
    """Reasons from a table; images that are left out anyway are not proposed: excluding a copy would exclude the original."""
    left_out = {row.path for row in report.left_out}
    for fix in fixes:
        digest = digest_of.get(fix.path)
        if digest is None or fix.action == "group" or (fix.action == "delete" and fix.path in left_out):
            continue
        is_new_label = fix.action == "relabel" and fix.value
        what = f"relabel it {fix.value}" if is_new_label else ACTION_TEXTS.get(fix.action, "review it")
        own = (probe.probability(digest, fix.label) if probe else None) or 0.0
        suspicion = 1 - (1 - SUSPICIONS["proposals"]) * own
        yield (
            digest,
            Reason(
                kind="proposals",
                suspicion=suspicion if fix.action in ("relabel", "delete") else SUSPICIONS["outliers"],
                text=f"The table of fixes proposes to {what} ({fix.reason}).",
                decision="relabel" if is_new_label else "exclude" if fix.action == "delete" else None,
                label=fix.value if is_new_label else None,
            ),
        )


def _findings(report: DataReport, digest_of: Mapping[str, str]) -> Reasons:
    for finding in report.findings:
        is_usual = finding.code == "tiny_images" and finding.severity == "info"  # most are tiny
        if finding.code in SHOWN_FINDINGS and not is_usual:
            kind, text = SHOWN_FINDINGS[finding.code]
            for path in finding.paths:
                yield digest_of[path], Reason(kind=kind, suspicion=SUSPICIONS[kind], text=text)


def _most_probable(digests: Sequence[str], labels: Sequence[str], probe: Judgment | None) -> str | None:
    """The one of ``labels`` with the highest mean probability over the images; ``None`` if that is not known."""
    if probe is None:
        return None
    sums = {label: sum(probe.probability(digest, label) or 0.0 for digest in digests) for label in labels}
    return max(sums, key=lambda label: (sums[label], label))


def _opinion(probe: Judgment | None, digest: str, label: str | None) -> str:
    probability = probe.probability(digest, label) if probe and label else None
    return "" if probability is None or probe is None else f" {probe.name} gives {label} {percent(probability)}."


# --------------------------------------------------------------------------------------------------------------- items


def _image_item(
    digest: str,
    copies: Sequence[ImageRecord],
    reasons: Sequence[Reason],
    probe: Judgment | None,
    model: Judgment | None,
) -> ReviewItem:
    ranked = sorted(reasons, key=lambda reason: -reason.suspicion)
    suggestion = next((reason for reason in ranked if reason.decision), None)
    own = (probe.probability(digest, copies[0].label) if probe else None) or 0.0
    return ReviewItem(
        digest=digest,
        paths=tuple(record.path for record in copies),
        labels=tuple(sorted({record.label for record in copies})),
        kinds=tuple(dict.fromkeys(reason.kind for reason in ranked)) or ("others",),
        suspicion=ranked[0].suspicion if ranked else SUSPICIONS["others"] * (1 - own),
        decision=suggestion.decision if suggestion else None,
        label=suggestion.label if suggestion else None,
        reasons=tuple(reason.text for reason in ranked),
        related=tuple(dict.fromkeys(other for reason in ranked for other in reason.related)),
        top=judge.top(digest) if ranked and (judge := probe or model) else (),
    )


def _broken_items(broken: Sequence[RejectedFile], reasons: Mapping[str, Sequence[Reason]]) -> Iterator[ReviewItem]:
    by_digest: dict[str, list[RejectedFile]] = defaultdict(list)
    for row in broken:
        by_digest[row.digest].append(row)
    for digest, files in by_digest.items():
        error = f"{files[0].reason.replace('_', ' ')}: {files[0].detail}"
        yield ReviewItem(
            digest=digest,
            paths=tuple(file.path for file in files),
            labels=tuple(sorted({file.label for file in files if file.label})),
            kinds=tuple(dict.fromkeys(("broken_files", *(reason.kind for reason in reasons.get(digest, ()))))),
            suspicion=SUSPICIONS["broken_files"],
            decision="exclude",
            label=None,
            reasons=(f"It cannot be used: {error}.", *(reason.text for reason in reasons.get(digest, ()))),
            related=(),
            error=error,
        )
