"""Sentences of a plan about its probes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from automl_tl.planning.probes import Probe
from automl_tl.planning.verdicts import compare
from automl_tl.plugin_host import PLUS
from automl_tl.runtime.formatting import percent

__all__ = ["no_signal", "undecided", "why_backbone"]


def why_backbone(chosen: Probe, probes: Sequence[Probe]) -> str:
    """Explain the choice of the backbone against the best alternative."""
    probed = f"{percent(chosen.accuracy)} out-of-fold accuracy with a linear probe"
    alone = [probe for probe in probes if PLUS not in probe.name]
    others = [probe for probe in alone if probe is not chosen]
    if not others:
        return f"{chosen.name}: {probed}, the only remaining backbone"
    rival = max(others, key=lambda probe: probe.accuracy)
    verdict = compare(chosen.probabilities, rival.probabilities, chosen.labels)
    among = f"{len(alone)} backbones" + (" and their ensembles" if len(alone) < len(probes) else "")
    return f"{chosen.name}: {probed}, chosen among {among} ({verdict.text} against {rival.name})"


def undecided(chosen: Probe, probes: Sequence[Probe]) -> Iterator[str]:
    """Yield how many images would separate ``chosen`` from each backbone it cannot be separated from yet."""
    for probe in probes:
        if probe is not chosen:
            found = compare(chosen.probabilities, probe.probabilities, chosen.labels)
            if found.word == "not enough data":
                yield f"{found.num_needed} training images would separate {chosen.name} from {probe.name}"


def no_signal(probe: Probe) -> str | None:
    """Return a warning if the probe is hardly better than always predicting the most frequent class."""
    counts = np.bincount(probe.labels, weights=probe.weights)
    share, n = float(counts.max() / counts.sum()), len(probe.labels)
    if probe.accuracy - share > 3 * (share * (1 - share) / n) ** 0.5:
        return None
    return f"no signal: {percent(probe.accuracy)} out of fold; always predicting the most frequent class gives {percent(share)}"
