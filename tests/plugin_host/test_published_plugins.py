"""From `tl plugins new` to a model: real wheels, installed by pip into a virtual environment, and the real `tl`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from automl_tl.plugin_host.scaffold import write_package
from tests.fakes import write_colors
from tests.plugin_host.published import Environment, build_wheels, make_environment

pytestmark = pytest.mark.integration

REPOSITORY = Path(__file__).parents[2]
EXAMPLES = [REPOSITORY / "examples" / name for name in ("automl-tl-surgical", "automl-tl-local-checkpoints")]
LONG_NAME = "careful_tuning_of_the_last_one"  # the maximum length: lines of the generated code must still fit
CHECKPOINT = """
import sys, torch
from safetensors.torch import save_file
from torchvision.models.resnet import BasicBlock, ResNet
torch.manual_seed(0)
network = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)
metadata = {"side_px": "32", "imagenet_top1": "0.99", "pretrained_on": "a seed", "license": "CC0-1.0"}
save_file(network.state_dict(), sys.argv[1], metadata=metadata)
"""


@pytest.fixture(scope="module")
def scaffolds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A strategy and a backbone package as `tl plugins new` writes them."""
    into = tmp_path_factory.mktemp("scaffolds")
    return {kind: write_package(kind, name, into)[0] for kind, name in (("strategy", LONG_NAME), ("backbone", "own_nets"))}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, scaffolds: dict[str, Path]) -> Iterator[Environment]:
    """An environment with the two examples and the two scaffolds installed from their wheels."""
    folder = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TL_CHECKPOINTS", str(folder / "checkpoints"))
        patch.delenv("TL_DISABLE_PLUGINS", raising=False)
        environment = make_environment(folder)
        environment.install(build_wheels([*EXAMPLES, *scaffolds.values()], folder))
        (folder / "checkpoints").mkdir()
        environment.run("-c", CHECKPOINT, folder / "checkpoints" / "mine.safetensors")
        yield environment


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return write_colors(tmp_path / "images", per_class=15)


def test_list_shows_installed_plugins(published: Environment) -> None:
    rows = json.loads(published.tl("plugins", "list", "--json").stdout)

    plugins = {row["name"]: (row["distribution"], row["num_backbones"]) for row in rows if row["distribution"] != "automl-tl"}
    assert plugins == {
        "surgical": ("automl-tl-surgical", 0),
        "checkpoints": ("automl-tl-local-checkpoints", 1),
        LONG_NAME: ("automl-tl-careful-tuning-of-the-last-one", 0),
        "own_nets": ("automl-tl-own-nets", 1),
    }
    assert [row["problem"] for row in rows if row["name"] in plugins] == [None] * 4


def test_check_passes_scaffolds_and_examples(published: Environment) -> None:
    process = published.tl("plugins", "check", "surgical", "automl-tl-local-checkpoints", LONG_NAME, "own_nets", "--json")

    checks = [check for report in json.loads(process.stdout) for check in report["checks"]]
    assert [check for check in checks if check["outcome"] == "failed"] == []
    assert process.returncode == 0


def test_fit_uses_scaffolded_strategy_and_example_backbone(published: Environment, images: Path) -> None:
    chosen = ("--strategy", LONG_NAME, "--backbone", "checkpoints/mine")

    fitted = published.tl("auto", "fit", images, "--name", "scaffolded", *chosen, "--json")

    assert fitted.returncode == 0, fitted.stderr
    result = json.loads(fitted.stdout)
    assert (result["plan"]["strategy"], result["plan"]["backbone"]) == (LONG_NAME, "checkpoints/mine")
    predicted = published.tl("predict", "scaffolded", images / "red" / "000.png", "--json")
    assert json.loads(predicted.stdout)["label"] in {"green", "red"}, predicted.stderr


def test_plan_considers_third_party_backbones(published: Environment, images: Path) -> None:
    planned = published.tl("auto", "plan", images, "--json")

    assert planned.returncode == 0, planned.stderr
    plan = json.loads(planned.stdout)
    assert "checkpoints/mine" in {candidate["backbone"] for candidate in plan["candidates"]}


def test_scaffolded_code_passes_ruff_and_mypy(scaffolds: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MYPYPATH", "src")
    cache = REPOSITORY / ".mypy_cache" / "scaffold"  # the second package does not read all of torch again

    for folder in scaffolds.values():
        for tool in (
            ["ruff", "format", "--check", "."],
            ["ruff", "check", "--no-cache", "."],
            ["mypy", "--cache-dir", str(cache), "src", "tests"],
        ):
            process = subprocess.run(
                [sys.executable, "-m", *tool], cwd=folder, capture_output=True, text=True, timeout=300, check=False
            )
            assert process.returncode == 0, f"{' '.join(tool)}\n{process.stdout}{process.stderr}"
