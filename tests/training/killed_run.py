"""A run that kills its own process in the third epoch; the test beside it goes on from what is left."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from automl_tl.training.phases import PhaseWork
from automl_tl.training.trainer import train
from tests.training.test_trainer import EVERYTHING, make_run

if __name__ == "__main__":
    real_epoch = PhaseWork.epoch
    calls: list[object] = []

    def killing_epoch(self: PhaseWork, *arguments: object) -> float:
        calls.append(arguments)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real_epoch(self, *arguments)  # type: ignore[arg-type]

    PhaseWork.epoch = killing_epoch  # type: ignore[assignment,method-assign]
    train(make_run(Path(sys.argv[1]), EVERYTHING))
