"""Is the planner right? Its choice against every cell of backbones x strategies x seeds, on folders of images.

    python -m benchmarks.planner_regret FOLDER... --backbone lite/efficientnet_lite0 --strategy linear_probe --strategy tail \
        --seeds 1 --budget 30 --budget 120 --out regret

Prints for the last budget, per data set and in all: the regret of the plan against the best cell (the best of many noisy
cells flatters itself), against the best single choice for all sets, how often the 95% interval of the expected accuracy covered
the test, how far predicted seconds were off, and what planning and fitting cost against trying every cell. Then, for each
budget, mean accuracy and how the time was kept. The planner is free to choose among all that is installed. Cells and plans are
kept in ``--out``: give the same command again to go on. Every cell there of these folders counts, and of those that another
machine measured (``--also``) the accuracy; seeds and machines are repetitions, whose mean counts.
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
from benchmarks.turns import machine, process

FACTOR = 1.5  # that predicted and measured seconds may be apart


@dataclass(frozen=True)
class Planned:
    """What `tl auto fit` chose and what came of it."""

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
    arguments = parsed()
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
    cells = kept_cells(arguments.out, arguments.folders)
    others = [cell for place in arguments.also for cell in kept_cells(place, arguments.folders)]
    print(f"\nbudget {arguments.budget[-1]} s")
    tell(cells, others, by_budget[arguments.budget[-1]])
    tell_budgets(by_budget)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Regret of the plan, and whether its predictions hold.")
    parser.add_argument("folders", nargs="+", type=Path, help="data sets, with a test part of their own")
    parser.add_argument("--backbone", action="append", required=True)
    parser.add_argument("--strategy", action="append", required=True)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--budget", type=int, action="append", required=True, help="seconds of the planner's own run, 0: none is given"
    )
    parser.add_argument("--optimize", default="balanced", help="what the planner's own run is told to optimize")
    parser.add_argument("--out", type=Path, default=Path("regret"))
    parser.add_argument("--also", type=Path, action="append", default=[], help="folder with cells of another machine")
    return parser.parse_args()


def planned(folder: Path, seed: int, budget: int, arguments: argparse.Namespace) -> Planned:
    """The planner, free, as a whole command from an empty home."""
    goal = "" if arguments.optimize == "balanced" else f"-{arguments.optimize}"
    kept = arguments.out / "plans" / f"{folder.name}-{seed}-{budget}{goal}.json"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(asdict(_fitted(folder, seed, budget, arguments.optimize)), indent=1))
    plan = Planned(**json.loads(kept.read_text()))
    told = f"{plan.strategy} on {plan.backbone}, {plan.accuracy:.3f} in {plan.wall_s:.1f} s"
    print(f"plan {folder.name} {seed}, {budget} s: {told}", flush=True)
    return plan


def _fitted(folder: Path, seed: int, budget: int, goal: str) -> Planned:
    command = [sys.executable, "-m", "automl_tl", "auto", "fit", str(folder), "--json", "--seed", str(seed), "--optimize", goal]
    command += ["--budget", f"{budget}s"] if budget else []
    with TemporaryDirectory() as place:
        result = Path(place) / "outcome.json"
        spent = process(command, result=result, home=Path(place) / "home")
        said = json.loads(result.read_text())
    expected = said["plan"]["expected"]
    return Planned(
        images=folder.name,
        seed=seed,
        backbone=said["plan"]["backbone"],
        strategy=said["plan"]["strategy"],
        accuracy=said["test"]["accuracy"],
        expected=expected["accuracy"],
        interval=tuple(expected["accuracy_interval"]),
        predicted_s=expected["seconds"],
        measured_s=said["measured"]["seconds"],
        wall_s=round(spent.wall_s, 1),
        cpu_s=round(spent.cpu_s, 1),
        is_trained=bool(said["plan"]["recipe"]["phases"]),
    )


def kept_cells(place: Path, folders: Sequence[Path]) -> list[BenchCell]:
    """All cells in ``place`` of the given folders, as far as they were measured."""
    names = {folder.resolve().name for folder in folders}
    cells = [BenchCell.model_validate_json(file.read_bytes()) for file in sorted((place / "cells").rglob("*.json"))]
    return [cell for cell in cells if cell.images in names and cell.error is None]


def tell(own: Sequence[BenchCell], others: Sequence[BenchCell], plans: Sequence[Planned]) -> None:
    """The tables, as Markdown; costs are those of the cells of this machine, its ``own``."""
    print(f"\n{machine('torch', 'openvino', 'scikit-learn')}\n")
    print("| data set | plan | test | best cell | regret | interval | covers | predicted | measured, s |")
    print(f"|{' --- |' * 9}")
    cells, regrets, covered, within = [*own, *others], [], [], []
    for plan in plans:
        here = [cell for cell in cells if cell.images == plan.images]
        (best, strategy), accuracy = max(by_arm(here, accuracy_of).items(), key=lambda item: item[1])
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
    print(f"\n- regret, points: mean {mean(regrets):.2f}, worst {max(regrets):.2f}")
    print(f"- mean accuracy of the plans {100 * mean(plan.accuracy for plan in plans):.2f}%; of single choices:")
    for (backbone, strategy), accuracy in fixed_choices(cells, {plan.images for plan in plans}):
        print(f"  - {strategy} on {short(backbone)} {100 * accuracy:.2f}%")
    print(f"- 95% intervals that cover the test: {sum(covered)} of {len(covered)}")
    print(f"- predicted seconds within a factor of {FACTOR}: {sum(within)} of {len(within)}")
    tell_cost(own, plans)


def by_arm(cells: Sequence[BenchCell], of: Callable[[BenchCell], float | None]) -> dict[tuple[str, str], float]:
    """The mean of something for each backbone and strategy, over seeds and machines."""
    measured: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        measured.setdefault((cell.backbone, cell.strategy), []).append(of(cell) or 0.0)
    return {arm: mean(values) for arm, values in measured.items()}


def accuracy_of(cell: BenchCell) -> float | None:
    return cell.accuracy


def tell_cost(cells: Sequence[BenchCell], plans: Sequence[Planned]) -> None:
    """Against trying every cell once, on the sets where most strategies were measured; elsewhere that would say little."""
    of_set = {plan.images: [cell for cell in cells if cell.images == plan.images] for plan in plans}
    tried = {name: {cell.strategy for cell in here} for name, here in of_set.items()}
    most = max(map(len, tried.values()))
    whole = [name for name, strategies in tried.items() if len(strategies) == most]
    cost = sum(mean(plan.wall_s for plan in plans if plan.images == name) for name in whole)
    exhaustive = sum(sum(by_arm(of_set[name], lambda cell: cell.seconds).values()) for name in whole)
    print(
        f"- planning and fitting took {cost:.0f} seconds on the {len(whole)} sets with cells of {most} strategies, "
        f"their cells {exhaustive:.0f}: {100 * cost / exhaustive:.0f}%"
    )


def short(backbone: str) -> str:
    """Names without the family, also of backbones side by side."""
    return PLUS.join(name.rpartition("/")[2] for name in backbone.split(PLUS))


def fixed_choices(cells: Sequence[BenchCell], names: set[str]) -> list[tuple[tuple[str, str], float]]:
    """Mean accuracy of each backbone and strategy that was measured on all sets, the best first."""
    by_set = [by_arm([cell for cell in cells if cell.images == name], accuracy_of) for name in sorted(names)]
    everywhere = set.intersection(*map(set, by_set))
    choices = [(arm, mean(accuracies[arm] for accuracies in by_set)) for arm in everywhere]
    return sorted(choices, key=lambda choice: -choice[1])


def tell_budgets(by_budget: Mapping[int, Sequence[Planned]]) -> None:
    """Whether more time gives more, and whether it is kept."""
    print("\n| budget, s | mean accuracy | mean wall, s | longest, s | by the budget | trained strategies |\n|" + " --- |" * 6)
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
