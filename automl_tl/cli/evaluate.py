"""``tl evaluate``."""

from __future__ import annotations

from automl_tl.cli.options import AsJson, Images, Model, RegistryDir
from automl_tl.cli.render import show_evaluation
from automl_tl.cli.telling import ConsoleProgress, print_json

__all__ = ["evaluate"]


def evaluate(model: Model, images: Images, registry: RegistryDir = None, as_json: AsJson = False) -> None:
    """Measure MODEL on labeled IMAGES; with train/ and test/ inside, on test/ alone. Classes are matched by name.

    Images that the model learned from, and files that can't be used, are counted on stderr and in --json.
    """
    from automl_tl.workflows.evaluate import evaluate_model

    evaluation = evaluate_model(model, images, registry=registry, progress=ConsoleProgress())
    print_json(evaluation) if as_json else show_evaluation(evaluation)
