"""Registry: list, promote, compare and maintain versions, by the methods of ``automl_tl_registry.Registry``.

The models are imported where predictions are checked, because ``tl registry list`` must not wait for torch.
"""

from __future__ import annotations

from pathlib import Path

from automl_tl.runtime.paths import registry_dir
from automl_tl_registry import Registry, VersionView


def registry(folder: str | Path | None = None) -> Registry:
    """Open the registry in ``folder``, by default the user's; it verifies reference predictions in a new process."""
    return Registry(Path(folder) if folder else registry_dir(), check_predictions=_check_predictions)


def _check_predictions(view: VersionView) -> None:
    from automl_tl.workflows.publish import check_predictions

    check_predictions(view)
