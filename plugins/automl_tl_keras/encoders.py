"""Networks of ``keras.applications`` as torch modules, their blocks and classifiers.

A functional Keras model is a graph of layers. ``translate`` reads it from the model's config; ``KerasNetwork`` runs it, and a
``Part`` runs a stretch of it between two places where a single tensor crosses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import prod
from statistics import median
from typing import Any, Final, TypeAlias

from torch import Tensor, nn

from automl_tl_keras.layers import ARRAYS, Array, Config, Shape, WeightedLayer, activation, make_layer, snake_case

KerasModel: TypeAlias = Any  # keras has no types

INPUT: Final = "input"
MAX_BLOCKS: Final = 8
JOINS: Final = ("Add", "Concatenate", "CustomScaleLayer")  # ends of branches
ELEMENTWISE: Final = ("Activation", "BatchNormalization", "ReLU")
HAS_ACTIVATION: Final = ("Conv2D", "Dense", "DepthwiseConv2D", "SeparableConv2D")


@dataclass(frozen=True)
class Step:
    """One layer of a graph; its output has its name."""

    name: str
    inputs: tuple[str | float, ...]  # names of outputs, or numbers
    kind: str  # Keras class
    shape: tuple[int | None, ...] = ()  # of the output in Keras: batch first, channels last

    def __str__(self) -> str:
        return f"{self.name}({', '.join(map(str, self.inputs))})"


class Part(nn.Module):
    """A stretch of a graph, from one tensor to one tensor.

    Args:
        layers: modules by step.
        steps: in an order in which each input is known.
        source: name of the input.
    """

    def __init__(self, layers: Mapping[str, nn.Module] | nn.ModuleDict, steps: Sequence[Step], source: str) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({step.name: layers[step.name] for step in steps})
        self.steps, self.source = tuple(steps), source
        last_use = {name: index for index, step in enumerate(steps) for name in step.inputs if isinstance(name, str)}
        self._unused_after = [[name for name, last in last_use.items() if last == index] for index in range(len(steps))]

    def forward(self, x: Tensor) -> Tensor:
        """Run the steps on ``(B, ...)``; an output is freed after its last use."""
        values = {self.source: x}
        for step, unused in zip(self.steps, self._unused_after, strict=True):
            inputs = [values[value] if isinstance(value, str) else value for value in step.inputs]
            values[step.name] = self.layers[step.name](*inputs)
            del inputs
            for name in unused:
                del values[name]
        return values[self.steps[-1].name]

    def extra_repr(self) -> str:
        """Return the graph, which the layers do not show."""
        return "; ".join(map(str, self.steps))


class KerasNetwork(Part):
    """A whole model: images ``(B, 3, H, W)`` to logits, or to pooled features if it has no classifier.

    Args:
        layers: modules by step.
        steps: of the graph.
        weighted: its layers with arrays, in the order of Keras.
    """

    def __init__(self, layers: Mapping[str, nn.Module], steps: Sequence[Step], weighted: Sequence[WeightedLayer]) -> None:
        super().__init__(layers, steps, INPUT)
        self.weighted = tuple(weighted)

    def to_tensors(self, arrays: Mapping[str, Sequence[Array]]) -> dict[str, Tensor]:
        """Return the tensors of the network, by name, from arrays by the path of their layer in a Keras file."""
        known = [layer for layer in self.weighted if layer.path in arrays]
        return {name: tensor for layer in known for name, tensor in layer.to_tensors(arrays[layer.path]).items()}


def translate(model: KerasModel, *, reads_bgr: bool) -> KerasNetwork:
    """Return a functional Keras model as a torch network with random weights, in eval mode.

    Args:
        model: of ``keras.applications``.
        reads_bgr: whether it reads blue, green, red; the network reads red, green, blue.

    Raises:
        TypeError: the model has a layer that is unknown here.
    """
    names, paths = Counter[str](), Counter[str]()
    outputs: dict[str, str] = {}  # layer -> step whose output is the layer's
    shapes: dict[str, Shape] = {}
    layers: dict[str, nn.Module] = {}
    steps: list[Step] = []
    weighted: list[WeightedLayer] = []
    for row in model.get_config()["layers"]:
        kind, config = row["class_name"], row["config"]
        path = f"layers/{_numbered(snake_case(kind), paths)}"
        if kind == "InputLayer":
            outputs[row["name"]] = INPUT
            continue
        # 1) Inputs: outputs of earlier layers, whose shapes are part of the config, or numbers.
        (node,) = row["inbound_nodes"]  # no layer of these models is used twice
        values = [_tensor_or_number(value, outputs) for value in _leaves(node["args"])]
        shapes |= dict(value for value in values if isinstance(value, tuple))
        inputs = tuple(value[0] if isinstance(value, tuple) else value for value in values)
        shape = next(value[1] for value in values if isinstance(value, tuple))
        # 2) The module. Names that Keras numbers depend on what was built before, so they are numbered again.
        is_numbered = re.fullmatch(rf"{snake_case(kind)}(_\d+)?", row["name"])
        name = _numbered(snake_case(kind), names) if is_numbered else row["name"]
        layers[name] = make_layer(kind, config, shape)
        steps.append(Step(name, inputs, kind))
        weighted += _with_arrays(WeightedLayer(f"layers.{name}", path, kind, config, len(shape)))
        # 3) Its activation, as a step of its own.
        if kind in HAS_ACTIVATION and not isinstance(function := activation(config), nn.Identity):
            layers[f"{name}_activation"] = function
            steps.append(Step(f"{name}_activation", (name,), "Activation"))
        outputs[row["name"]] = steps[-1].name
    weighted[0] = replace(weighted[0], reads_bgr=reads_bgr)
    return KerasNetwork(layers, [replace(step, shape=tuple(shapes.get(step.name, ()))) for step in steps], weighted).eval()


def copy_weights(model: KerasModel, network: KerasNetwork) -> None:
    """Give ``network`` the weights of the Keras model that it was translated from."""
    network.load_state_dict(network.to_tensors(dict(arrays_of(model))), strict=False)


def arrays_of(model: KerasModel, prefix: str = "") -> Iterator[tuple[str, list[Array]]]:
    """Yield the arrays of each layer of a Keras model, by the path of the layer in files that Keras writes.

    Args:
        model: its nested models are included.
        prefix: of the paths.
    """
    import keras

    paths = Counter[str]()
    for layer in model.layers:
        path = f"{prefix}layers/{_numbered(snake_case(type(layer).__name__), paths)}"
        if isinstance(layer, keras.Model):
            yield from arrays_of(layer, f"{path}/")
        elif layer.weights:
            yield path, [variable.value.detach().cpu().numpy() for variable in layer.weights]


def cut(network: KerasNetwork) -> Sequence[nn.Module]:
    """Split ``network`` into up to ``MAX_BLOCKS`` blocks of similar depth: ``(B, 3, H, W)`` to ``(B, feature_dim)``."""
    end = _num_encoder_steps(network)
    steps = network.steps[:end]
    ends = [*_block_ends(network, steps), len(steps)]
    blocks: list[nn.Module] = []
    source = INPUT
    for start, stop in pairwise([0, *ends]):
        blocks.append(Part(network.layers, steps[start:stop], source))
        source = steps[stop - 1].name
    if _is_map(network):
        blocks[-1] = nn.Sequential(blocks[-1], nn.Flatten(1))
    return blocks


def classifier(network: KerasNetwork) -> nn.Module | None:
    """Return what follows the features; ``None`` for VGG, whose fully connected layers do not read pooled features."""
    end = _num_encoder_steps(network)
    if end == len(network.steps):
        return None
    top = Part(network.layers, network.steps[end:], network.steps[end - 1].name)
    return nn.Sequential(nn.Unflatten(1, (-1, 1, 1)), top) if _is_map(network) else top


def _num_encoder_steps(network: KerasNetwork) -> int:
    """Return the number of steps up to the features: the last pooling, and a layer norm behind it."""
    pooling = max(index for index, step in enumerate(network.steps) if step.kind == "GlobalAveragePooling2D")
    behind = network.steps[pooling + 1 : pooling + 2]
    return pooling + 1 + sum(step.kind == "LayerNormalization" for step in behind)


def _is_map(network: KerasNetwork) -> bool:
    """Return whether the features are maps of one pixel, as in MobileNet."""
    return len(network.steps[_num_encoder_steps(network) - 1].shape) == 4


def _block_ends(network: KerasNetwork, steps: Sequence[Step]) -> list[int]:
    """Return the indices of the steps at which a new block starts, except the first."""
    # 1) Layers with parameters up to each step; a block has at least one.
    has_parameters = [any(True for _ in network.layers[step.name].parameters()) for step in steps]
    done = list(accumulate(has_parameters))
    possible = [index for index in _good_crossings(steps) if 0 < done[index] < done[-1]]
    # 2) The smallest output near each equal share.
    ends = set()
    for number in range(1, MAX_BLOCKS):
        near = [index for index in possible if abs(done[index] * MAX_BLOCKS - number * done[-1]) <= done[-1] / 2]
        ends |= set(sorted(near, key=lambda index: _size(steps[index]))[:1])
    return [index + 1 for index in sorted(ends)]


def _good_crossings(steps: Sequence[Step]) -> list[int]:
    """Return the steps after which a single tensor crosses: a join of branches, or no larger than most of its resolution.

    So the cached output of a block is small: MobileNet v2, for example, is not cut where its channels are expanded.
    """
    crossings = list(_crossings(steps))
    sizes: dict[tuple[int | None, ...], list[int]] = {}
    for index in crossings:
        sizes.setdefault(steps[index].shape[1:3], []).append(_size(steps[index]))
    good = set()
    for index in crossings:
        step, end = steps[index], index
        if step.shape and (step.kind in JOINS or _size(step) <= median(sizes[step.shape[1:3]])):
            while end + 1 in crossings and steps[end + 1].kind in ELEMENTWISE:  # these belong to the layer before
                end += 1
            good.add(end)
    return sorted(good)


def _crossings(steps: Sequence[Step]) -> Iterator[int]:
    """Yield the indices of the steps after which their output is the only one that is needed."""
    last_use = {name: index for index, step in enumerate(steps) for name in step.inputs if isinstance(name, str)}
    needed_until = last_use[INPUT]
    for index, step in enumerate(steps[:-1]):
        if needed_until <= index:
            yield index
        needed_until = max(needed_until, last_use[step.name])


def _size(step: Step) -> int:
    """Return the number of values per image; 0 if it is not known."""
    return prod(side or 1 for side in step.shape[1:]) if step.shape else 0


def _with_arrays(layer: WeightedLayer) -> Iterator[WeightedLayer]:
    """Yield the layer if it has arrays, or the layers of a nested model that have some."""
    if layer.kind == "Sequential":
        paths = Counter[str]()
        rows = [row for row in layer.config["layers"] if row["class_name"] != "InputLayer"]
        for index, row in enumerate(rows):
            path = f"{layer.path}/layers/{_numbered(snake_case(row['class_name']), paths)}"
            yield WeightedLayer(f"{layer.module}.{index}", path, row["class_name"], row["config"], layer.rank)
    elif layer.kind in ARRAYS and not (layer.kind == "Normalization" and layer.config["mean"] is not None):
        yield layer


def _tensor_or_number(value: Config | float, outputs: Mapping[str, str]) -> tuple[str, Shape] | float:
    """Return a step and the shape of its output, or a number, from an argument in a config."""
    if not isinstance(value, dict):
        return value
    return outputs[value["config"]["keras_history"][0]], tuple(value["config"]["shape"])


def _leaves(values: object) -> Iterator[Any]:
    """Yield the items of nested lists."""
    if isinstance(values, list | tuple):
        for value in values:
            yield from _leaves(value)
    else:
        yield values


def _numbered(name: str, counts: Counter[str]) -> str:
    """Return ``name`` with the number of its earlier uses, as Keras does: ``conv2d``, ``conv2d_1``."""
    counts[name] += 1
    return name if counts[name] == 1 else f"{name}_{counts[name] - 1}"
