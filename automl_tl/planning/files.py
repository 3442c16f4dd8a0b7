"""Plans on disk."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from automl_tl.errors import PlanFileError
from automl_tl.values import Plan

__all__ = ["read_plan"]


def read_plan(path: Path) -> Plan:
    """The plan in the JSON file at ``path``.

    Raises:
        PlanFileError: there is no such file, or it holds no plan of this version.
    """
    try:
        return Plan.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PlanFileError(path, error.strerror or str(error)) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise PlanFileError(path, f"{where}: {first['msg']} ({error.error_count()} problems in total)") from error
