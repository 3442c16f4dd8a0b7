"""Plugins that are broken on purpose, each in one way, with what the host and the kit are to say of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.plugin_host.distributions import Package, strategy_source

__all__ = ["BROKEN", "Broken"]


@dataclass(frozen=True)
class Broken:
    """``problem``: the cause that the host's list shows, ``note``: a remark there, ``refusal``: why the planner leaves it.

    ``fails`` maps the checks that fail to words of their verdicts; ``unreachable`` says that all that follow can't run.
    """

    package: Package
    name: str
    fails: Mapping[str, str]
    problem: str | None = None
    note: str | None = None
    refusal: str | None = None
    unreachable: bool = False
    kind: str = "strategy"
    wants_training: bool = field(default=False)


def _strategy(name: str, source: str = "", contract: str = "v1", **bodies: str) -> Package:
    made = source or strategy_source(name, **bodies)
    return Package(f"tl-{name.replace('_', '-')}", made, {f"strategies.{name}": "Made"}, contract=contract)


NAN = "return Recipe(phases=(Phase(name='all', epochs=1, head_lr=float('nan')),))"
NAN_UNCHECKED = """
        phase = Phase.model_construct(name='all', epochs=1, train_blocks=(), head_lr=float('nan'))
        return Recipe.model_construct(head=Head(), phases=(phase,))
"""
BEYOND = "return Recipe(phases=(Phase(name='all', epochs=1, train_blocks=tuple(range(9))),))"
STANDSTILL = "return Recipe(head=Head(start='random'), phases=(Phase(name='all', epochs=1, head_lr=1e-12),))"
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
        fails={"loads": "RuntimeError: no license key"},
        problem="RuntimeError: no license key",
        unreachable=True,
    ),
    Broken(
        _strategy("exits_at_import", "import sys; sys.exit('good bye')"),
        "exits_at_import",
        fails={"loads": "SystemExit: good bye"},
        problem="SystemExit: good bye",
        unreachable=True,
    ),
    Broken(
        _strategy("needs_more", "import a_module_that_nobody_has"),
        "needs_more",
        fails={"loads": "Install the package that provides the module 'a_module_that_nobody_has'"},
        problem="No module named 'a_module_that_nobody_has'",
        unreachable=True,
    ),
    Broken(
        _strategy("wrong_type", "Made = {'a': 'dict'}"),
        "wrong_type",
        fails={"loads": "expected a subclass of Strategy, found {'a': 'dict'}"},
        problem="expected a subclass of Strategy",
        unreachable=True,
    ),
    Broken(
        _strategy("from_the_future", contract="v99"),
        "from_the_future",
        fails={"declares_the_contract": "is written for contract v99; this automl-tl speaks v1"},
        problem="is written for contract v99",
    ),
    Broken(
        Package("tl-thief", strategy_source("linear_probe"), {"strategies.linear_probe": "Made"}),
        "linear_probe",
        fails={"has_a_name_of_its_own": "'linear_probe' is also offered by automl-tl"},
        problem="the name 'linear_probe' is also offered by automl-tl",
    ),
    Broken(
        _strategy("slow_import", before="import time; time.sleep(0.3)"),
        "slow_import",
        fails={"imports_quickly": "took 0.3"},
        note="s to import; 0.2 s are allowed",
    ),
    Broken(
        _strategy("imports_torch", before="import torch"),
        "imports_torch",
        fails={"imports_without_torch": "also loads torch", "imports_quickly": "allowed are 0.2 s"},
    ),
    Broken(
        _strategy("raises_at_recipe", recipe="raise KeyError('layers')"),
        "raises_at_recipe",
        fails={
            "recipe_is_valid_for_every_depth": "num_blocks=1: KeyError: 'layers'",
            "recipe_is_valid_for_every_size": "KeyError: 'layers'",
        },
        refusal="failed while writing its recipe: KeyError: 'layers'",
        unreachable=True,
    ),
    Broken(
        _strategy("nine_blocks", recipe=BEYOND),
        "nine_blocks",
        fails={
            "recipe_is_valid_for_every_depth": "num_blocks=1: ValueError: phase 'all' trains blocks [1, 2, 3, 4, 5, 6, 7, 8]",
            "recipe_is_valid_for_every_size": "there are blocks 0 to 0 only",
        },
        refusal="but there are blocks 0 to 4 only",
        unreachable=True,
    ),
    Broken(
        _strategy("nan_rate", recipe=NAN),
        "nan_rate",
        fails={
            "recipe_is_valid_for_every_depth": "Input should be a finite number",
            "recipe_is_valid_for_every_size": "Input should be a finite number",
        },
        refusal="Input should be a finite number",
        unreachable=True,
    ),
    Broken(
        _strategy("nan_unchecked", recipe=NAN_UNCHECKED),
        "nan_unchecked",
        fails={
            "recipe_is_valid_for_every_depth": "Input should be a finite number",
            "recipe_is_valid_for_every_size": "Input should be a finite number",
        },
        refusal="Input should be a finite number",
        unreachable=True,
    ),
    Broken(
        _strategy("sleeps", expect="import time; time.sleep(3600)"),
        "sleeps",
        fails={"answers_in_time": "did not come within 0.3 s"},
        refusal="no answer within 0.3 s",
        unreachable=True,
    ),
    Broken(
        _strategy("mutates", expect=MUTATION),
        "mutates",
        fails={"leaves_what_it_was_given_alone": "expect changed the situation it was given"},
        refusal="it changed the situation that it was given",
    ),
    Broken(
        _strategy("rolls_dice", recipe=DICE, before="import random"),
        "rolls_dice",
        fails={"answers_repeat": "asked twice", "answers_repeat_in_a_new_process": "in a new process"},
    ),
    Broken(
        _strategy("hashes", recipe=LOCAL_DICE),
        "hashes",
        fails={"answers_repeat_in_a_new_process": "in a new process"},
    ),
    Broken(
        _strategy("idle_option", options="depth: int = 3"),
        "idle_option",
        fails={"every_option_changes_something": "no other value of depth changes any recipe"},
    ),
    Broken(
        _strategy("learns_nothing", recipe=STANDSTILL),
        "learns_nothing",
        fails={"learns_the_toy_task": "guessing gives 33%"},
        wants_training=True,
    ),
    Broken(
        _network("trains_frozen", TIED, num_parameters=224 + 584),
        "trains_frozen",
        fails={"blocks_share_nothing": "blocks [(1, 2)] share tensors", "frozen_blocks_stay": "blocks [1] changed as well"},
        kind="backbones",
    ),
    Broken(
        _network("ignores_its_seed", UNSEEDED),
        "ignores_its_seed",
        fails={"fresh_weights_follow_the_seed": "0.weight differ"},
        kind="backbones",
    ),
    Broken(
        _network("copies", CONVOLUTIONS, cut="__import__('copy').deepcopy(list(network))"),
        "copies",
        fails={"blocks_are_its_own_modules": "blocks [0, 1, 2] hold parameters that are not the network's"},
        kind="backbones",
    ),
    Broken(
        _network("no_modules", CONVOLUTIONS, cut="['stem', 'body']"),
        "no_modules",
        fails={"builds_on_the_cpu": "expected an nn.Module as each block, found str"},
        kind="backbones",
        unreachable=True,
    ),
)
