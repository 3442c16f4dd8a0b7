"""What `tl auto fit` makes of each budget, and its regret against every cell of backbones x strategies, on folders of images.

    python -m benchmarks.planner_regret FOLDER... --seeds 3 --budget 30 --budget 120 --budget 600 --out regret
    python -m benchmarks.planner_regret FOLDER... --seeds 3 --budget 30 --budget 120 --budget 600 --out regret --summary

The fits have no constraint but the budget: the planner may choose any installed backbone and strategy. Each starts with an
empty data directory and is saved in ``--out`` when it ends. The same command resumes and repeats what failed; ``--summary``
only prints what is there, also of an unfinished run. For each budget: mean test accuracy, wall time against the budget, latency
of the chosen models, how often the 90% and 95% intervals of the expected accuracy cover the test accuracy; then the change of
accuracy with each larger budget, and the sets that lose more than a standard error.

With ``--backbone`` and ``--strategy`` all their combinations are fitted, too (``tl bench``), and with these or with the cells
of ``--also`` the regret of the last budget's plans is printed: against the best cell (optimistic, as the best of many noisy
cells) and against the best single choice for all datasets. Cells of another machine count for accuracy only; seeds and machines
are averaged.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from math import sqrt
from pathlib import Path
from statistics import mean, median
from tempfile import TemporaryDirectory

from automl_tl.plugin_host import PLUS
from automl_tl.values import BenchCell
from automl_tl.workflows.bench import bench
from benchmarks.timing import machine, process

FACTOR = 1.5  # allowed ratio of predicted and measured seconds
KEPT = 1.05  # allowed ratio of wall time and budget
PATIENCE = 3  # times the budget, at least MIN_LIMIT_S: then a fit is ended, so that the others have their turn
MIN_LIMIT_S = 300
LIMIT_S = 3600  # without a budget
TO_90 = 1.645 / 1.96  # from 95% to 90% intervals


@dataclass(frozen=True)
class Planned:
    """Choice and outcome of `tl auto fit`."""

    images: str
    seed: int
    budget: int  # seconds; 0: none
    backbone: str
    strategy: str
    accuracy: float
    num_test: int
    expected: float
    interval: tuple[float, float]
    predicted_s: float
    measured_s: float
    wall_s: float
    cpu_s: float
    latency_ms: float
    is_trained: bool
    notes: tuple[str, ...]

    def covers(self, share: float = 1.0) -> bool:
        """Return whether the interval of the expected accuracy, ``share`` as wide, covers the test accuracy."""
        low, high = (self.expected + share * (end - self.expected) for end in self.interval)
        return low <= self.accuracy <= high


def main() -> None:
    arguments = parse_arguments()
    try:
        if not arguments.summary:
            run_missing(arguments)
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", flush=True)
    plans = [plan for file in plan_files(arguments) if (plan := read_plan(file))]
    cells = measured_cells(arguments.out, arguments.folders)
    others = [cell for place in arguments.also for cell in measured_cells(place, arguments.folders)]
    print(f"\n{machine('torch', 'openvino', 'scikit-learn')}")
    print(f"{len(plans)} of {len(plan_files(arguments))} fits\n")
    last = [plan for plan in plans if plan.budget == arguments.budget[-1]]
    if last and (cells or others):
        print_tables(cells, others, last)
    print_sets(plans, arguments.budget)
    print_budgets(plans, arguments.budget)
    for smaller, larger in pairwise(arguments.budget):
        print_change(plans, smaller, larger)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="datasets with a test split; files are ignored")
    parser.add_argument("--backbone", action="append", default=[], help="of the cells")
    parser.add_argument("--strategy", action="append", default=[], help="of the cells")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--budget", type=int, action="append", required=True, help="seconds, the smallest first; 0: no budget")
    parser.add_argument("--optimize", default="balanced", help="--optimize of the planner")
    parser.add_argument("--out", type=Path, default=Path("regret"), help="folder of the results")
    parser.add_argument("--also", type=Path, action="append", default=[], help="folder with cells of another machine")
    parser.add_argument("--summary", action="store_true", help="only print what has been measured")
    arguments = parser.parse_args()
    arguments.folders = [folder for folder in arguments.folders if folder.is_dir()]
    return arguments


def run_missing(arguments: argparse.Namespace) -> None:
    """Fit what has no saved outcome: one seed on all sets before the next, so that an unfinished run is balanced."""
    for seed in range(arguments.seeds):
        for folder in arguments.folders:
            for budget in arguments.budget:
                file = plan_file(folder, seed, budget, arguments)
                if read_plan(file) is None:
                    run_plan(folder, seed, budget, arguments.optimize, file)
    if arguments.backbone and arguments.strategy:
        options = {"backbones": arguments.backbone, "strategies": arguments.strategy, "num_seeds": arguments.seeds}
        for folder in arguments.folders:
            for cell in bench(folder, **options, out=arguments.out):
                text = f"{cell.images} {cell.backbone} {cell.strategy} {cell.seed}: {cell.accuracy} {cell.error or ''}"
                print(f"cell {text}", flush=True)


def plan_file(folder: Path, seed: int, budget: int, arguments: argparse.Namespace) -> Path:
    goal = "" if arguments.optimize == "balanced" else f"-{arguments.optimize}"
    return Path(arguments.out) / "plans" / f"{folder.resolve().name}-{seed}-{budget}{goal}.json"


def plan_files(arguments: argparse.Namespace) -> list[Path]:
    """Return the files of all fits, those that are missing included."""
    return [
        plan_file(folder, seed, budget, arguments)
        for seed in range(arguments.seeds)
        for folder in arguments.folders
        for budget in arguments.budget
    ]


def read_plan(file: Path) -> Planned | None:
    """Return a saved outcome; ``None`` if there is none or an older version of this command saved it."""
    try:
        return Planned(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def run_plan(folder: Path, seed: int, budget: int, goal: str, file: Path) -> None:
    """Run `tl auto fit` with an empty data directory and save the outcome; a failure is printed, its log is kept."""
    command = [sys.executable, "-m", "automl_tl", "auto", "fit", str(folder), "--json", "--seed", str(seed), "--optimize", goal]
    command += ["--budget", f"{budget}s"] if budget else []
    file.parent.mkdir(parents=True, exist_ok=True)
    log, draft = file.with_suffix(".log"), file.with_suffix(".draft")
    with TemporaryDirectory() as place:
        result = Path(place) / "outcome.json"
        limit_s = max(PATIENCE * budget, MIN_LIMIT_S) if budget else LIMIT_S
        try:
            spent = process(command, result=result, home=Path(place) / "home", log=log, limit_s=limit_s)
        except SystemExit as error:
            print(f"plan {file.stem} failed: {error}; see {log}", flush=True)
            return
        outcome = json.loads(result.read_text())
    log.unlink()
    plan, expected, measured = outcome["plan"], outcome["plan"]["expected"], outcome["measured"]
    planned = Planned(
        images=folder.resolve().name,
        seed=seed,
        budget=budget,
        backbone=plan["backbone"],
        strategy=plan["strategy"],
        accuracy=outcome["test"]["accuracy"],
        num_test=outcome["test"]["num_images"],
        expected=expected["accuracy"],
        interval=tuple(expected["accuracy_interval"]),
        predicted_s=expected["seconds"],
        measured_s=measured["seconds"],
        wall_s=round(spent.wall_s, 1),
        cpu_s=round(spent.cpu_s, 1),
        latency_ms=measured["latency_ms"],
        is_trained=bool(plan["recipe"]["phases"]),
        notes=tuple(outcome["notes"]),
    )
    draft.write_text(json.dumps(asdict(planned), indent=1))
    draft.replace(file)
    text = f"{planned.strategy} on {planned.backbone}, {planned.accuracy:.3f} in {planned.wall_s:.1f} s"
    print(f"plan {planned.images} {seed}, {budget} s: {text}", flush=True)


def measured_cells(place: Path, folders: Sequence[Path]) -> list[BenchCell]:
    """Return the measured cells of ``folders`` in ``place``."""
    names = {folder.resolve().name for folder in folders}
    cells = [BenchCell.model_validate_json(file.read_bytes()) for file in sorted((place / "cells").rglob("*.json"))]
    return [cell for cell in cells if cell.images in names and cell.error is None]


def print_tables(own: Sequence[BenchCell], others: Sequence[BenchCell], plans: Sequence[Planned]) -> None:
    """Print the tables as Markdown; costs are those of this machine's own cells."""
    print("| dataset | plan | test | best cell | regret | interval | covers | predicted | measured, s |")
    print(f"|{' --- |' * 9}")
    cells, regrets, covered, within = [*own, *others], [], [], []
    plans = [plan for plan in plans if any(cell.images == plan.images for cell in cells)]
    for plan in plans:
        here = [cell for cell in cells if cell.images == plan.images]
        (best, strategy), accuracy = max(mean_by_candidate(here, accuracy_of).items(), key=lambda item: item[1])
        regrets.append(100 * (accuracy - plan.accuracy))
        covered.append(plan.covers())
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
    if own:
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


