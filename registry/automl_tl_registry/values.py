"""Names, references and values of the registry. Values are frozen, without unknown fields, and JSON on disk.

    Facts (from the publisher) -> Manifest (numbered, stored) -> ModelVersion (with its current aliases and tags)
    Event -> Tenure

``name`` is the latest version, ``name@3`` a version, ``name@production`` an alias. Model names are never used as paths.
NaN and infinity are not JSON; creating facts with them fails. Times are UTC.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from html import escape
from math import isfinite
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue

from automl_tl_registry.errors import InvalidNameError

LATEST: Final = "latest"
KNOWN_ALIASES: Final = ("production", "staging")
RESERVED_ROLES: Final = ("manifest",)
MAX_TEXT: Final = 2_000  # characters of a reason or an actor; an event stays one short line

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ALIAS: Final = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_ROLE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_TAG: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:=+-]{0,127}")
_NUMBER: Final = re.compile(r"[1-9][0-9]{0,8}")


@dataclass(frozen=True)
class Reference:
    """A parsed reference; at most one of ``version`` and ``alias`` is set, and neither means the latest version."""

    name: str
    version: int | None = None
    alias: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Parse ``name``, ``name@3`` or ``name@alias``."""
        name, at, rest = text.partition("@")
        checked_name(name)
        if not at or rest == LATEST:
            return cls(name)
        if _NUMBER.fullmatch(rest):
            return cls(name, version=int(rest))
        if _ALIAS.fullmatch(rest):
            return cls(name, alias=rest)
        raise InvalidNameError(text, what="a reference", expected="NAME, NAME@VERSION (a number from 1) or NAME@ALIAS")

    def __str__(self) -> str:
        rest = self.alias if self.version is None else str(self.version)
        return self.name if rest is None else f"{self.name}@{rest}"


def checked_name(text: str) -> str:
    """Return ``text`` if it is a valid model name; otherwise raise InvalidNameError."""
    return _checked(_NAME, text, what="a model name", expected="1 to 64 of a-z 0-9 . _ -, starting with a letter or digit")


def is_name(text: str) -> bool:
    """Return whether ``text`` is a valid model name."""
    return _NAME.fullmatch(text) is not None


