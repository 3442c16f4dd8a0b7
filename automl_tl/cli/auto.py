"""``tl auto fit``, ``tl auto plan`` and ``tl bench``: everything that trains."""

from __future__ import annotations

import sys
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

import automl_tl
from automl_tl.cli.options import (
    AsJson,
    ClassesAreFolders,
    CorrectionsFile,
    GroupBy,
    Images,
    On,
    RegistryDir,
    class_weights,
    duration_s,
    folder_to_write,
    hidden_dims,
    latency_ms,
    size_mib,
    strategy_options,
)
from automl_tl.cli.render import ConsoleProgress, print_json, result, show_outcome, show_plan, table
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.formatting import metric_name, metric_text, number, percent, percent_range

if TYPE_CHECKING:
    from automl_tl.values import Constraints

app = typer.Typer(no_args_is_help=True, help="Plan, train, evaluate and register a classifier.")

# The parameters of these options have the names of the fields of `Constraints`; `_constraints` relies on it.
Backbones = Annotated[
    list[str] | None, typer.Option("--backbone", help="Backbone to consider (repeatable). Default: all installed.")
]
Strategies = Annotated[
    list[str] | None, typer.Option("--strategy", help="Strategy to consider (repeatable). Default: all installed.")
]
Options = Annotated[
    list[str] | None,
    typer.Option("--option", metavar="NAME=VALUE", help="Option of the strategy, if there is one --strategy (repeatable)."),
]
Weights = Annotated[
    str | None,
    typer.Option(help="Weights (safetensors, .pth, Keras) of the backbone, if it is the only one; `none`: random weights."),
]
Head = Annotated[
    str | None,
    typer.Option(
        "--head", metavar="HEAD", help="Classifier head: `linear` or `mlp:4096,4096`. Default: chosen by the strategy."
    ),
]
Budget = Annotated[
    float | None,
    typer.Option("--budget", parser=duration_s, metavar="TIME", help="Wall-clock limit, e.g. 30s, 5m, 1h.", show_default=False),
]
MaxLatency = Annotated[
    float | None,
    typer.Option(
        "--max-latency",
        parser=latency_ms,
        metavar="TIME",
        help="Maximum single-image latency on this machine (PyTorch), e.g. 20ms.",
        show_default=False,
    ),
]
MaxSize = Annotated[
    float | None,
    typer.Option(
        "--max-size", parser=size_mib, metavar="SIZE", help="Maximum size of the weights, e.g. 20MB.", show_default=False
    ),
]
License = Annotated[Literal["permissive"] | None, typer.Option(help="Use only weights with a permissive license.")]
Optimize = Annotated[
    Literal["accuracy", "balanced", "latency", "size"],
    typer.Option(help="What to favor between candidates of similar accuracy."),
]

Download = Annotated[
    bool,
    typer.Option(
        "--download",
        envvar="TL_DOWNLOAD",
        help="Consider recommended backbones whose weights have to be downloaded, within the budget.",
    ),
]


MetricName = Annotated[
    Literal["accuracy", "balanced_accuracy", "macro_f1", "log_loss"] | None,
    typer.Option(
        "--metric",
        help="Metric that models are adjusted to, chosen by and compared by. Default: accuracy.",
        show_default=False,
    ),
]
ClassWeights = Annotated[
    list[str] | None,
    typer.Option(
        "--class-weights",
        "--class-weight",
        metavar="balanced|sqrt|none|CLASS=WEIGHT",
        help="Weight of the images of each class: all classes count alike (balanced), all images (none), in between (sqrt), "
        "or a weight of one class (repeatable; others: 1). Default: balanced for balanced_accuracy, sqrt for macro_f1.",
        show_default=False,
    ),
]


class Tracker(StrEnum):
    """Experiment trackers; an enumeration because Typer does not support lists of literals."""

    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    TRACKIO = "trackio"
    WANDB = "wandb"


