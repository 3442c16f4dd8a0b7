"""The modules that turn parts of a timm network into blocks and heads. Nothing else of this package has torch modules.

Blocks share the network's own modules and parameters; what is added here has no parameters of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["Glue", "MeanOfHeads", "Network", "Part", "PointwiseClassifier", "one_after_another", "pack", "unpack", "with_token"]

Network: TypeAlias = Any  # one of timm's hundred classes; they have conventions in common, but no type
MODULE_STATE = frozenset(vars(nn.Module()))


def one_after_another(modules: Sequence[nn.Module]) -> nn.Module:
    """One block: ``modules`` in their order."""
    return modules[0] if len(modules) == 1 else nn.Sequential(*modules)


def with_token(tokens: Tensor, x: Tensor) -> Tensor:
    """``x``, ``(B, N, C)``, behind the same (or each image's own) ``tokens``, ``(1 or B, T, C)``."""
    return torch.cat((tokens.expand(x.shape[0], -1, -1), x), dim=1)


def pack(tensors: Sequence[Tensor]) -> Tensor:
    """One tensor ``(B, n)`` that holds several ``(B, ...)``."""
    return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)


def unpack(x: Tensor, shapes: Sequence[tuple[int, ...]]) -> list[Tensor]:
    """The tensors that ``pack`` put into ``x``, by their shapes without B."""
    parts = torch.split(x, [prod(shape) for shape in shapes], dim=1)
    return [part.reshape(-1, *shape) for part, shape in zip(parts, shapes, strict=True)]


class Part(nn.Module):
    """One block: ``step(view, x)``, where ``view`` is the network with only some of its children.

    The view is an object of the network's own class, so that the library's own methods run on it (``_pos_embed``,
    ``forward_head`` ...), but it owns only the named children and parameters. A step that reaches for anything else fails
    at once, and each parameter stays in one block. A module that the network holds in several places is kept in the first
    and borrowed by the others, so that it is in the block's state once.

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
        step: Callable[[Network, Tensor], Tensor],
        without: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        owned = frozenset(names)
        self.view = _view(network, owned, _Changes(frozenset(map(id, without)), _shared(network, owned), set()))
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for ``(B, ...)``."""
        return self.step(self.view, x)


class Glue(nn.Module):
    """One block: ``step(self, x)``, where the modules are attributes under the given names; lists become ModuleLists."""

    def __init__(self, step: Callable[[Network, Tensor], Tensor], **modules: nn.Module | Sequence[nn.Module] | None) -> None:
        super().__init__()
        self.step = step
        for name, module in modules.items():
            setattr(self, name, module if module is None or isinstance(module, nn.Module) else nn.ModuleList(module))

    def forward(self, x: Tensor) -> Tensor:
        """The block's output for ``(B, ...)``."""
        return self.step(self, x)


class PointwiseClassifier(nn.Module):
    """A classifier that is a 1 x 1 convolution, on features ``(B, feature_dim)``."""

    def __init__(self, convolution: nn.Module) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)``."""
        return torch.flatten(self.convolution(x[:, :, None, None]), 1)


class MeanOfHeads(nn.Module):
    """The mean of several heads' logits.

    Args:
        heads: each maps its features to logits.
        widths: how many of the features each head has, in order; absent: every head has all.
    """

    def __init__(self, heads: Iterable[nn.Module], widths: Sequence[int] | None = None) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.widths = None if widths is None else list(widths)

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of ``(B, feature_dim)``."""
        parts = [x] * len(self.heads) if self.widths is None else torch.split(x, self.widths, dim=1)
        return torch.stack([head(part) for head, part in zip(self.heads, parts, strict=True)]).mean(0)


class _Changes(NamedTuple):
    without: frozenset[int]  # ids of modules that become identities
    shared: frozenset[int]  # ids of modules that are in several places
    seen: set[int]  # those of them that are kept already


def _shared(network: nn.Module, names: frozenset[str]) -> frozenset[int]:
    owned = [child for name, child in network._modules.items() if name in names and child is not None]
    places = Counter(id(module) for child in owned for _, module in child.named_modules(remove_duplicate=False))
    return frozenset(module for module, count in places.items() if count > 1)


def _view(network: nn.Module, names: frozenset[str], changes: _Changes) -> nn.Module:
    """An object of ``network``'s class that shares its plain attributes and only the members ``names``."""
    view = object.__new__(type(network))
    nn.Module.__init__(view)
    vars(view).update({name: value for name, value in vars(network).items() if name not in MODULE_STATE})
    view.training = network.training
    for kind in ("_parameters", "_buffers", "_modules"):
        members = vars(network)[kind]
        vars(view)[kind].update({name: member for name, member in members.items() if name in names or member is None})
    view._non_persistent_buffers_set.update(network._non_persistent_buffers_set & names)
    for name, child in list(view._modules.items()):
        if id(child) in changes.seen:
            vars(view)[name] = view._modules.pop(name)  # a plain attribute, not a child: its owner keeps and moves it
        elif child is not None:
            changes.seen.update({id(child)} & changes.shared)
            view._modules[name] = _changed(child, changes)
    return view


def _changed(module: nn.Module, changes: _Changes) -> nn.Module:
    if id(module) in changes.without:
        return nn.Identity()
    if (changes.without | changes.shared).isdisjoint(id(inner) for inner in module.modules() if inner is not module):
        return module
    return _view(module, frozenset([*module._modules, *module._parameters, *module._buffers]), changes)
