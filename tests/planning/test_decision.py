"""The decision is total, obeys every wish, and knows no plugin by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from automl_tl.catalog import discover
from automl_tl.errors import ImpossibleWishError, PlanFileError, UnknownBackboneError
from automl_tl.planning import make_plan
from automl_tl.planning.wishes import adapted
from automl_tl.values import DatasetProfile, Head, Phase, Plan, Recipe, Wishes

CATALOG = discover(only_host=True)
LITE = ("lite/efficientnet_lite0", "lite/efficientnet_lite1", "lite/efficientnet_lite2")


def profile(num_images: int = 400, num_classes: int = 4, num_test_images: int = 100) -> DatasetProfile:
    per_class = max(1, num_images // num_classes)
    return DatasetProfile(
        num_images=num_images,
        num_test_images=num_test_images,
        num_classes=num_classes,
        images_per_class={str(number): per_class for number in range(num_classes)},
        min_images_per_class=per_class,
        imbalance=1.0,
        median_side_px=200,
        max_side_px=300,
        grey_fraction=0.0,
        num_groups=num_images,
        num_duplicates=0,
        fingerprint="0" * 64,
    )


@given(num_images=st.integers(4, 10**6), num_classes=st.integers(2, 1000), budget_s=st.none() | st.floats(1, 1e5))
def test_any_profile_gets_a_plan_with_reasons(num_images: int, num_classes: int, budget_s: float | None) -> None:
    plan = make_plan(profile(num_images, num_classes), CATALOG, Wishes(budget_s=budget_s, backbones=LITE))

    assert plan.backbone in LITE
    assert all(plan.reasons)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_the_same_question_gets_the_same_answer() -> None:
    assert make_plan(profile(), CATALOG, Wishes()) == make_plan(profile(), CATALOG, Wishes())


def test_a_short_budget_never_gets_a_dearer_backbone() -> None:
    many = profile(num_images=5000)
    macs = [
        CATALOG.backbone(make_plan(many, CATALOG, Wishes(budget_s=budget_s, backbones=LITE)).backbone).card.num_macs or 0
        for budget_s in (10.0, 300.0, 1000.0, 10_000.0)
    ]

    assert macs == sorted(macs)


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(max_size_mib=0.001), "MiB"),
        (Wishes(backbones=("torchvision/resnet18",), licence="permissive"), "licence"),
        (Wishes(options={"epochs": 3}), "--strategy"),
        (Wishes(weights="mine.safetensors"), "--backbone"),
    ],
    ids=lambda each: str(each)[:40],
)
def test_an_impossible_wish_names_what_is_nearest(wishes: Wishes, said: str) -> None:
    with pytest.raises(ImpossibleWishError, match=said):
        make_plan(profile(), CATALOG, wishes)


def test_an_unknown_backbone_is_not_a_wish() -> None:
    with pytest.raises(UnknownBackboneError, match="lite/efficientnet_lite0"):
        make_plan(profile(), CATALOG, Wishes(backbones=("lite/efficientnet_lite00",)))


@pytest.mark.parametrize("strategy", sorted(CATALOG.strategies))
def test_every_strategy_can_be_asked_for(strategy: str) -> None:
    plan = make_plan(profile(), CATALOG, Wishes(strategies=(strategy,), backbones=LITE[:1]))

    assert plan.strategy == strategy
    assert plan.recipe.phases or plan.recipe.head.solver


def test_random_weights_and_another_head_reach_the_recipe() -> None:
    solved = Recipe(head=Head(solver="logistic"))
    trained = Recipe(phases=(Phase(name="all", epochs=2, train_blocks=(0,)),))

    assert adapted(solved, Wishes()) == solved
    assert adapted(trained, Wishes(weights="none")).pretrained is False
    assert adapted(solved, Wishes(hidden_dims=(8,))).head.solver is None
    assert len(adapted(solved, Wishes(hidden_dims=(8,))).phases) == 1
    assert adapted(trained, Wishes(hidden_dims=(8,))).phases == trained.phases


def test_random_weights_are_not_probed() -> None:
    plan = make_plan(profile(), CATALOG, Wishes(weights="none", backbones=LITE[:1]))

    assert plan.recipe.pretrained is False
    assert plan.recipe.phases


def test_plan_files_say_what_is_wrong_with_them() -> None:
    assert "tl auto plan" in str(PlanFileError("plan.json", "broken"))
