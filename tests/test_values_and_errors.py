"""Values are frozen, strict and JSON; errors are complete and documented."""

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


def test_values_are_frozen_and_refuse_what_they_do_not_know() -> None:
    recipe = Recipe()

    with pytest.raises(ValidationError, match="frozen"):
        recipe.batch_size = 3  # type: ignore[misc]
    with pytest.raises(ValidationError, match="LR"):
        Phase.model_validate({"name": "p", "epochs": 1, "LR": 0.1})


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -1.0])
def test_a_rate_is_a_positive_number(wrong: float) -> None:
    with pytest.raises(ValidationError):
        Phase(name="p", epochs=1, head_lr=wrong)


def test_phases_have_names_of_their_own() -> None:
    twice = Phase(name="cycle", epochs=1)

    with pytest.raises(ValidationError, match="must be unique"):
        Recipe(phases=(twice, twice))


def test_values_survive_json() -> None:
    recipe = Recipe(phases=(Phase(name="p", epochs=1, train_blocks=(0, 1)),))

    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert Preprocessing.model_validate_json(Preprocessing(side_px=9).model_dump_json()).side_px == 9


@pytest.mark.parametrize("module", [automl_tl, contracts, errors, values], ids=lambda module: module.__name__)
def test_every_public_class_is_in_all(module: object) -> None:
    names = list(module.__all__)  # type: ignore[attr-defined]
    own = {
        name
        for name, thing in vars(module).items()
        if isinstance(thing, type) and thing.__module__ == module.__name__  # type: ignore[attr-defined]
    }

    assert own <= set(names)


def test_every_error_stands_in_the_tree_and_has_a_documented_exit_code() -> None:
    documented = set(re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "json.md").read_text(), flags=re.MULTILINE))
    classes = [thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, Exception)]

    assert errors.__doc__ is not None
    for error in classes:
        assert error.__name__ in errors.__doc__
        assert str(error.exit_code) in documented  # type: ignore[attr-defined]


def test_the_tree_says_which_exit_codes_the_registry_has() -> None:
    classes = [thing for thing in vars(registry_errors).values() if isinstance(thing, type)]
    codes = {thing.exit_code for thing in classes if issubclass(thing, registry_errors.RegistryError)}

    assert codes - {1} == {2, *range(6, 11)}
    assert "exit codes 2 and 6 to 10" in (errors.__doc__ or "")


def test_every_value_says_what_it_is() -> None:
    for name in values.__all__:
        thing = getattr(values, name)
        if isinstance(thing, type) and issubclass(thing, Value):
            assert thing.__doc__, name
