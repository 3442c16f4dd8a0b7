"""Text is UTF-8 wherever the product reads or writes it, its JSON is strict, and it uses public names of its libraries."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from pydantic import BaseModel

import automl_tl.reports
import automl_tl.values
import automl_tl_registry.comparison
import automl_tl_registry.values

# JSON without figures, or that only the product itself reads back.
INTERNAL_JSON = {
    "bundle.py",
    "checkpoints.py",
    "contents.py",
    "facts.py",
    "formatting.py",
    "paths.py",
    "reference_features.py",
    "reference_predictions.py",
    "shards.py",
}
ROOT = Path(__file__).parents[1]
PRODUCT = sorted(file for folder in ("automl_tl", "plugins", "registry") for file in (ROOT / folder).rglob("*.py"))
OTHER_OPENERS = {"Image", "archive", "gzip", "os", "tarfile", "zipfile"}


def calls(file: Path) -> Iterator[tuple[str, str, ast.Call]]:
    """The calls in a file: what is before the last dot, the name, the call."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            receiver, _, name = ast.unparse(node.func).rpartition(".")
            yield receiver, name, node


def names_encoding(call: ast.Call) -> bool:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return any(isinstance(value, ast.Constant) and value.value == "utf-8" for value in values) or any(
        keyword.arg == "encoding" for keyword in call.keywords
    )


def is_text(receiver: str, name: str, call: ast.Call) -> bool:
    """Whether the call reads or writes a text file, or text of a process."""
    keywords = {keyword.arg for keyword in call.keywords}
    if name in {"read_text", "write_text", "TextIOWrapper"}:
        return receiver != "distribution"  # of importlib.metadata, which reads UTF-8
    if name in {"run", "Popen", "check_output"}:
        return bool(keywords & {"text", "universal_newlines"})
    if name != "open" or receiver in OTHER_OPENERS:
        return False
    literals = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    modes = [text for text in literals if set(text) <= set("rwaxbt+")]
    return any("b" not in mode for mode in modes) or not (modes or call.args)


def test_text_files_name_their_encoding() -> None:
    found = [(file, *call) for file in PRODUCT for call in calls(file) if is_text(*call)]

    assert len(found) > 10
    assert [f"{file.relative_to(ROOT)}:{call.lineno}" for file, _, _, call in found if not names_encoding(call)] == []


def test_streams_are_configured_in_one_place() -> None:
    touching = {
        str(file.relative_to(ROOT))
        for file in PRODUCT
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if (isinstance(node, ast.Attribute) and node.attr == "reconfigure")
        or (
            isinstance(node, ast.Assign)
            and any(name in ast.unparse(node.targets[0]) for name in ("sys.stdout", "sys.stderr", "sys.stdin"))
        )
    }

    assert touching == {"automl_tl/cli/streams.py"}


def test_json_for_users_is_written_without_nan() -> None:
    written = [
        (file, call) for file in PRODUCT for receiver, name, call in calls(file) if (receiver, name) == ("json", "dumps")
    ]

    assert {file.name for file, _ in written} > INTERNAL_JSON
    lax = {file.name for file, call in written if "allow_nan" not in {keyword.arg for keyword in call.keywords}}
    assert lax == INTERNAL_JSON


@pytest.mark.parametrize(
    "module", [automl_tl.values, automl_tl.reports, automl_tl_registry.values, automl_tl_registry.comparison]
)
def test_values_write_null_for_nan(module: ModuleType) -> None:
    models = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, BaseModel)]

    assert models
    assert all(model.model_config.get("ser_json_inf_nan", "null") == "null" for model in models)


@pytest.mark.parametrize("file", PRODUCT, ids=lambda file: str(file.relative_to(ROOT)))
def test_file_uses_public_names_of_pillow_and_torch(file: Path) -> None:
    nodes = [node for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) if isinstance(node, ast.Attribute)]
    private = [
        ast.unparse(node) for node in nodes if re.fullmatch(r"(torch|nn|PIL|Image\w*)(\.\w+)*\._[A-Za-z]\w+", ast.unparse(node))
    ]
    streams = [ast.unparse(node) for node in nodes if node.attr == "fp" and isinstance(node.ctx, ast.Store)]

    assert private + streams == []
