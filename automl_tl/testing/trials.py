"""Recipes carried out on the toy task by the real trainer, in memory and in a folder that goes away."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final

from automl_tl.contracts import Backbone, Recipe, Situation
from automl_tl.plugin_host import Catalog, LoadedBackbone, PluginEntry
from automl_tl.runtime.budget import Deadline
from automl_tl.runtime.progress import QUIET
from automl_tl.testing.toy import CLASSES, ToyBackbone, toy_images, toy_profile, toy_situation
from automl_tl.values import Constraints, Plan

if TYPE_CHECKING:
    from torch import Tensor, nn

    from automl_tl.training import Fitted
    from automl_tl.training.checkpoints import Checkpoints
    from automl_tl.training.images import LabeledImages
    from automl_tl.training.run import AnyHead
    from automl_tl.training.workspace import Workspace

__all__ = [
    "Trained",
    "Trials",
    "brief",
    "folder_that_goes_away",
    "offered_toy",
    "on_the_cpu",
    "toy_catalog",
    "train_run",
    "work_bench",
]

LEARNING_S: Final = 30.0  # for the one run that goes through all epochs; the trainer cuts what doesn't fit
BRIEF_EPOCHS: Final = 2


@dataclass(frozen=True)
class Trained:
    """A run that came to its end, with the blocks' tensors from before it. ``blocks`` and ``head`` are in eval mode."""

    before: Mapping[str, Tensor]
    blocks: nn.Sequential
    head: nn.Module

    @property
    def after(self) -> Mapping[str, Tensor]:
        """All tensors, of blocks and head."""
        blocks = {f"blocks.{name}": tensor for name, tensor in self.blocks.state_dict().items()}
        return blocks | {f"head.{name}": tensor for name, tensor in self.head.state_dict().items()}


class Trials:
    """What training by one strategy gives; each run is made once, when a check first asks for it."""

    def __init__(self, strategy: str, recipe_for: Callable[[Situation], Recipe], folder: Path) -> None:
        self._strategy, self._recipe_for, self._folder = strategy, recipe_for, folder

    @cached_property
    def recipe(self) -> Recipe:
        """For the toy task, at full length."""
        return self._recipe_for(toy_situation())

    @cached_property
    def straight(self) -> Trained:
        """A brief run from start to end."""
        return self.briefly("straight")

    def briefly(self, name: str, *, checkpoints: Checkpoints | None = None, on_gpu: bool = False) -> Trained:
        """Another brief run; on the CPU, where bit by bit means something, unless a GPU is asked for."""
        with nullcontext() if on_gpu else on_the_cpu():
            workspace = self.workspace(name, on_gpu=on_gpu)
            return train_run(brief(self.recipe), workspace, offered_toy(), checkpoints=checkpoints)

    def accuracy(self) -> float:
        """On the test images of the toy task, after training at full length. A solved head goes the way that users go."""
        import torch

        images = toy_images()["test"]
        if not self.recipe.phases:
            scores = torch.from_numpy(self.fit(self.recipe, "learn").probabilities(images))
        else:
            from automl_tl.training.views import Prefix

            workspace, preprocessing = self.workspace("learn", budget_s=LEARNING_S), ToyBackbone().card.preprocessing
            with on_the_cpu(), torch.no_grad():
                trained = train_run(self.recipe, workspace, offered_toy())
                features = Prefix(trained.blocks, preprocessing, workspace.scratch, gives_features=True).plain(images).all()
                scores = trained.head(torch.from_numpy(features))
        return float((scores.argmax(dim=1).numpy() == images.labels).mean())

    def fit(self, recipe: Recipe, name: str) -> Fitted:
        """What ``tl auto fit`` does with a plan."""
        from automl_tl.training.fit import fit

        plan = Plan(
            backbone=ToyBackbone().card.name,
            strategy=self._strategy,
            recipe=recipe,
            preprocessing=ToyBackbone().card.preprocessing,
            constraints=Constraints(seed=0),
            profile=toy_profile(),
            reasons=("the conformance kit says so",),
        )
        with on_the_cpu():
            return fit(plan, offered_toy(), CLASSES, toy_images(), self.workspace(name))

    def workspace(self, name: str, *, budget_s: float | None = None, on_gpu: bool = False) -> Workspace:
        """A place to work that no other run has seen."""
        return work_bench(self._folder / name, budget_s=budget_s, on_gpu=on_gpu)


