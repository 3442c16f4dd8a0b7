"""Other values for a strategy's options, invented from the option's type and tried against its own rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args, get_origin

from pydantic import ValidationError

from automl_tl.contracts import Strategy

__all__ = ["other_values"]


def other_values(strategy: Strategy, option: str, given: Iterable[object] = ()) -> Iterator[Strategy]:
    """``strategy`` with ``option`` at each of ``given``, or at each other value that can be invented and is accepted."""
    now = getattr(strategy, option)
    rest = {name: getattr(strategy, name) for name in type(strategy).model_fields if name != option}
    for value in list(given) or _invented(type(strategy).model_fields[option].annotation, now):
        if value == now:
            continue
        try:
            yield type(strategy)(**rest, **{option: value})
        except ValidationError:
            continue


def _invented(annotation: object, now: object) -> Iterator[object]:
    kinds = [annotation, *get_args(annotation)]
    for kind in kinds:
        if get_origin(kind) is Literal:
            yield from get_args(kind)
    if type(None) in kinds:
        yield None
    if isinstance(now, bool) or (now is None and bool in kinds):
        yield from (True, False)
    elif isinstance(now, int | float):
        yield from _numbers(now)
    elif now is None:
        yield from (1, 2, 10, 0.1, 0.5)
    elif isinstance(now, tuple):
        yield from ((), now[:1], (*now, *now), (1,), (1, 2), (0.5,))


def _numbers(now: float) -> Iterator[float]:
    whole = isinstance(now, int)
    for other in (now + 1, now - 1, now * 2, now * 5, now // 2 if whole else now / 2, now / 10, 0, 1, 0.25, 0.75):
        if not whole or float(other).is_integer():
            yield int(other) if whole else float(other)
