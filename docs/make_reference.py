"""Write the reference pages from the code: `make docs`.

``--check`` only lists outdated pages; a test runs it. To add a page, write a function that returns its text and add it to
``PAGES``.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from automl_tl import contracts
from automl_tl.contracts import (
    Answer,
    Backbone,
    BackboneCard,
    Executor,
    Expectation,
    Head,
    Job,
    Phase,
    Preprocessing,
    Recipe,
    Situation,
    Strategy,
)
from automl_tl.plugin_host.catalog import SLOW_IMPORT_S
from automl_tl.plugin_host.discovery import GROUPS
from automl_tl.testing import BACKBONE_CHECKS, STRATEGY_CHECKS
from automl_tl.values import Value

__all__ = ["PAGES", "main", "pages"]

HERE: Final = Path(__file__).parent
GENERATED: Final = "<!-- Written by docs/make_reference.py from the code: change the code, then run `make docs`. -->\n"

UNITS: Final = {"_px": "pixels", "_s": "seconds", "_mib": "MiB", "_ms": "milliseconds", "_fraction": "0 to 1"}
BOUNDS: Final = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}

HOOKS: Final[tuple[tuple[type, str], ...]] = (
    (Strategy, "recipe"),
    (Strategy, "expect"),
    (Backbone, "card"),
    (Backbone, "build"),
    (Backbone, "cut"),
    (Backbone, "classifier"),
    (Backbone, "read_weights"),
    (Executor, "slots"),
    (Executor, "run"),
    (Executor, "close"),
)
# What arguments and return values are beyond their type: shape, dtype, range, unit, or a link to a table.
PASSED: Final[Mapping[str, str]] = {
    "situation": "see [Situation](#situation); frozen, a new copy for each call",
    "pretrained": "whether to load the card's weights; if false, random ones from torch's global generator",
    "network": "returned by `build`; in eval mode, float32, on the CPU; possibly with other weights of the same shapes",
    "file": "path of a file of the user, with any content",
    "Mapping[str, Tensor] | None": "tensors by their names in `network`, on the CPU, in any shape, or `None`",
    "Recipe": "see [Recipe](#recipe)",
    "Expectation": "see [Expectation](#expectation)",
    "BackboneCard": "see [BackboneCard](#backbonecard); read once, when the plugin is loaded",
    "nn.Module": "in eval mode, float32, on the CPU: images `(B, 3, H, W)`, normalized, to logits `(B, classes)`",
    "Sequence[nn.Module]": "in order: images `(B, 3, H, W)`, float32, normalized, to features `(B, feature_dim)`, float32",
    "jobs": "see [Job](#job); perhaps millions, taken one by one",
    "perform": "does a job: call it in a process where automl_tl is installed; it can be pickled",
    "is_over": "whether the budget is used up or the user pressed Ctrl-C",
    "Slots": "numbers of CPUs and GPUs",
    "Iterator[tuple[Job, Answer]]": "each job with its [Answer](#answer), as it ends, in any order",
    "None": "nothing",
    "nn.Module | None": "features `(B, feature_dim)`, float32, to logits `(B, classes)`, or `None`",
}


def contract_reference() -> str:
    """Return the page for plugin authors."""
    return "\n".join(
        [
            GENERATED,
            f"# Plugin contract, version {contracts.CONTRACT_VERSION}\n",
            "What `automl_tl.contracts` provides to plugins, and what automl_tl requires of them. The guide is",
            "[plugin-authors.md](plugin-authors.md).\n",
            *_entry_points(),
            "## Methods\n",
            *(line for owner, name in HOOKS for line in _hook(owner, name)),
            "## Values\n",
            "All are frozen and reject unknown fields, NaN and infinity.\n",
            *(
                line
                for kind in (Situation, Expectation, Recipe, Head, Phase, BackboneCard, Preprocessing, Job, Answer)
                for line in _value(kind)
            ),
            *_limits(),
            *_checks("strategy", STRATEGY_CHECKS),
            *_checks("backbone", BACKBONE_CHECKS),
        ]
    )


PAGES: Final[Mapping[str, Callable[[], str]]] = {"contract-reference.md": contract_reference}


def pages() -> dict[Path, str]:
    """Return the text of each page by file."""
    return {HERE / name: make() for name, make in PAGES.items()}


def _entry_points() -> Iterator[str]:
    yield "## Entry points\n"
    yield "| group | names | value |"
    yield "| --- | --- | --- |"
    provides = {
        "strategy": "a subclass of `Strategy`",
        "backbones": "a function that returns a sequence of `Backbone` objects",
        "executor": "a subclass of `Executor`, or a function that returns one",
    }
    for group, kind in GROUPS.items():
        yield f"| `{group}` | lower-case letters, digits, underscores | {provides[kind]} |"
    yield f'| `automl_tl.contract` | `version` | `"v{contracts.CONTRACT_VERSION}"`: read without importing the plugin |\n'


def _hook(owner: type, name: str) -> Iterator[str]:
    attribute = inspect.getattr_static(owner, name)
    function: Callable[..., object] = attribute.fget if isinstance(attribute, property) and attribute.fget else attribute
    signature = inspect.signature(function)
    yield f"### {owner.__name__}.{name}\n"
    yield f"{_plain(inspect.getdoc(attribute))}\n"
    yield "| | name | type | description |"
    yield "| --- | --- | --- | --- |"
    for parameter in list(signature.parameters.values())[1:]:
        yield f"| argument | `{parameter.name}` | `{parameter.annotation}` | {PASSED[parameter.name]} |".replace(
            " | None`", " \\| None`"
        )
    returned = signature.return_annotation
    yield f"| returns | | `{returned}` | {PASSED[returned]} |\n".replace(" | None`", " \\| None`")


def _plain(docstring: str | None) -> str:
    """A Google-style docstring as Markdown: sections become paragraphs."""
    lines = (docstring or "").replace("``", "`").splitlines()
    return "\n".join(
        f"**{line.rstrip(':')}**\n" if line in ("Args:", "Returns:", "Raises:", "Attributes:") else line.strip()
        for line in lines
    )


def _value(kind: type[Value]) -> Iterator[str]:
    yield f"### {kind.__name__}\n"
    yield f"{_plain(inspect.getdoc(kind))}\n"
    yield "| field | type | default | description |"
    yield "| --- | --- | --- | --- |"
    for name, field in kind.model_fields.items():
        description = "; ".join(part for part in (_unit(name), field.description or "") if part)
        yield f"| `{name}` | {_type(field)} | {_default(field)} | {description.replace('``', '`')} |"
    yield ""


def _unit(name: str) -> str:
    return next((unit for suffix, unit in UNITS.items() if name.endswith(suffix)), "")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return f"`{type(default).__name__}()`" if isinstance(default, Value) else f"`{default!r}`"


def _type(field: FieldInfo) -> str:
    return ", ".join([f"`{_type_name(field.annotation)}`".replace("|", "\\|"), *_bounds(field.metadata)])


def _bounds(metadata: Iterable[object]) -> list[str]:
    return [f"{sign} {getattr(bound, key):g}" for bound in metadata for key, sign in BOUNDS.items() if hasattr(bound, key)]


def _type_name(annotation: Any) -> str:  # noqa: ANN401 - an annotation can be anything
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return " ".join([_type_name(inner[0]), ", ".join(_bounds(inner[1].metadata))])
    if origin is Literal:
        return " | ".join(repr(each) for each in inner)
    if origin in (UnionType, Union):
        return " | ".join(_type_name(each) for each in inner)
    if origin is not None:
        return f"{origin.__name__}[{', '.join('...' if each is Ellipsis else _type_name(each) for each in inner)}]"
    return "None" if annotation is NoneType else str(getattr(annotation, "__name__", annotation))


def _limits() -> Iterator[str]:
    yield "## Limits\n"
    yield "| what | limit | if exceeded |"
    yield "| --- | --- | --- |"
    yield f"| importing a plugin's module | {SLOW_IMPORT_S:g} s | a note in `tl plugins list`; `check_import_is_light` fails |"
    yield ""


def _checks(kind: str, checks: tuple[Callable[..., None], ...]) -> Iterator[str]:
    yield f"## The {len(checks)} checks of a {kind}\n"
    yield "| check | what the plugin must do |"
    yield "| --- | --- |"
    for check in checks:
        promise = (check.__doc__ or "").partition("\n")[0]
        yield f"| `{check.__name__}` | {promise.replace('``', '`')} |"
    yield ""


def main(*, only_check: bool) -> int:
    """Write the outdated pages, or only list them; return the number of pages that are still outdated."""
    outdated = [file for file, text in pages().items() if not file.exists() or file.read_text("utf-8") != text]
    for file in outdated:
        print(f"{file.name} is outdated" if only_check else f"{file.name} written", file=sys.stderr)
        if not only_check:
            file.write_text(pages()[file], "utf-8")
    return len(outdated) if only_check else 0


if __name__ == "__main__":
    sys.exit(main(only_check="--check" in sys.argv[1:]))
