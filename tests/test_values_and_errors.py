"""Values are frozen, strict and survive JSON; errors are complete and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

import automl_tl
from automl_tl import contracts, errors, values
from automl_tl.values import Phase, Preprocessing, Recipe, Value
from automl_tl_registry import errors as registry_errors

ROOT = Path(__file__).parents[1]


def test_value_is_frozen_and_rejects_unknown_fields() -> None:
    recipe = Recipe()

    with pytest.raises(ValidationError, match="frozen"):
        recipe.batch_size = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="LR"):
        Phase.model_validate({"name": "p", "epochs": 1, "LR": 0.1})


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_phase_rejects_invalid_learning_rate(wrong: float) -> None:
    with pytest.raises(ValidationError):
        Phase(name="p", epochs=1, head_lr=wrong)


def test_recipe_rejects_duplicate_phase_names() -> None:
    phase = Phase(name="cycle", epochs=1)

    with pytest.raises(ValidationError, match="must be unique"):
        Recipe(phases=(phase, phase))


def test_value_survives_json() -> None:
    recipe = Recipe(phases=(Phase(name="p", epochs=1, train_blocks=(0, 1)),))

    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Preprocessing.model_validate_json(Preprocessing(side_px=9).model_dump_json()).side_px == 9


@pytest.mark.parametrize("module", [automl_tl, contracts, errors, values], ids=lambda module: module.__name__)
def test_module_lists_every_public_class_in_all(module: object) -> None:
    names = list(module.__all__)  # type: ignore[attr-defined]
    own = {
        name
        for name, member in vars(module).items()
        if isinstance(member, type) and member.__module__ == module.__name__  # type: ignore[attr-defined]
    }

    assert own <= set(names)


def test_error_tree_lists_every_error_and_its_exit_code_is_documented() -> None:
    documented = set(re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "json.md").read_text(), flags=re.MULTILINE))
    classes = [member for member in vars(errors).values() if isinstance(member, type) and issubclass(member, Exception)]

    assert errors.__doc__ is not None
    for error in classes:
        assert error.__name__ in errors.__doc__
        assert str(error.exit_code) in documented  # type: ignore[attr-defined]


def test_error_tree_names_the_exit_codes_of_the_registry() -> None:
    classes = [member for member in vars(registry_errors).values() if isinstance(member, type)]
    codes = {member.exit_code for member in classes if issubclass(member, registry_errors.RegistryError)}

    assert codes - {1} == {2, *range(6, 11)}
    assert "exit codes 2 and 6 to 10" in (errors.__doc__ or "")


def test_value_class_has_a_docstring() -> None:
    for name in values.__all__:
        member = getattr(values, name)
        if isinstance(member, type) and issubclass(member, Value):
            assert member.__doc__, name
