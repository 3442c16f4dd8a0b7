"""Successive halving, the most expensive stage: train a few candidates for some of their epochs, and continue with the best.

One round as in Jamieson and Talwalkar, arXiv 1502.07943, on checkpoints: the fit resumes from what was trained here. Where the
validation images do not decide, the prior expectation does (decision 41).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import ceil, hypot
from typing import Final

import numpy as np
from numpy.typing import NDArray

from automl_tl.errors import PluginError, TrainingError
from automl_tl.evaluation import losses
from automl_tl.planning.candidates import ENSEMBLE_GAIN, Candidate, is_requested
from automl_tl.planning.comparison import EQUAL_WITHIN, compare, shrink
from automl_tl.planning.cost import AVERAGE_MIB, TrainingCost, time_short
from automl_tl.plugin_host import PLUS
from automl_tl.training import Trial, Workspace
from automl_tl.values import CandidateVerdict, Constraints

RunTrial = Callable[[Candidate, int], Trial | None]
"""Trains a candidate up to a number of epochs; ``None`` if there was no time for one epoch."""

FIRST_SHARE: Final = 1 / 3  # of the epochs in the first round: eta = 3
MAX_CANDIDATES: Final = 3


@dataclass(frozen=True)
class Champion:
    """The best candidate without training, and the probabilities ``(M, C)`` that it gives to validation images out of fold."""

    candidate: Candidate
    positions: NDArray[np.int64]  # (M,) among the validation images
    probabilities: NDArray[np.float64]


def select_for_halving(
    candidates: Sequence[Candidate], best: Candidate, constraints: Constraints, seconds_left: float
) -> tuple[list[Candidate], list[CandidateVerdict]]:
    """Return the candidates to train, the first and those that there is time to compare with it; and verdicts on the others.

    Args:
        candidates: best value for time first.
        best: published if every trial fails.
        constraints: if they request strategies, all are selected; without a budget, another has to promise 1 pp more.
        seconds_left: of the budget.
    """
    if is_requested(constraints):
        return list(candidates), []
    selected, rejected = list(candidates[:1]), []
    for place, candidate in enumerate(candidates[1:], start=1):
        first, needed_s = selected[0], _needed_s([*selected, candidate], best)
        if place >= MAX_CANDIDATES:
            reason = f"{MAX_CANDIDATES} other strategies promise more per second"
        elif constraints.budget_s is None and candidate.gain - first.gain <= EQUAL_WITHIN:
            reason = f"promises no more than {first.strategy} and takes longer; without a budget it is not compared"
        elif needed_s > seconds_left:
            reason = f"comparing it with {first.strategy} needs {time_short(needed_s, seconds_left)}"
        else:
            selected.append(candidate)
            continue
        rejected.append(candidate.judge("not_tried", reason))
    return selected, rejected


def _needed_s(candidates: Sequence[Candidate], best: Candidate) -> float:
    """Return the least seconds to compare ``candidates``, and then to publish the winner or the best probe."""
    # 1) The first share of the epochs of all, then the rest of the longest.
    costs = [candidate.cost for candidate in candidates]
    first_s = FIRST_SHARE * sum(cost.trial_s for cost in costs)
    rest_s = max((1 - FIRST_SHARE) * cost.trial_s + cost.finish_s for cost in costs)
    # 2) Publishing the best probe may take longer than publishing a candidate.
    return first_s + rest_s + max(best.seconds - min(cost.finish_s for cost in costs), 0.0)


def successive_halving(
    candidates: Sequence[Candidate],
    base: Candidate,
    workspace: Workspace,
    run_trial: RunTrial,
    champion: Champion | None = None,
    partner: Champion | None = None,
) -> list[Candidate]:
    """Compare ``candidates`` with each other and with the linear probe ``base`` by training them.

    After a third of its epochs a candidate continues if it is the first, if it is significantly better than the first, or if
    it promises 1 pp more and is not significantly worse. It also drops out if there is no time for the rest, or if the fit
    would keep the probe; if that leaves none, those that dropped out before have their turn.

    Args:
        candidates: best value for time first.
        base: the linear probe of their backbone.
        workspace: gives deadline and progress.
        run_trial: trains a candidate.
        champion: what is published if no trial finishes; a trained candidate has to show that it is better.
        partner: closed-form candidate whose probabilities may be averaged with those of a trained one.

    Returns:
        Candidates with measured accuracies, also averaged ones; then those that dropped out, with ``given_up``.
    """
    # 1) A third of the epochs of all.
    started = list(candidates)
    if len(candidates) > 1:
        workspace.progress.info("comparing " + ", ".join(candidate.strategy for candidate in candidates))
        started = _first_round(candidates, workspace, run_trial)
    dropped = {candidate.strategy: candidate.given_up for candidate in started}
    # 2) The rest: those that continue; then, while none has finished, those that dropped out but can be trained.
    finished, averaged = list[Candidate](), list[Candidate]()
    can_continue = [candidate for candidate in started if candidate.given_up is None or candidate.trial is not None]
    for candidate in sorted(can_continue, key=lambda candidate: candidate.given_up is not None):
        if finished and candidate.given_up is not None:
            continue
        if finished and workspace.deadline.left_s < candidate.cost.min_s:
            dropped[candidate.strategy] = "no time left after the first strategy"
            continue
        trained = _train(replace(candidate, given_up=None), candidate.epochs, workspace, run_trial)
        measured = _measure(trained, base, finished[0] if finished else None, workspace, champion)
        if measured.given_up is None:
            finished.append(measured)
        dropped[candidate.strategy] = measured.given_up
        if partner is not None and (average := _average(trained, measured, partner, workspace)) is not None:
            averaged.append(average)
    # 3) Candidates that fell behind, failed or had no time are chosen only if none are left.
    given_up = [(candidate, dropped[candidate.strategy]) for candidate in candidates]
    return [
        *finished,
        *averaged,
        *(replace(loser, accuracy_source=why, reason=why, given_up=why) for loser, why in given_up if why),
    ]


def first_epochs(candidate: Candidate) -> int:
    """Return the number of epochs of the first round."""
    return ceil(candidate.epochs * FIRST_SHARE)


def _first_round(candidates: Sequence[Candidate], workspace: Workspace, run_trial: RunTrial) -> list[Candidate]:
    """Train a third of the epochs of all; those that fall behind the first get ``given_up``."""
    started: list[Candidate] = []
    first: tuple[Candidate, Trial] | None = None
    for candidate in candidates:
        trained = _train(candidate, first_epochs(candidate), workspace, run_trial)
        if trained.trial is not None and first is None:
            first = trained, trained.trial
        elif trained.trial is not None and first is not None:
            comparison = compare(trained.trial.trained, first[1].trained, trained.trial.labels, candidate.probe.metric)
            lead = comparison.difference if comparison.result == "decided" else 0.0
            if lead < 0 or (lead == 0 and trained.gain - first[0].gain <= EQUAL_WITHIN):
                reason = f"{comparison.text} against {first[0].strategy} after a third of the epochs"
                trained = replace(trained, given_up=reason)
        started.append(trained)
    return started


def _train(candidate: Candidate, epochs: int, workspace: Workspace, run_trial: RunTrial) -> Candidate:
    """Return ``candidate`` with its trial after ``epochs``, or with its last one if time is up; without any it is given up."""
    began_s = workspace.deadline.spent_s
    if not workspace.deadline.is_ended:
        try:
            trial = run_trial(candidate, epochs)
        except (TrainingError, PluginError) as error:
            workspace.progress.warn(f"Dropping {candidate.strategy}: {error}")
            return replace(candidate, given_up=str(error), trial=None)
        if trial is not None:
            seconds = candidate.trained_s + workspace.deadline.spent_s - began_s
            return replace(candidate, trial=trial, trained_s=seconds)
    return candidate if candidate.trial is not None else replace(candidate, given_up="no time for one epoch")


def _measure(
    trained: Candidate, base: Candidate, leader: Candidate | None, workspace: Workspace, champion: Champion | None
) -> Candidate:
    """Return ``trained`` with its posterior accuracy and the seconds that the rest of the fit takes, or with ``given_up``."""
    trial, metric = trained.trial, trained.probe.metric
    if trained.given_up is not None or trial is None:
        return trained
    # 1) Against the probe: the fit keeps the probe if its validation log loss is lower.
    comparison = compare(trial.trained, trial.probe, trial.labels, metric)
    images = f"{len(trial.labels)} validation images"
    workspace.progress.info(f"{trained.strategy} against the linear probe on {images}: {comparison.text}")
    if trial.is_worse:
        return replace(trained, given_up=f"{comparison.text}, but the linear probe has the lower validation log loss")
    # 2) Against the best candidate without training, on the validation images that it predicts out of fold.
    rival, direct = base, comparison
    if champion is not None and len(champion.positions):
        rows, labels = champion.positions, trial.labels[champion.positions]
        rival, direct = champion.candidate, compare(trial.trained[rows], champion.probabilities, labels, metric)
        weights = None if trial.class_weights is None else trial.class_weights[labels]
        if _log_loss(trial.trained[rows], labels, weights) > _log_loss(champion.probabilities, labels, weights):
            reason = f"{direct.text}, but {rival.name} has the lower log loss on {len(rows)} validation images"
            return replace(trained, given_up=reason)
    # 3) Posterior gain: prior and measurement; of later candidates relative to the first that finished.
    prior = base.accuracy + trained.gain - rival.accuracy
    lead, gain_sd = shrink(direct.difference, direct.standard_error, prior, trained.gain_sd)
    gain = rival.accuracy + lead - base.accuracy
    if leader is not None and leader.trial is not None:
        against_leader, lead = compare(trial.trained, leader.trial.trained, trial.labels, metric), trained.gain - leader.gain
        if against_leader.result == "decided":
            lead, _ = shrink(against_leader.difference, against_leader.standard_error, lead, trained.gain_sd)
        gain = leader.posterior_gain + lead
    return replace(
        trained,
        posterior_gain=gain,
        accuracy=min(max(base.accuracy + gain, 0.0), 1.0),
        accuracy_sd=hypot(base.accuracy_sd, gain_sd),
        accuracy_source=f"trained on the training split: {comparison.text} against the linear probe;"
        f" prior {100 * trained.gain:+.1f} pp",
        seconds=_rest(trained, trial).within(workspace.deadline.left_s),
        predicted_s=trained.seconds,
        reason=f"{trained.reason}; {comparison.text} against the linear probe on validation images",
    )


def _average(trained: Candidate, measured: Candidate, partner: Champion, workspace: Workspace) -> Candidate | None:
    """Return the average of a trained candidate and ``partner``, unless one of them alone has a decidedly lower loss."""
    trial, other, rows = trained.trial, partner.candidate, partner.positions
    if trial is None or trial.is_worse or not len(rows):
        return None
    # 1) Log losses on the validation images that the partner predicts out of fold.
    labels, metric = trial.labels[rows], trained.probe.metric
    weights = None if trial.class_weights is None else trial.class_weights[labels]
    members = [trial.trained[rows], partner.probabilities]
    average = np.mean(members, axis=0)
    loss, *alone = (_log_loss(each, labels, weights) for each in (average, *members))
    better_alone = members[int(np.argmin(alone))]
    if loss > min(alone) and compare(average, better_alone, labels, metric).result == "decided":
        return None
    # 2) Accuracy: a member of an ensemble is expected to remove some errors of the better one; the images correct that.
    better = max(measured.accuracy if measured.given_up is None else 0.0, other.accuracy)
    prior = better + ENSEMBLE_GAIN * (1 - better) - other.accuracy
    direct = compare(average, partner.probabilities, labels, metric)
    lead, gain_sd = shrink(direct.difference, direct.standard_error, prior, trained.gain_sd)
    losses_text = f"log loss {loss:.3f}, alone {alone[0]:.3f} and {alone[1]:.3f}, on {len(rows)} validation images"
    workspace.progress.info(f"{trained.strategy} averaged with {other.name}: {losses_text}")
    # 3) Both networks predict every image, but one model is published.
    finish_s = max(other.seconds - workspace.publishing_s(other.size_mib), 0.0)
    return replace(
        trained,
        averaged_with=other.probe,
        backbone=f"{trained.backbone}{PLUS}{other.backbone}",
        accuracy=min(max(other.accuracy + lead, 0.0), 1.0),
        accuracy_sd=hypot(other.accuracy_sd, gain_sd),
        accuracy_source=f"trained on the training split and averaged with {other.name}: {losses_text}",
        seconds=finish_s + _rest(trained, trial).within(workspace.deadline.left_s - finish_s),
        predicted_s=trained.seconds + finish_s,
        latency_ms=trained.latency_ms + other.latency_ms,
        size_mib=trained.size_mib + other.size_mib,
        memory_mib=max(trained.memory_mib, other.memory_mib) + AVERAGE_MIB,
        reason=f"{trained.reason}; averaged with {other.name}: {losses_text}",
    )


def _rest(trained: Candidate, trial: Trial) -> TrainingCost:
    """Return what is left of the fit after the trial."""
    return replace(trained.cost, trial_s=0.0, refit_s=trial.kept_share * trained.cost.refit_s)


def _log_loss(probabilities: NDArray[np.float64], labels: NDArray[np.int64], weights: NDArray[np.float64] | None) -> float:
    """Return the weighted mean log loss of ``probabilities`` ``(M, C)``."""
    return float(np.average(losses("log_loss", labels, probabilities), weights=weights))
