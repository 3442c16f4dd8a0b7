"""``tl auto``: plan and fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from automl_tl.cli.options import (
    AsJson,
    Images,
    RegistryDir,
    duration_s,
    hidden_dims,
    latency_ms,
    size_mib,
    strategy_options,
)
from automl_tl.cli.render import show_outcome, show_plan
from automl_tl.cli.telling import ConsoleProgress, print_json

if TYPE_CHECKING:
    from automl_tl.values import Constraints

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Plan, train, measure and register a classifier.")

Backbones = Annotated[
    list[str] | None, typer.Option("--backbone", help="Choose among these; repeatable. Default: all that are installed.")
]
Strategies = Annotated[
    list[str] | None, typer.Option("--strategy", help="Choose among these; repeatable. Default: all that are installed.")
]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Of the one strategy asked for; repeatable.")
]
Weights = Annotated[
    str | None, typer.Option(help="File (safetensors, .pth) for the one backbone asked for; none: random weights.")
]
HeadShape = Annotated[
    str | None, typer.Option("--head", metavar="HEAD", help="linear, or mlp:4096,4096. Default: the strategy's.")
]
Budget = Annotated[
    float | None,
    typer.Option(parser=duration_s, metavar="TIME", help="For the whole command: 30s, 5m, 1h.", show_default=False),
]
MaxLatency = Annotated[
    float | None,
    typer.Option(parser=latency_ms, metavar="TIME", help="Of one image on this machine, in torch: 20ms.", show_default=False),
]
MaxSize = Annotated[
    float | None, typer.Option(parser=size_mib, metavar="SIZE", help="Of the weights: 20MB.", show_default=False)
]
License = Annotated[
    Literal["permissive"] | None, typer.Option("--license", help="Only weights whose license is known to be permissive.")
]
Goal = Literal["accuracy", "balanced", "latency", "size"]
Optimize = Annotated[
    Goal, typer.Option(help="What a tie goes to: latency and size give up two points of accuracy, balanced half a point.")
]
BESIDE_A_PLAN: Final = ("images", "name", "budget", "registry", "plan", "as_json")
Seed = Annotated[int, typer.Option(min=0, help="Of the split, the folds and the training.")]


@app.command(epilog="Example: tl auto fit ./images --budget 5m")
def fit(
    context: typer.Context,
    images: Images,
    name: Annotated[str | None, typer.Option(help="Of the model in the registry. Default: that of the folder.")] = None,
    backbone: Backbones = None,
    strategy: Strategies = None,
    option: Options = None,
    weights: Weights = None,
    head: HeadShape = None,
    budget: Budget = None,
    max_latency: MaxLatency = None,
    max_size: MaxSize = None,
    license: License = None,
    optimize: Optimize = "balanced",
    seed: Seed = 0,
    registry: RegistryDir = None,
    plan: Annotated[
        Path | None,
        typer.Option(
            help="Carry out this saved plan (JSON of `tl auto plan`), with its constraints and, unless given, its budget."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose, train, measure and register a classifier for IMAGES."""
    from automl_tl.workflows.fit import auto_fit

    constraints = _constraints(
        backbone, strategy, option, weights, head, budget, max_latency, max_size, license, optimize, seed
    )
    given = None
    if plan:
        from automl_tl.planning import read_plan

        _refuse_constraints(context)
        given = read_plan(plan)
        constraints = given.constraints if budget is None else given.constraints.model_copy(update={"budget_s": budget})
    outcome = auto_fit(images, name=name, constraints=constraints, plan=given, registry=registry, progress=ConsoleProgress())
    print_json(outcome) if as_json else show_outcome(outcome)


@app.command("plan", epilog="Example: tl auto plan ./images --json > plan.json")
def make_plan(
    images: Images,
    backbone: Backbones = None,
    strategy: Strategies = None,
    option: Options = None,
    weights: Weights = None,
    head: HeadShape = None,
    budget: Budget = None,
    max_latency: MaxLatency = None,
    max_size: MaxSize = None,
    license: License = None,
    optimize: Optimize = "balanced",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Say what `tl auto fit` would start with for IMAGES, and why; nothing is trained."""
    from automl_tl.workflows.fit import auto_plan

    constraints = _constraints(
        backbone, strategy, option, weights, head, budget, max_latency, max_size, license, optimize, seed
    )
    plan = auto_plan(images, constraints=constraints, progress=ConsoleProgress())
    print_json(plan) if as_json else show_plan(plan)


def _refuse_constraints(context: typer.Context) -> None:
    """Raise if the command line has a wish beside ``--plan``: the plan was made from constraints of its own."""
    given = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in BESIDE_A_PLAN and _is_given(context, str(parameter.name))
    ]
    if given:
        raise typer.BadParameter(
            f"--plan carries out what was planned, {', '.join(given)} would change it. "
            "Leave them out, or give them to `tl auto plan` and make the plan anew"
        )


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _constraints(
    backbones: list[str] | None,
    strategies: list[str] | None,
    options: list[str] | None,
    weights: str | None,
    head: str | None,
    budget_s: float | None,
    max_latency_ms: float | None,
    max_size_mib: float | None,
    license: Literal["permissive"] | None,
    optimize: Goal,
    seed: int,
) -> Constraints:
    from automl_tl.values import Constraints

    return Constraints(
        backbones=tuple(backbones or ()),
        strategies=tuple(strategies or ()),
        options=strategy_options(options or []),
        weights=weights,
        hidden_dims=None if head is None else hidden_dims(head),
        budget_s=budget_s,
        max_latency_ms=max_latency_ms,
        max_size_mib=max_size_mib,
        license=license,
        optimize=optimize,
        seed=seed,
    )
