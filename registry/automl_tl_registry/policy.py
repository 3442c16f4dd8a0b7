"""The rules of the gates. They come from ``gates.toml`` in the registry's folder; ``gates`` applies them.

[default]                      # of every model; shown are the defaults that hold without a file
aliases = ["production"]       # which aliases are gated; for others only integrity and probe are checked
max_accuracy_loss = 0.03       # against the live version, on the images that both were tested on
confidence = 0.9               # one-sided, that the loss isn't larger
when_unsure = "observed"       # too few images to be that sure: decide by what was observed; or "refuse", "allow"
min_class_recall = 0.1         # of each class ...
min_class_images = 20          # ... with at least so many test images
skip = []                      # names of gates to leave out

[models.hymenoptera]           # instead of the defaults, for one model
min_accuracy = 0.9
max_latency_ms = 50.0
max_size_mib = 30.0
max_calibration_error = 0.05
require_probe = true
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from automl_tl_registry.errors import InvalidPolicyError
from automl_tl_registry.values import Fraction, GateName, Value

__all__ = ["GATES_FILE", "GatePolicy", "read_policy"]

GATES_FILE: Final = "gates.toml"
Ceiling = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class GatePolicy(Value):
    """The rules of one model; an absent limit isn't checked."""

    aliases: tuple[str, ...] = ("production",)
    max_accuracy_loss: Fraction | None = 0.03
    confidence: Annotated[float, Field(gt=0.5, lt=1)] = 0.9
    when_unsure: Literal["observed", "refuse", "allow"] = "observed"
    min_accuracy: Fraction | None = None
    min_class_recall: Fraction | None = 0.1
    min_class_images: Annotated[int, Field(ge=1)] = 20
    max_latency_ms: Ceiling | None = None
    max_size_mib: Ceiling | None = None
    max_calibration_error: Fraction | None = None
    require_probe: bool = False
    skip: tuple[GateName, ...] = ()


def read_policy(root: Path, name: str) -> GatePolicy:
    """Rules for the model ``name``.

    Raises:
        InvalidPolicyError: the file isn't TOML, or has unknown or impossible settings.
    """
    import tomllib

    path = root / GATES_FILE
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        unknown = [f"unknown table or key {key!r}" for key in content if key not in ("default", "models")]
        if unknown:
            raise InvalidPolicyError(path, [*unknown, "expected [default] and [models.NAME]"])
        default, models = content.get("default", {}), content.get("models", {})
        own = models.get(name, {}) if isinstance(models, dict) else models
        if not isinstance(default, dict) or not isinstance(own, dict):
            raise InvalidPolicyError(path, ["expected [default] and [models.NAME] to be tables"])
        return GatePolicy.model_validate(default | own)
    except FileNotFoundError:
        return GatePolicy()
    except ValidationError as error:
        problems = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()]
        raise InvalidPolicyError(path, problems) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidPolicyError(path, [str(error)]) from error
