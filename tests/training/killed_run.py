"""A run that kills its own process in the third epoch, for the resume test in test_loop.py."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from automl_tl.training.loop import PhaseTrainer, train
from tests.training.test_loop import EVERYTHING, make_run

if __name__ == "__main__":
    real_epoch = PhaseTrainer.train_epoch
    calls: list[object] = []

    def killing_epoch(self: PhaseTrainer, *arguments: object) -> float:
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real_epoch(self, *arguments)  # type: ignore[arg-type]

    PhaseTrainer.train_epoch = killing_epoch  # type: ignore[assignment,method-assign]
    train(make_run(Path(sys.argv[1]), EVERYTHING))
