"""Regret of the planner: its choice against every cell of backbones x strategies x seeds, on folders of images.

    python -m benchmarks.planner_regret FOLDER... --backbone lite/efficientnet_lite0 --strategy linear_probe --strategy tail \
        --seeds 1 --budget 30 --budget 120 --out regret

Prints for the last budget, per dataset and in total: the regret of the plan against the best cell (optimistic, as the best of
many noisy cells) and against the best single choice for all datasets, how often the 95% interval of the expected accuracy
covered the test accuracy, the error of the predicted seconds, and the cost of planning and fitting against that of all cells.
Then, for each budget, mean accuracy and wall time. The planner may choose any installed backbone and strategy. Cells and plans
are saved in ``--out``, and the same command resumes. Cells of another machine (``--also``) count for accuracy only; seeds and
machines are averaged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory

from automl_tl.plugin_host import PLUS
from automl_tl.values import BenchCell
from automl_tl.workflows.bench import bench
from benchmarks.timing import machine, process

FACTOR = 1.5  # allowed ratio of predicted and measured seconds


@dataclass(frozen=True)
class Planned:
    """Choice and outcome of `tl auto fit`."""

    images: str
    seed: int
    backbone: str
    strategy: str
    accuracy: float
    expected: float
    interval: tuple[float, float]
    predicted_s: float
    measured_s: float
    wall_s: float
    cpu_s: float
    is_trained: bool


def main() -> None:
    arguments = parse_arguments()
    by_budget = {
        budget: [planned(folder, seed, budget, arguments) for folder in arguments.folders for seed in range(arguments.seeds)]
        for budget in arguments.budget
    }
    options = {"backbones": arguments.backbone, "strategies": arguments.strategy, "num_seeds": arguments.seeds}
    for folder in arguments.folders:
        for cell in bench(folder, **options, out=arguments.out):
            print(
                f"cell {cell.images} {cell.backbone} {cell.strategy} {cell.seed}: {cell.accuracy} {cell.error or ''}",
                flush=True,
            )
    cells = measured_cells(arguments.out, arguments.folders)
    others = [cell for place in arguments.also for cell in measured_cells(place, arguments.folders)]
    print(f"\nbudget {arguments.budget[-1]} s")
    print_tables(cells, others, by_budget[arguments.budget[-1]])
    print_budgets(by_budget)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Regret of the plan, and whether its predictions hold.")
    parser.add_argument("folders", nargs="+", type=Path, help="datasets with a test split")
    parser.add_argument("--backbone", action="append", required=True)
    parser.add_argument("--strategy", action="append", required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=int, action="append", required=True, help="seconds; 0: no budget")
    parser.add_argument("--optimize", default="balanced", help="--optimize of the planner")
    parser.add_argument("--out", type=Path, default=Path("regret"))
    parser.add_argument("--also", type=Path, action="append", default=[], help="folder with cells of another machine")
    return parser.parse_args()


def planned(folder: Path, seed: int, budget: int, arguments: argparse.Namespace) -> Planned:
    """Run `tl auto fit` without constraints and with an empty data directory, or read its saved outcome."""
    goal = "" if arguments.optimize == "balanced" else f"-{arguments.optimize}"
    file = arguments.out / "plans" / f"{folder.name}-{seed}-{budget}{goal}.json"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(_fitted(folder, seed, budget, arguments.optimize)), indent=1))
    plan = Planned(**json.loads(file.read_text()))
    text = f"{plan.strategy} on {plan.backbone}, {plan.accuracy:.3f} in {plan.wall_s:.1f} s"
    print(f"plan {folder.name} {seed}, {budget} s: {text}", flush=True)
    return plan


def _fitted(folder: Path, seed: int, budget: int, goal: str) -> Planned:
    command = [sys.executable, "-m", "automl_tl", "auto", "fit", str(folder), "--json", "--seed", str(seed), "--optimize", goal]
    command += ["--budget", f"{budget}s"] if budget else []
    with TemporaryDirectory() as place:
        result = Path(place) / "outcome.json"
        spent = process(command, result=result, home=Path(place) / "home")
        outcome = json.loads(result.read_text())
    expected = outcome["plan"]["expected"]
    return Planned(
        images=folder.name,
        seed=seed,
        backbone=outcome["plan"]["backbone"],
        strategy=outcome["plan"]["strategy"],
        accuracy=outcome["test"]["accuracy"],
        expected=expected["accuracy"],
        interval=tuple(expected["accuracy_interval"]),
        predicted_s=expected["seconds"],
        measured_s=outcome["measured"]["seconds"],
        wall_s=round(spent.wall_s, 1),
        cpu_s=round(spent.cpu_s, 1),
        is_trained=bool(outcome["plan"]["recipe"]["phases"]),
    )


def measured_cells(place: Path, folders: Sequence[Path]) -> list[BenchCell]:
    """Return the measured cells of ``folders`` in ``place``."""
    names = {folder.resolve().name for folder in folders}
    cells = [BenchCell.model_validate_json(file.read_bytes()) for file in sorted((place / "cells").rglob("*.json"))]
    return [cell for cell in cells if cell.images in names and cell.error is None]


def print_tables(own: Sequence[BenchCell], others: Sequence[BenchCell], plans: Sequence[Planned]) -> None:
    """Print the tables as Markdown; costs are those of this machine's own cells."""
    print(f"\n{machine('torch', 'openvino', 'scikit-learn')}\n")
    print("| dataset | plan | test | best cell | regret | interval | covers | predicted | measured, s |")
    print(f"|{' --- |' * 9}")
    cells, regrets, covered, within = [*own, *others], [], [], []
    for plan in plans:
        here = [cell for cell in cells if cell.images == plan.images]
        (best, strategy), accuracy = max(mean_by_candidate(here, accuracy_of).items(), key=lambda item: item[1])
        regrets.append(100 * (accuracy - plan.accuracy))
        covered.append(plan.interval[0] <= plan.accuracy <= plan.interval[1])
        within.append(1 / FACTOR <= plan.predicted_s / plan.measured_s <= FACTOR)
        row = [
            f"{plan.images} {plan.seed}",
            f"{plan.strategy} on {short(plan.backbone)}",
            f"{100 * plan.accuracy:.1f}",
            f"{100 * accuracy:.1f} {strategy} on {short(best)}",
            f"{regrets[-1]:+.1f}",
            f"{100 * plan.interval[0]:.0f}-{100 * plan.interval[1]:.0f}",
            "yes" if covered[-1] else "no",
            f"{plan.predicted_s:.0f}",
            f"{plan.measured_s:.0f}",
        ]
        print(f"| {' | '.join(row)} |")
    print(f"\n- regret, pp: mean {mean(regrets):.2f}, worst {max(regrets):.2f}")
    print(f"- mean accuracy of the plans {100 * mean(plan.accuracy for plan in plans):.2f}%; of single choices:")
    for (backbone, strategy), accuracy in fixed_choices(cells, {plan.images for plan in plans}):
        print(f"  - {strategy} on {short(backbone)} {100 * accuracy:.2f}%")
    print(f"- 95% intervals that cover the test: {sum(covered)} of {len(covered)}")
    print(f"- predicted seconds within a factor of {FACTOR}: {sum(within)} of {len(within)}")
    print_cost(own, plans)


