"""The two modules that turn parts of a timm network into blocks. Nothing else of ours has torch modules.

Blocks share the network's own modules and parameters; what is added here has no parameters of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Each", "Part", "PointwiseClassifier", "one_after_another"]

MODULE_STATE = frozenset(vars(nn.Module()))


def one_after_another(modules: Sequence[nn.Module]) -> nn.Module:
    """One block: ``modules`` in their order."""
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


class Part(nn.Module):
    """One block: ``step(view, x)``, where ``view`` is the network with only some of its children.

    The view is an object of the network's own class, so that the library's own methods run on it (``_pos_embed``,
    ``forward_head`` ...), but it owns only the named children and parameters. A step that reaches for anything else fails
    at once, and each parameter stays in one block.

    Args:
        network: the whole network; it is not changed.
        names: the children, parameters and buffers that this block owns; names that the network doesn't have are passed over.
        step: a function of a module's level (or a partial of one), so that blocks can be copied and pickled.
        without: modules at any depth for which the view has an identity instead: the classifier.
    """

    def __init__(
        self,
        network: nn.Module,
        names: Iterable[str],
        step: Callable[[nn.Module, Tensor], Tensor],
        without: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.view = _view(network, frozenset(names), frozenset(map(id, without)))
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for ``(B, ...)``."""
        return self.step(self.view, x)


class Each(nn.Module):
    """One block: ``x = step(layer, x)`` for each layer in turn, for layers that need more than ``x``."""

    def __init__(self, layers: Iterable[nn.Module], step: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for ``(B, ...)``."""
        for layer in self.layers:
            x = self.step(layer, x)
        return x


class PointwiseClassifier(nn.Module):
    """A 1 x 1 convolution that classifies ``(B, C)``."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)``."""
        return torch.flatten(self.convolution(x[:, :, None, None]), 1)


def _view(network: nn.Module, names: frozenset[str], without: frozenset[int]) -> nn.Module:
    """An object of ``network``'s class that shares its plain attributes and only the members ``names``."""
    view = object.__new__(type(network))
    nn.Module.__init__(view)
    vars(view).update({name: value for name, value in vars(network).items() if name not in MODULE_STATE})
    view.training = network.training
    for kind in ("_parameters", "_buffers", "_modules"):
        members = vars(network)[kind]
        vars(view)[kind].update({name: member for name, member in members.items() if name in names or member is None})
    view._non_persistent_buffers_set.update(network._non_persistent_buffers_set & names)
    view._modules.update({name: _without(child, without) for name, child in view._modules.items() if child is not None})
    return view


def _without(module: nn.Module, without: frozenset[int]) -> nn.Module:
    if id(module) in without:
        return nn.Identity()
    if without.isdisjoint(map(id, module.modules())):
        return module
    return _view(module, frozenset([*module._modules, *module._parameters, *module._buffers]), without)