def is_digest(value: object) -> bool:
    """Return whether ``value`` is a sha256, hexadecimal."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def checked_alias(text: str) -> str:
    """Return ``text`` if it is a valid alias; otherwise raise InvalidNameError."""
    if text == LATEST:
        raise InvalidNameError(text, what="an alias", expected="another name, because 'latest' always means the newest version")
    return _checked(_ALIAS, text, what="an alias", expected="1 to 64 of a-z 0-9 . _ -, starting with a letter")


def checked_role(text: str) -> str:
    """Return ``text`` if it is a valid blob role; otherwise raise InvalidNameError."""
    if text in RESERVED_ROLES:
        raise InvalidNameError(text, what="a role", expected="another name, because the registry writes this blob itself")
    return _checked(_ROLE, text, what="a role", expected="1 to 32 of a-z 0-9 _, starting with a letter")


def checked_tag(text: str) -> str:
    """Return ``text`` if it is a valid tag; otherwise raise InvalidNameError."""
    return _checked(_TAG, text, what="a tag", expected="1 to 128 of A-Z a-z 0-9 . _ : = + -, starting with a letter or digit")


def checked_text(text: str, *, what: str) -> str:
    """Return ``text`` if it can be recorded and shown in a terminal.

    Args:
        text: the text.
        what: noun phrase for the error, e.g. ``a reason``.

    Raises:
        InvalidNameError: too long, or with control characters.
    """
    if len(text) <= MAX_TEXT and all(character.isprintable() or character == "\n" for character in text):
        return text
    raise InvalidNameError(text, what=what, expected=f"at most {MAX_TEXT} printable characters")


def _checked(pattern: re.Pattern[str], text: str, *, what: str, expected: str) -> str:
    if pattern.fullmatch(text):
        return text
    raise InvalidNameError(text, what=what, expected=expected)


# Blobs that describe the model; it predicts without them.
EVIDENCE_ROLES: Final = (
    *("corrections", "images", "predictions"),
    *("reference_features", "reference_images", "reference_predictions"),
)


def _only_json(value: JsonValue) -> JsonValue:
    match value:
        case float() if not isfinite(value):
            raise ValueError("NaN and infinity cannot be written as JSON; omit the key or use null")
        case dict():
            for item in value.values():
                _only_json(item)
        case list():
            for item in value:
                _only_json(item)
    return value


Json = Annotated[JsonValue, AfterValidator(_only_json)]
JsonObject = dict[str, Json]
Fraction = Annotated[float, Field(ge=0, le=1)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
Role = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
Number = Annotated[int, Field(ge=1, lt=1_000_000_000, strict=True)]


class Value(BaseModel):
    """Base of all values: frozen, strict about its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Metrics(BaseModel):
    """Measurements on the test images. Any further key may be added, with any JSON value."""

    model_config = ConfigDict(frozen=True, extra="allow", defer_build=True)
    __pydantic_extra__: dict[str, Json]

    accuracy: Fraction
    interval: tuple[Fraction, Fraction] = Field(description="confidence interval of the accuracy, usually 95%")
    num_images: int = Field(ge=0)

    def figure(self, key: str) -> float | None:
        """Return the additional metric ``key`` if it is a number."""
        value = (self.__pydantic_extra__ or {}).get(key)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def headline(self) -> tuple[str, float, tuple[float, float] | None]:
        """Name, value and interval of the metric to read first; accuracy, unless ``headline`` names a recorded one."""
        name = next(iter(self.texts("headline")), "accuracy")
        value = self.figure(name)
        if name == "accuracy" or value is None:
            return "accuracy", self.accuracy, self.interval
        interval = (self.__pydantic_extra__ or {}).get(f"{name}_interval")
        if isinstance(interval, list | tuple) and len(interval) == 2:
            return name, value, (float(str(interval[0])), float(str(interval[1])))
        return name, value, None

    def texts(self, key: str) -> tuple[str, ...]:
        """Return the additional metric ``key`` if it is a text or a list of texts."""
        value = (self.__pydantic_extra__ or {}).get(key)
        values = value if isinstance(value, list) else [value]
        return tuple(text for text in values if isinstance(text, str))


class Facts(Value):
    """Facts about a version, from its publisher. Additional facts belong in ``extra``."""

    task: Literal["image-classification"] = "image-classification"
    classes: list[str] = Field(min_length=1, description="class names in the order of the model's outputs")
    preprocessing: JsonObject
    backbone: str
    strategy: str
    model_digest: str = Field(description="digest of the trained weights, computed by the trainer")
    metrics: Metrics
    latency_ms: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="latency per image, ms"
    )
    plan: JsonObject = {}
    data: JsonObject = Field(default={}, description="fingerprint, split digests, counts")
    environment: JsonObject = Field(default={}, description="hardware; versions of packages and plugins")
    lineage: JsonObject = Field(default={}, description="code version, seeds, command")
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(default=None, description="total time, s")
    notes: str = ""
    extra: JsonObject = {}


class Blob(Value):
    """A file of the content-addressed store."""

    digest: Digest = Field(description="sha256 of the file, hexadecimal")
    size_bytes: int = Field(ge=0)


class Manifest(Value):
    """Everything that is fixed about a version. Its JSON is in the header of the version's manifest blob."""

    format: Literal["automl_tl.manifest/1"] = "automl_tl.manifest/1"
    name: Name
    version: Number
    created_at: datetime
    actor: str
    parent: str | None = Field(default=None, description="the version this one was derived from, as NAME@VERSION")
    origin: Digest | None = Field(default=None, description="digest of the manifest blob this one was imported from")
    blobs: dict[Role, Blob]
    facts: Facts


