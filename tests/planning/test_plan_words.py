"""What `tl auto plan` prints of a plan."""

from __future__ import annotations

import pytest

from automl_tl.cli.render import show_plan
from tests.reports.made_facts import made_plan


def test_a_plan_begins_with_what_the_images_are(capsys: pytest.CaptureFixture[str]) -> None:
    plan = made_plan()
    counts = plan.profile.images_per_class | {next(iter(plan.profile.images_per_class)): 90}

    show_plan(plan)
    equal = " ".join(capsys.readouterr().out.split())
    show_plan(plan.model_copy(update={"profile": plan.profile.model_copy(update={"images_per_class": counts})}))
    unequal = " ".join(capsys.readouterr().out.split())

    of_them = "median shorter side 200 px · 100% grayscale tail on lite/efficientnet_lite0"
    assert equal.startswith(f"180 training and validation images, 180 test images · 6 classes with 30 images · {of_them}")
    assert "6 classes with 30 to 90 images ·" in unequal