def work_bench(folder: Path, *, budget_s: float | None = None, on_gpu: bool = False) -> Workspace:
    """A new folder to work in, with caches of its own; training runs on the CPU unless ``on_gpu``."""
    import torch

    from automl_tl.training.workspace import Workspace

    device = torch.device("cuda" if on_gpu else "cpu")
    work = Path(tempfile.mkdtemp(prefix=f"{folder.name.replace(' ', '-')}-", dir=folder.parent))
    return Workspace(folder=work, cache_dir=work / "cache", deadline=Deadline(budget_s), progress=QUIET, device=device)


def brief(recipe: Recipe) -> Recipe:
    """The same recipe with a few epochs per phase, and no early end."""
    phases = tuple(phase.model_copy(update={"epochs": BRIEF_EPOCHS}) for phase in recipe.phases)
    return recipe.model_copy(update={"phases": phases, "patience_epochs": None})


def offered_toy(backbone: Backbone | None = None) -> LoadedBackbone:
    """The toy backbone as a catalog would give it."""
    plugin = PluginEntry(kind="backbones", name="toy", distribution="automl-tl", version="0", entry_point="automl_tl.testing")
    return LoadedBackbone(plugin, backbone or ToyBackbone())


def toy_catalog() -> Catalog:
    """A catalog with the toy backbone alone."""
    catalog = Catalog(())
    catalog.backbones = {ToyBackbone().card.name: offered_toy()}
    return catalog


def train_run(
    recipe: Recipe,
    workspace: Workspace,
    backbone: LoadedBackbone,
    *,
    checkpoints: Checkpoints | None = None,
    images: LabeledImages | None = None,
) -> Trained:
    """Carry out ``recipe`` with the real trainer, seed 0; nothing is validated, so the last weights are what stays."""
    import torch

    from automl_tl.models.bundle import build_encoder
    from automl_tl.training.loop import train
    from automl_tl.training.run import TrainingRun

    images = images or toy_images()["train"]
    torch.manual_seed(0)
    blocks = build_encoder(backbone, pretrained=recipe.pretrained)
    run = TrainingRun(
        blocks=blocks,
        head=_head(recipe, blocks, images, backbone, workspace),
        recipe=recipe,
        preprocessing=backbone.card.preprocessing,
        train=images,
        validation=None,
        num_classes=len(CLASSES),
        flips=True,
        seed=0,
        workspace=workspace,
        checkpoints=checkpoints,
    )
    before = {name: tensor.detach().cpu().clone() for name, tensor in blocks.state_dict().items()}
    with torch.enable_grad():
        train(run)
    return Trained(before, run.blocks.cpu().eval(), run.head.cpu().eval())


def _head(
    recipe: Recipe, blocks: nn.Sequential, images: LabeledImages, backbone: LoadedBackbone, workspace: Workspace
) -> AnyHead:
    from automl_tl.training.closed_form import calibrated, solve
    from automl_tl.training.run import new_head
    from automl_tl.training.views import Prefix

    if not (recipe.head.start == "solved" and recipe.pretrained):
        return new_head(recipe.head, feature_dim=backbone.card.feature_dim, num_classes=len(CLASSES))
    features = Prefix(blocks, backbone.card.preprocessing, workspace.scratch, gives_features=True).plain(images).all()
    solver = recipe.head.solver or "logistic"
    solution = solve(features.copy(), images.labels, images.groups, solver=solver, num_classes=len(CLASSES), seed=0)
    return calibrated(solution, features, images.labels)


@contextmanager
def on_the_cpu() -> Iterator[None]:
    """One thread of the CPU: repeatable bit by bit is promised there, and for so small a task threads only wait."""
    import torch

    from automl_tl.runtime.threads import one_blas_thread

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with one_blas_thread():
            yield
    finally:
        torch.set_num_threads(num_threads)


def folder_that_goes_away(owner: object) -> Path:
    """A temporary folder that is removed when ``owner`` is."""
    folder = Path(tempfile.mkdtemp(prefix="tl-check-"))
    weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder
