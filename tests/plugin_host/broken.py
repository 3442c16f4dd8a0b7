"""Plugins with one fault each, and how the host and the contract checks report it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tests.plugin_host.distributions import Package, strategy_source

__all__ = ["BROKEN", "Broken"]


@dataclass(frozen=True)
class Broken:
    """A package with one fault.

    Attributes:
        package: the distribution.
        name: of the plugin in it.
        failures: the contract checks that fail, each with words of its message.
        problem: why the host skips the plugin; words of it.
        note: the host's remark in the list of plugins; words of it.
        refusal: why the planner does not use it; words of it.
        has_other_failures: whether further checks fail for the same reason.
    """

    package: Package
    name: str
    failures: Mapping[str, str]
    problem: str | None = None
    note: str | None = None
    refusal: str | None = None
    has_other_failures: bool = False


def _strategy(name: str, source: str = "", contract: str = "v1", **bodies: str) -> Package:
    made = source or strategy_source(name, **bodies)
    return Package(f"tl-{name.replace('_', '-')}", made, {f"strategies.{name}": "Made"}, contract=contract)


NAN = "return Recipe(phases=(Phase(name='all', epochs=1, head_lr=float('nan')),))"
NAN_UNCHECKED = """
        phase = Phase.model_construct(name='all', epochs=1, train_blocks=(), head_lr=float('nan'))
        return Recipe.model_construct(head=Head(), phases=(phase,))
"""
BEYOND = "return Recipe(phases=(Phase(name='all', epochs=1, train_blocks=tuple(range(9))),))"
STANDSTILL = """
        phase = Phase(name='all', epochs=1, train_blocks=(0,), head_lr=1e-12, encoder_lr=1e-12)
        return Recipe(head=Head(start='random'), phases=(phase,))
"""
MUTATION = "object.__setattr__(situation, 'num_images', 1); return Expectation(suits=True, why='it is small now')"
DICE = "return Recipe(head=Head(solver='ridge'), weight_decay=random.random())"
LOCAL_DICE = "return Recipe(head=Head(solver='ridge'), weight_decay=hash('a') % 1000 / 1000)"

NETWORK = """
class Net(Backbone):
    card = BackboneCard(
        name="{name}/net", family="made", preprocessing=Preprocessing(side_px=32, crop_fraction=0.9), feature_dim=8,
        num_blocks=3, num_parameters={num_parameters}, num_macs=100_000, weights="none",
    )

    def build(self, *, pretrained: bool):
        import torch
        from torch import nn
{build}
        network = nn.Sequential(*blocks)
        return network.eval()

    def cut(self, network):
        return {cut}

def backbones():
    return [Net()]
"""
CONVOLUTIONS = """
        blocks = [nn.Conv2d(3, 8, 3, 4, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Sequential(nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1))]
        blocks[2].append(nn.AdaptiveAvgPool2d(1)).append(nn.Flatten())
"""
TIED = (
    CONVOLUTIONS
    + """
        blocks[2][1] = blocks[1]
"""
)
UNSEEDED = (
    CONVOLUTIONS
    + """
        generator = torch.Generator().manual_seed(torch.Generator().seed())
        with torch.no_grad():
            blocks[0].weight.normal_(generator=generator)
