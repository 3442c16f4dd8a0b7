"""``tl evaluate``."""

from __future__ import annotations

import automl_tl
from automl_tl.cli.options import AsJson, Images, Model, RegistryDir
from automl_tl.cli.render import show_evaluation
from automl_tl.cli.telling import ConsoleProgress, print_json

__all__ = ["evaluate"]


def evaluate(model: Model, images: Images, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Evaluate MODEL on labeled IMAGES (only on test/ if there is one). Classes are matched by name.

    Training images and unusable files among them are counted on stderr and in --json.
    """
    evaluation = automl_tl.evaluate(model, images, registry=registry, progress=ConsoleProgress())
    print_json(evaluation) if as_json else show_evaluation(evaluation)