class ModelVersion(Value):
    """A published version, with its aliases and tags at the time of the query."""

    name: str
    version: int
    aliases: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    created_at: datetime
    actor: str
    parent: str | None = None
    origin: str | None = None
    manifest_digest: str
    blobs: dict[str, Blob]
    facts: Facts

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    @property
    def size_bytes(self) -> int:
        """Size of the blobs needed to predict, without the evidence."""
        return sum(blob.size_bytes for role, blob in self.blobs.items() if role not in EVIDENCE_ROLES)

    COLUMNS: ClassVar = ("model", "aliases", "test accuracy", "95% CI", "backbone", "strategy", "MiB", "created")

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts of the columns."""
        metrics = self.facts.metrics
        figures = (f"{metrics.accuracy:.1%}", f"{metrics.interval[0]:.1%} to {metrics.interval[1]:.1%}")
        made = (self.facts.backbone, self.facts.strategy, f"{self.size_bytes / 2**20:.1f}")
        return (self.ref, ", ".join(self.aliases), *figures, *made, f"{self.created_at.astimezone():%Y-%m-%d %H:%M}")


class Event(Value):
    """One entry of the log. ``hash`` covers all other fields; ``previous`` is the hash of the preceding entry."""

    seq: int
    at: datetime
    actor: str
    verb: str
    name: str | None = None
    version: int | None = None
    alias: str | None = None
    detail: dict[str, JsonValue] = {}
    previous: str
    hash: str


class Tenure(Value):
    """A period during which an alias pointed to one version; ``until`` is None while it lasts."""

    name: str
    alias: str
    version: int
    since: datetime
    until: datetime | None = None
    actor: str
    reason: str | None = None
    forced: bool = False
    verb: str = Field(description="the event that started it: promoted or rolled-back")

    @property
    def ref(self) -> str:
        """``name@version``."""
        return f"{self.name}@{self.version}"

    COLUMNS: ClassVar = ("alias", "version", "from", "until", "who", "how", "why")

    @property
    def cells(self) -> tuple[str, ...]:
        """Texts of the columns."""
        until = "now" if self.until is None else f"{self.until.astimezone():%Y-%m-%d %H:%M}"
        when = (f"{self.since.astimezone():%Y-%m-%d %H:%M}", until)
        how = self.verb + (" (forced)" if self.forced else "")
        return (f"{self.name}@{self.alias}", self.ref, *when, self.actor, how, self.reason or "")


Listed = TypeVar("Listed", ModelVersion, Tenure)


class Listing(list[Listed]):
    """A list of versions or tenures, which notebooks show as a table without colors of its own."""

    def _repr_html_(self) -> str:
        def row(tag: str, cells: Iterable[str]) -> str:
            return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

        if not self:
            return "<p>none</p>"
        body = "".join(row("td", listed.cells) for listed in self)
        return f"<table><thead>{row('th', self[0].COLUMNS)}</thead><tbody>{body}</tbody></table>"


GateName = Literal[
    "integrity",
    "signature",
    "comparison",
    "accuracy",
    "class-floor",
    "latency",
    "size",
    "calibration",
    "reference-predictions",
]


class GateResult(Value):
    """Result of one gate; ``text`` holds the figures."""

    gate: GateName
    verdict: Literal["passed", "failed", "skipped"]
    text: str


class Signature(Value):
    """The signature of a version. ``changed`` is False if the version was signed with this key before."""

    ref: str
    key: str = Field(description="sha256 of the public key in PEM")
    path: str = Field(description="the Sigstore bundle")
    files: tuple[str, ...]
    changed: bool = True


class Transfer(Value):
    """What a push or a pull moved, and what it left alone (``notes``)."""

    name: str
    url: str
    versions: tuple[str, ...] = ()
    num_present: int = 0
    num_files: int = 0
    num_bytes: int = 0
    num_events: int = 0
    notes: tuple[str, ...] = ()


class AliasChange(Value):
    """Result of an alias change. ``version`` is None if the alias was removed; ``changed`` is False if nothing moved."""

    name: str
    alias: str
    version: int | None
    previous: int | None
    changed: bool = True
    forced: bool = False
    gates: tuple[GateResult, ...] = ()
    notes: tuple[str, ...] = ()


class Anywhere(Enum):
    """Type of ``ANYWHERE``."""

    ANYWHERE = "anywhere"


ANYWHERE: Final = Anywhere.ANYWHERE  # the alias may currently point to any version, or be unset


@dataclass(frozen=True)
class VersionView:
    """Files of a version, with checked digests. ``version`` is None while it is being published."""

    name: str
    version: int | None
    facts: Facts
    paths: Mapping[str, Path]
