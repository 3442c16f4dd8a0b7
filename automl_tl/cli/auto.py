"""``tl auto``: plan and fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

import automl_tl
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

app = typer.Typer(no_args_is_help=True, help="Plan, train, evaluate and register a classifier.")

Backbones = Annotated[
    list[str] | None, typer.Option("--backbone", help="Candidate to consider (repeatable). Default: all installed.")
]
Strategies = Annotated[
    list[str] | None, typer.Option("--strategy", help="Candidate to consider (repeatable). Default: all installed.")
]
Options = Annotated[
    list[str] | None, typer.Option("--option", metavar="NAME=VALUE", help="Option of the one --strategy given (repeatable).")
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights file (safetensors or .pth) for the one --backbone given, or `none` for random weights."),
]
HeadShape = Annotated[
    str | None,
    typer.Option(
        "--head", metavar="HEAD", help="Classifier head: `linear` or `mlp:4096,4096`. Default: chosen by the strategy."
    ),
]
Budget = Annotated[
    float | None,
    typer.Option(parser=duration_s, metavar="TIME", help="Wall-clock limit, e.g. 30s, 5m, 1h.", show_default=False),
]
MaxLatency = Annotated[
    float | None,
    typer.Option(
        parser=latency_ms,
        metavar="TIME",
        help="Maximum single-image latency on this machine (PyTorch), e.g. 20ms.",
        show_default=False,
    ),
]
MaxSize = Annotated[
    float | None,
    typer.Option(parser=size_mib, metavar="SIZE", help="Maximum size of the weights, e.g. 20MB.", show_default=False),
]
License = Annotated[Literal["permissive"] | None, typer.Option("--license", help="Use only weights with a permissive license.")]
Goal = Literal["accuracy", "balanced", "latency", "size"]
Optimize = Annotated[Goal, typer.Option(help="What to favor between candidates of similar accuracy.")]
ALLOWED_WITH_PLAN: Final = ("images", "name", "budget", "registry", "plan", "as_json")
Seed = Annotated[int, typer.Option(min=0, help="Random seed for the split, folds and training.")]


@app.command(epilog="Example: tl auto fit ./images --budget 5m")
def fit(
    context: typer.Context,
    images: Images,
    name: Annotated[str | None, typer.Option(help="Model name in the registry. Default: the folder's name.")] = None,
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
        typer.Option(help="Run a saved plan (from `tl auto plan --json`) with its constraints."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Choose, train, evaluate and register a classifier for IMAGES."""
    constraints = _constraints(
        backbone, strategy, option, weights, head, budget, max_latency, max_size, license, optimize, seed
    )
    saved = None
    if plan:
        from automl_tl.planning import read_plan

        _reject_constraints(context)
        saved = read_plan(plan)
        constraints = saved.constraints if budget is None else saved.constraints.model_copy(update={"budget_s": budget})
    outcome = automl_tl.fit(
        images, name=name, constraints=constraints, plan=saved, registry=registry, progress=ConsoleProgress()
    )
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
    """Show what `tl auto fit` would do with IMAGES, and why, without training."""
    constraints = _constraints(
        backbone, strategy, option, weights, head, budget, max_latency, max_size, license, optimize, seed
    )
    plan = automl_tl.plan(images, constraints=constraints, progress=ConsoleProgress())
    print_json(plan) if as_json else show_plan(plan)


def _reject_constraints(context: typer.Context) -> None:
    """Raise if the command line sets a constraint next to ``--plan``, which has its own."""
    conflicting = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name not in ALLOWED_WITH_PLAN and _is_given(context, str(parameter.name))
    ]
    if conflicting:
        raise typer.BadParameter(
            f"--plan runs a saved plan; {', '.join(conflicting)} would change it. "
            "Remove the option, or pass it to `tl auto plan` and save a new plan"
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