"""
)


def _network(name: str, build: str, *, num_parameters: int = 1392, cut: str = "list(network)") -> Package:
    source = NETWORK.format(name=name, build=build, num_parameters=num_parameters, cut=cut)
    return Package(f"tl-{name.replace('_', '-')}", source, {f"backbones.{name}": "backbones"})


BROKEN = (
    Broken(
        _strategy("raises_at_import", "raise RuntimeError('no license key')"),
        "raises_at_import",
        failures={"check_loads": "RuntimeError: no license key"},
        problem="RuntimeError: no license key",
    ),
    Broken(
        _strategy("exits_at_import", "import sys; sys.exit('good bye')"),
        "exits_at_import",
        failures={"check_loads": "SystemExit: good bye"},
        problem="SystemExit: good bye",
    ),
    Broken(
        _strategy("needs_more", "import missing_module_of_plugin"),
        "needs_more",
        failures={"check_loads": "Install the package that provides the module 'missing_module_of_plugin'"},
        problem="No module named 'missing_module_of_plugin'",
    ),
    Broken(
        _strategy("wrong_type", "Made = {'a': 'dict'}"),
        "wrong_type",
        failures={"check_loads": "expected a subclass of Strategy, found {'a': 'dict'}"},
        problem="expected a subclass of Strategy",
    ),
    Broken(
        _strategy("from_the_future", contract="v99"),
        "from_the_future",
        failures={"check_loads": "is written for contract v99; this automl-tl implements v1"},
        problem="is written for contract v99",
    ),
    Broken(
        Package("tl-thief", strategy_source("linear_probe"), {"strategies.linear_probe": "Made"}),
        "linear_probe",
        failures={"check_loads": "the name 'linear_probe' is also used by automl-tl"},
        problem="the name 'linear_probe' is also used by automl-tl",
    ),
    Broken(
        _strategy("slow_import", before="import time; time.sleep(0.3)"),
        "slow_import",
        failures={"check_import_is_light": "takes 0.3"},
        note="s to import; 0.2 s are allowed",
    ),
    Broken(
        _strategy("imports_torch", before="import torch"),
        "imports_torch",
        failures={"check_import_is_light": "torch is imported"},
    ),
    Broken(
        _strategy("raises_at_recipe", recipe="raise KeyError('layers')"),
        "raises_at_recipe",
        failures={"check_recipe": "KeyError: 'layers'"},
        refusal="failed while writing its recipe: KeyError: 'layers'",
        has_other_failures=True,
    ),
    Broken(
        _strategy("nine_blocks", recipe=BEYOND),
        "nine_blocks",
        failures={"check_recipe": "phase 'all' trains blocks [1, 2, 3, 4, 5, 6, 7, 8], but there are blocks 0 to 0 only"},
        refusal="but there are blocks 0 to 4 only",
        has_other_failures=True,
    ),
    Broken(
        _strategy("nan_rate", recipe=NAN),
        "nan_rate",
        failures={"check_recipe": "Input should be a finite number"},
        refusal="Input should be a finite number",
        has_other_failures=True,
    ),
    Broken(
        _strategy("nan_unchecked", recipe=NAN_UNCHECKED),
        "nan_unchecked",
        failures={"check_recipe": "Input should be a finite number"},
        refusal="Input should be a finite number",
        has_other_failures=True,
    ),
    Broken(
        _strategy("mutates", expect=MUTATION),
        "mutates",
        failures={"check_expectation": "expect changed the situation that it was given"},
        has_other_failures=True,
    ),
    Broken(
        _strategy("rolls_dice", recipe=DICE, before="import random"),
        "rolls_dice",
        failures={"check_answers_are_deterministic": "two answers for"},
    ),
    Broken(
        _strategy("hashes", recipe=LOCAL_DICE),
        "hashes",
        failures={"check_answers_are_deterministic": "another answer in a new process"},
    ),
    Broken(
        _strategy("idle_option", options="depth: int = 3"),
        "idle_option",
        failures={"check_every_option_has_an_effect": "no other value of 'depth' changes a recipe"},
    ),
    Broken(
        _strategy("learns_nothing", recipe=STANDSTILL),
        "learns_nothing",
        failures={
            "check_learns_toy_task": "chance is 33%",
            "check_trained_blocks_change": "blocks [0] are to be trained, but none of their tensors changes",
        },
    ),
    Broken(
        _network("trains_frozen", TIED, num_parameters=224 + 584),
        "trains_frozen",
        failures={
            "check_blocks_are_separate_modules": "blocks 1 and 2 share tensors",
            "check_training_changes_trained_block_only": "training block 2 changes blocks [1, 2]",
        },
    ),
    Broken(
        _network("ignores_its_seed", UNSEEDED),
        "ignores_its_seed",
        failures={"check_random_weights_follow_seed": "0.weight"},
    ),
    Broken(
        _network("copies", CONVOLUTIONS, cut="__import__('copy').deepcopy(list(network))"),
        "copies",
        failures={"check_blocks_are_separate_modules": "blocks [0, 1, 2] hold parameters that are not the network's"},
    ),
    Broken(
        _network("no_modules", CONVOLUTIONS, cut="['stem', 'body']"),
        "no_modules",
        failures={"check_builds_offline": "expected an nn.Module as each block, found str"},
        has_other_failures=True,
    ),
)