def print_sets(plans: Sequence[Planned], budgets: Sequence[int]) -> None:
    """Print the mean test accuracy of each set with each budget, over seeds, and what was chosen with the first seed."""
    columns = ["dataset", *(text for budget in budgets for text in (f"{budget or 'no'} s", "choice"))]
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for images in dict.fromkeys(plan.images for plan in plans):
        row = [images]
        for budget in budgets:
            here = [plan for plan in plans if plan.images == images and plan.budget == budget]
            row += [f"{100 * mean(plan.accuracy for plan in here):.1f}" if here else ""]
            row += [f"{here[0].strategy} on {short(here[0].backbone)}, {here[0].latency_ms:.0f} ms" if here else ""]
        print(f"| {' | '.join(row)} |")


def print_budgets(plans: Sequence[Planned], budgets: Sequence[int]) -> None:
    """Print accuracy, wall time, latency and coverage by budget."""
    columns = ["budget, s", "fits", "mean accuracy", "mean wall, s", "longest, s", f"kept within {100 * (KEPT - 1):.0f}%"]
    columns += ["median latency, ms", "95% intervals cover", "90%", "trained strategies"]
    print(f"\n| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for budget in budgets:
        here = [plan for plan in plans if plan.budget == budget]
        if not here:
            continue
        row = [
            str(budget or "none"),
            str(len(here)),
            f"{100 * mean(plan.accuracy for plan in here):.2f}%",
            f"{mean(plan.wall_s for plan in here):.0f}",
            f"{max(plan.wall_s for plan in here):.1f}",
            f"{sum(plan.wall_s <= KEPT * budget for plan in here)} of {len(here)}" if budget else "-",
            f"{median(plan.latency_ms for plan in here):.1f}",
            f"{sum(plan.covers() for plan in here)} of {len(here)}",
            f"{sum(plan.covers(TO_90) for plan in here)}",
            f"{sum(plan.is_trained for plan in here)}",
        ]
        print(f"| {' | '.join(row)} |")
        late = [f"{plan.images} {plan.seed} {plan.wall_s:.1f} s" for plan in here if budget and plan.wall_s > KEPT * budget]
        if late:
            print(f"\nover {budget} s: {', '.join(late)}\n")


def print_change(plans: Sequence[Planned], smaller: int, larger: int) -> None:
    """Print how accuracy changes with the larger budget, on sets and seeds that both have; losses beyond a standard error.

    The standard error is that of an accuracy on the set's test images, whose number does not grow with seeds.
    """
    before, after = ({(plan.images, plan.seed): plan for plan in plans if plan.budget == each} for each in (smaller, larger))
    changes: dict[str, list[float]] = {}
    for images, seed in before.keys() & after.keys():
        changes.setdefault(images, []).append(after[images, seed].accuracy - before[images, seed].accuracy)
    if not changes:
        return
    losses = []
    for images, differences in sorted(changes.items()):
        here = [plan for plan in before.values() if plan.images == images]
        accuracy, change = mean(plan.accuracy for plan in here), mean(differences)
        error = sqrt(max(accuracy * (1 - accuracy), 1 / here[0].num_test) / here[0].num_test)
        if change < -error:
            losses.append(f"{images} {100 * change:+.1f} pp (standard error {100 * error:.1f})")
    mean_change = mean(mean(differences) for differences in changes.values())
    print(f"\n- from {smaller} to {larger or 'no'} s: {100 * mean_change:+.2f} pp on {len(changes)} sets", end="")
    print(f"; losses beyond a standard error: {', '.join(losses) or 'none'}")


if __name__ == "__main__":
    main()