Processes = Annotated[
    int | None,
    typer.Option(
        min=1, help="Processes that train together, one per GPU, or any number on a CPU. Default: chosen by the planner."
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed of the split, the folds and the training.")]


@app.command(epilog="Example: tl auto fit ./images --budget 5m")
def fit(
    context: typer.Context,
    images: Images,
    classes_are_folders: ClassesAreFolders = False,
    corrections: CorrectionsFile = None,
    name: Annotated[str | None, typer.Option(help="Model name in the registry. Default: the folder's name.")] = None,
    backbones: Backbones = None,
    strategies: Strategies = None,
    options: Options = None,
    weights: Weights = None,
    hidden_dims: Head = None,
    budget_s: Budget = None,
    max_latency_ms: MaxLatency = None,
    max_size_mib: MaxSize = None,
    license: License = None,
    optimize: Optimize = "balanced",
    metric: MetricName = None,
    class_weights: ClassWeights = None,
    download: Download = False,
    seed: Seed = 0,
    group_by: GroupBy = None,
    processes: Processes = None,
    registry: RegistryDir = None,
    plan: Annotated[
        Path | None, typer.Option(help="Run a saved plan (from `tl auto plan --json`) with its constraints.")
    ] = None,
    track: Annotated[
        list[Tracker] | None,
        typer.Option(help="Experiment tracker that receives parameters, curves, metrics and the report (repeatable)."),
    ] = None,
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Choose, train, evaluate and register a classifier for IMAGES."""
    deadline = Deadline()
    if plan:
        _reject_constraints(context)
    constraints = _constraints(context)
    _import_training(deadline)
    outcome = automl_tl.fit(
        images,
        name=name,
        constraints=constraints,
        plan=plan,
        corrections=corrections,
        classes_are_folders=classes_are_folders,
        registry=registry,
        track=[tracker.value for tracker in track or ()],
        on=on,
        progress=ConsoleProgress(),
        deadline=deadline,
    )
    print_json(outcome) if as_json else show_outcome(outcome)


@app.command("plan", epilog="Example: tl auto plan ./images --json > plan.json")
def make_plan(
    context: typer.Context,
    images: Images,
    classes_are_folders: ClassesAreFolders = False,
    corrections: CorrectionsFile = None,
    backbones: Backbones = None,
    strategies: Strategies = None,
    options: Options = None,
    weights: Weights = None,
    hidden_dims: Head = None,
    budget_s: Budget = None,
    max_latency_ms: MaxLatency = None,
    max_size_mib: MaxSize = None,
    license: License = None,
    optimize: Optimize = "balanced",
    metric: MetricName = None,
    class_weights: ClassWeights = None,
    download: Download = False,
    seed: Seed = 0,
    group_by: GroupBy = None,
    on: On = None,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Show what `tl auto fit` would do with IMAGES, and why, without training."""
    deadline = Deadline()
    constraints = _constraints(context)
    _import_training(deadline)
    plan = automl_tl.plan(
        images,
        constraints=constraints,
        corrections=corrections,
        classes_are_folders=classes_are_folders,
        on=on,
        progress=ConsoleProgress(),
        deadline=deadline,
    )
    print_json(plan) if as_json else show_plan(plan)


def _import_training(deadline: Deadline) -> None:
    """Charge the budget for importing torch."""
    is_first = "torch" not in sys.modules
    import_module("automl_tl.workflows.fit")
    if is_first:
        deadline.startup_s = deadline.spent_s


def _constraints(context: typer.Context) -> Constraints:
    """Build the constraints from the options of the command."""
    from automl_tl.values import Constraints

    options = {name: context.params[name] for name in Constraints.model_fields if context.params[name] is not None}
    options["options"] = strategy_options(options.get("options", []))
    if "hidden_dims" in options:
        options["hidden_dims"] = hidden_dims(options["hidden_dims"])
    if "class_weights" in options:
        options["class_weights"] = class_weights(options["class_weights"])
    return Constraints.model_validate(options)


def _reject_constraints(context: typer.Context) -> None:
    """Raise if the command line sets a constraint next to ``--plan``, which has its own."""
    from automl_tl.values import Constraints

    fixed = Constraints.model_fields.keys() - {"budget_s"}
    conflicting = [
        parameter.opts[0]
        for parameter in context.command.params
        if parameter.name in fixed and str(context.get_parameter_source(parameter.name)) == "ParameterSource.COMMANDLINE"
    ]
    if conflicting:
        raise typer.BadParameter(
            f"--plan runs a saved plan; {', '.join(conflicting)} would change it. "
            "Remove the option, or pass it to `tl auto plan` and save a new plan"
        )


def bench(
    images: Images,
    classes_are_folders: ClassesAreFolders = False,
    corrections: CorrectionsFile = None,
    backbone: Annotated[
        list[str] | None, typer.Option(help="Backbone to fit (repeatable). Default: the few that a plan would consider.")
    ] = None,
    strategy: Annotated[list[str] | None, typer.Option(help="Strategy to fit (repeatable). Default: all installed.")] = None,
    weights: Weights = None,
    head: Head = None,
    budget_s: Annotated[
        float | None,
        typer.Option("--budget", parser=duration_s, metavar="TIME", help="Limit of each fit, e.g. 5m.", show_default=False),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds per combination.")] = 1,
    group_by: GroupBy = None,
    metric: MetricName = None,
    out: Annotated[
        Path, typer.Option(help="Folder for the results. Finished fits in it are not repeated.", callback=folder_to_write)
    ] = Path("bench"),
    on: On = None,
    as_json: AsJson = False,
) -> None:
    """Fit IMAGES with every backbone and strategy, and compare accuracy, time, memory and size."""
    cells = automl_tl.bench(
        images,
        backbone=backbone or (),
        strategy=strategy or (),
        weights=weights,
        head=head,
        budget=budget_s,
        seeds=seeds,
        group_by=group_by,
        metric=metric,
        corrections=corrections,
        classes_are_folders=classes_are_folders,
        out=out,
        on=on,
        progress=ConsoleProgress(),
    )
    if as_json:
        print_json(cells)
        return
    extra = (metric_name(metric),) if metric in ("macro_f1", "log_loss") else ()
    rows = (
        (
            cell.backbone,
            cell.strategy,
            cell.seed,
            percent(cell.accuracy),
            percent_range(cell.interval),
            percent(cell.balanced_accuracy),
            *([metric_text(cell.metric, cell.value)] if extra else []),
            number(cell.seconds, 1),
            number(cell.latency_ms, 1),
            number(cell.memory_mib, 0),
            number(cell.size_mib, 1),
            cell.error or "",
        )
        for cell in cells
    )
    names = ("backbone", "strategy", "seed", "accuracy", "95% CI", "balanced accuracy", *extra)
    columns = (*names, "seconds", "ms/image", "memory, MiB", "MiB", "error")
    result.print(table(*columns, rows=rows))