def mean_by_candidate(cells: Sequence[BenchCell], of: Callable[[BenchCell], float | None]) -> dict[tuple[str, str], float]:
    """Return the mean of a measurement for each backbone and strategy, over seeds and machines."""
    measured: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        measured.setdefault((cell.backbone, cell.strategy), []).append(of(cell) or 0.0)
    return {candidate: mean(values) for candidate, values in measured.items()}


def accuracy_of(cell: BenchCell) -> float | None:
    return cell.accuracy


def print_cost(cells: Sequence[BenchCell], plans: Sequence[Planned]) -> None:
    """Compare with the cost of all cells, on the datasets for which most strategies were measured."""
    of_set = {plan.images: [cell for cell in cells if cell.images == plan.images] for plan in plans}
    tried = {name: {cell.strategy for cell in here} for name, here in of_set.items()}
    most = max(map(len, tried.values()))
    whole = [name for name, strategies in tried.items() if len(strategies) == most]
    cost = sum(mean(plan.wall_s for plan in plans if plan.images == name) for name in whole)
    exhaustive = sum(sum(mean_by_candidate(of_set[name], lambda cell: cell.seconds).values()) for name in whole)
    print(
        f"- planning and fitting took {cost:.0f} seconds on the {len(whole)} sets with cells of {most} strategies, "
        f"their cells {exhaustive:.0f}: {100 * cost / exhaustive:.0f}%"
    )


def short(backbone: str) -> str:
    """Return backbone names without the family, also those of an ensemble."""
    return PLUS.join(name.rpartition("/")[2] for name in backbone.split(PLUS))


def fixed_choices(cells: Sequence[BenchCell], names: set[str]) -> list[tuple[tuple[str, str], float]]:
    """Return the mean accuracy of each backbone and strategy that was measured on all datasets, best first."""
    by_set = [mean_by_candidate([cell for cell in cells if cell.images == name], accuracy_of) for name in sorted(names)]
    everywhere = set.intersection(*map(set, by_set))
    choices = [(candidate, mean(accuracies[candidate] for accuracies in by_set)) for candidate in everywhere]
    return sorted(choices, key=lambda choice: -choice[1])


def print_budgets(by_budget: Mapping[int, Sequence[Planned]]) -> None:
    """Print accuracy and wall time by budget."""
    print(
        "\n| budget, s | mean accuracy | mean wall, s | longest, s | share of budget | trained strategies |\n|" + " --- |" * 6
    )
    for budget, plans in by_budget.items():
        longest_s = max(plan.wall_s for plan in plans)
        row = [
            str(budget or "none"),
            f"{100 * mean(plan.accuracy for plan in plans):.2f}%",
            f"{mean(plan.wall_s for plan in plans):.0f}",
            f"{longest_s:.0f}",
            f"{longest_s / budget:.2f}" if budget else "-",
            f"{sum(plan.is_trained for plan in plans)} of {len(plans)}",
        ]
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
