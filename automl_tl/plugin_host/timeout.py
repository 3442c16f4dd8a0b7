"""A time limit for what should take no time. Python can't end a thread: one that hangs is left behind, and not asked again.

Wall time can't tell a plugin that hangs from a machine that is busy. Our own plugins are known to end, so nothing limits them.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Final, TypeVar

from automl_tl.errors import AutomlTlError

__all__ = ["ANSWER_LIMIT_S", "IMPORT_LIMIT_S", "Timeout"]

ANSWER_LIMIT_S: Final = 15.0  # a pure answer takes microseconds; a long list of cards has taken more than 5 s under load
IMPORT_LIMIT_S: Final = 60.0  # importing torch from a cold disk has taken 20 s

Answer = TypeVar("Answer")


class Timeout:
    """Asks until the first answer that doesn't come in time; whoever lets us wait once is not asked again.

    The question is answered by a daemon thread, which neither holds up the host nor the end of the process.
    """

    def __init__(self, limit_s: float | None = None, *, disabled: bool = False) -> None:
        self.limit_s = ANSWER_LIMIT_S if limit_s is None else limit_s
        self._is_disabled = disabled
        self._is_over = False

    def call(self, question: Callable[[], Answer]) -> Answer:
        """What ``question`` gives or raises.

        Raises:
            TimeoutError: no answer within the limit, now or an earlier time.
        """
        if self._is_disabled:
            return question()
        if self._is_over:
            raise TimeoutError(f"an earlier answer did not come within {self.limit_s:g} s; it is not asked again")
        answers: list[Answer] = []
        failures: list[BaseException] = []

        def answer() -> None:
            try:
                answers.append(question())
            except BaseException as error:  # handed to the thread that asked
                failures.append(error)

        thread = Thread(target=answer, name="tl-plugin", daemon=True)
        thread.start()
        thread.join(self.limit_s)
        if failures:
            raise _of_the_plugin(failures[0])
        if not answers:
            self._is_over = True
            raise TimeoutError(f"no answer within {self.limit_s:g} s")
        return answers[0]


def _of_the_plugin(error: BaseException) -> BaseException:
    """What looks like an error of ours, or like the user's Ctrl-C (which reaches the main thread only), is the plugin's."""
    if isinstance(error, AutomlTlError | KeyboardInterrupt | GeneratorExit):
        return RuntimeError(f"it raised {type(error).__name__}: {error}")
    return error
