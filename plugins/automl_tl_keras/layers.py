"""Layers of ``keras.applications`` as torch modules: ``(B, C, H, W)`` instead of ``(B, H, W, C)``, and their arrays as tensors.

A Keras layer under the torch backend keeps batch statistics as parameters, ignores ``train()`` and ``eval()``, and permutes its
input around every convolution (decision 56). The modules here compute the same numbers as torch's own layers do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

Config: TypeAlias = dict[str, Any]
Shape: TypeAlias = Sequence[int | None]  # of a layer's input in Keras: batch first, channels last
Array: TypeAlias = NDArray[Any]


class SamePadding(nn.Module):
    """TensorFlow's padding ``same``: as many outputs as ``ceil(side / stride)``, the odd pixel at the bottom and right."""

    def __init__(self, kernel: Sequence[int], stride: Sequence[int], value: float = 0.0) -> None:
        super().__init__()
        self.kernel, self.stride, self.value = tuple(kernel), tuple(stride), value

    def extra_repr(self) -> str:
        """Return what determines the output."""
        return f"{self.kernel}, {self.stride}, {self.value}"

    def forward(self, x: Tensor) -> Tensor:
        """Pad ``(B, C, H, W)``."""
        widths: list[int] = []
        for side, kernel, stride in zip(x.shape[:1:-1], self.kernel[::-1], self.stride[::-1], strict=True):
            total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
            widths += [total // 2, total - total // 2]
        return functional.pad(x, widths, value=self.value) if any(widths) else x


class SameConv2d(nn.Conv2d):
    """Convolution with padding ``same``, which depends on the size of the image."""

    def __init__(self, *arguments: Any, **options: Any) -> None:  # noqa: ANN401  those of nn.Conv2d
        super().__init__(*arguments, **options)
        effective = [(kernel - 1) * dilation + 1 for kernel, dilation in zip(self.kernel_size, self.dilation, strict=True)]
        self.same = SamePadding(effective, self.stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``."""
        return super().forward(self.same(x))


class SameAveragePool(nn.Module):
    """Average pooling with padding ``same``, which does not count as pixels."""

    def __init__(self, kernel: tuple[int, int], stride: tuple[int, int]) -> None:
        super().__init__()
        self.same, self.pool = SamePadding(kernel, stride), nn.AvgPool2d(kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``."""
        pixels = self.pool(self.same(torch.ones_like(x[:1, :1])))
        averages: Tensor = self.pool(self.same(x)) / pixels
        return averages


class UnscaledBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose scale is fixed at 1, as in Inception."""

    def __init__(self, num_features: int, **options: float) -> None:
        super().__init__(num_features, **options)  # type: ignore[arg-type]
        del self.weight
        self.register_buffer("weight", torch.ones(num_features))


class ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of a map."""

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``."""
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerScale(nn.Module):
    """A factor per channel, ``(C, 1, 1)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``."""
        return x * self.gamma


class DropPath(nn.Module):
    """Stochastic depth: in training, the branch of some images is zero."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``."""
        if not self.training:
            return x
        return x * functional.dropout(x.new_ones(len(x), 1, 1, 1), self.rate)

    def extra_repr(self) -> str:
        """Return the share of images."""
        return f"{self.rate}"


class Affine(nn.Module):
    """``x * scale + offset``: preprocessing that is part of a Keras model."""

    scale: Tensor
    offset: Tensor

    def __init__(self, scale: Array, offset: Array) -> None:
        super().__init__()
        self.register_buffer("scale", _per_channel(scale), persistent=False)
        self.register_buffer("offset", _per_channel(offset), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``."""
        return x * self.scale + self.offset

    def extra_repr(self) -> str:
        """Return the constants, which the state does not hold."""
        return f"{self.scale.flatten().tolist()}, {self.offset.flatten().tolist()}"


class Standardize(nn.Module):
    """``(x - mean) / sqrt(variance)`` with statistics that come with the weights; those of ImageNet before they are loaded."""

    MEAN: Final = (0.485, 0.456, 0.406)
    STD: Final = (0.229, 0.224, 0.225)
    mean: Tensor
    variance: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(self.MEAN).view(-1, 1, 1))
        self.register_buffer("variance", torch.tensor(self.STD).view(-1, 1, 1).square())

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, 3, H, W)``."""
        return (x - self.mean) / self.variance.sqrt()


class Function(nn.Module):
    """A function of one or more tensors without parameters.

    Args:
        name: what it computes, with everything that determines it.
        function: of the tensors.
    """

    def __init__(self, name: str, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, *values: Any) -> Tensor:  # noqa: ANN401  tensors and numbers
        """Apply the function."""
        return self.function(*values)

    def extra_repr(self) -> str:
        """Return the name."""
        return self.name


def _per_channel(values: Array) -> Tensor:
    return torch.as_tensor(np.asarray(values, dtype=np.float32).reshape(-1, 1, 1))


def _add(*values: Any) -> Tensor:  # noqa: ANN401  tensors and numbers
    total: Tensor = sum(values[1:], start=values[0])
    return total


def _multiply(*values: Any) -> Tensor:  # noqa: ANN401
    product: Tensor = prod(values[1:], start=values[0])
    return product


def _concatenate(*values: Tensor) -> Tensor:
    return torch.cat(values, dim=1)


def _mean(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def _mean_map(x: Tensor) -> Tensor:
    return x.mean((2, 3), keepdim=True)


def _vector(x: Tensor) -> Tensor:
    return x.flatten(1)


def _one_pixel(x: Tensor) -> Tensor:
    return x.flatten(1)[..., None, None]


class Scaled(nn.Module):
    """The first input plus the second times a constant, as in Inception-ResNet."""

    def __init__(self, scale: float) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, shortcut: Tensor, x: Tensor) -> Tensor:
        """Map two maps ``(B, C, H, W)``."""
        return shortcut + x * self.scale

    def extra_repr(self) -> str:
        """Return the constant."""
        return f"{self.scale}"


class Crop(nn.Module):
    """Remove rows and columns at the edges: top, bottom, left, right."""

    def __init__(self, rows: Sequence[int], columns: Sequence[int]) -> None:
        super().__init__()
        self.edges = (*rows, *columns)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(B, C, H, W)``."""
        top, bottom, left, right = self.edges
        return x[:, :, top : x.shape[2] - bottom, left : x.shape[3] - right]

    def extra_repr(self) -> str:
        """Return the edges."""
        return f"{self.edges}"


# ------------------------------------------------------------------------------------------- layers by their Keras class

ACTIVATIONS: Final[dict[str, Callable[[], nn.Module]]] = {
    "gelu": nn.GELU,
    "hard_silu": nn.Hardswish,
    "hard_swish": nn.Hardswish,
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "softmax": lambda: nn.Softmax(dim=1),
    "swish": nn.SiLU,
}


def activation(config: Config) -> nn.Module:
    """Return the activation that a layer's config names."""
    name = config["activation"]
    name = name["config"] if isinstance(name, dict) else name or "linear"
    if name not in ACTIVATIONS:
        raise TypeError(f"unknown Keras activation {name!r}; expected one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def _conv(config: Config, channels: int, *, out: int, groups: int, bias: bool) -> nn.Module:
    """Return a convolution; padding ``same`` that does not depend on the image's size is padding of the convolution itself."""
    kernel, stride, dilation = (tuple(config[name]) for name in ("kernel_size", "strides", "dilation_rate"))
    options: dict[str, Any] = {"stride": stride, "dilation": dilation, "groups": groups, "bias": bias}
    if config["padding"] == "valid":
        return nn.Conv2d(channels, out, kernel, **options)
    if set(stride) == {1} and all(side % 2 for side in kernel):
        padding = tuple((side - 1) * rate // 2 for side, rate in zip(kernel, dilation, strict=True))
        return nn.Conv2d(channels, out, kernel, padding=padding, **options)
    return SameConv2d(channels, out, kernel, **options)


def _conv2d(config: Config, shape: Shape) -> nn.Module:
    out, groups, bias = (config[name] for name in ("filters", "groups", "use_bias"))
    return _conv(config, _channels(shape), out=out, groups=groups, bias=bias)


def _depthwise(config: Config, shape: Shape) -> nn.Module:
    channels = _channels(shape)
    out, bias = channels * config["depth_multiplier"], config["use_bias"]
    return _conv(config, channels, out=out, groups=channels, bias=bias)


def _separable(config: Config, shape: Shape) -> nn.Module:
    channels = _channels(shape)
    middle = channels * config["depth_multiplier"]
    depthwise = _conv(config, channels, out=middle, groups=channels, bias=False)
    return nn.Sequential(depthwise, nn.Conv2d(middle, config["filters"], 1, bias=config["use_bias"]))


def _dense(config: Config, shape: Shape) -> nn.Module:
    """Return a linear layer; on a map it is a 1 x 1 convolution."""
    out, bias = config["units"], config["use_bias"]
    return nn.Conv2d(_channels(shape), out, 1, bias=bias) if len(shape) == 4 else nn.Linear(_channels(shape), out, bias=bias)


def _batch_norm(config: Config, shape: Shape) -> nn.Module:
    kind = nn.BatchNorm2d if config["scale"] else UnscaledBatchNorm2d
    return kind(_channels(shape), eps=config["epsilon"], momentum=1 - config["momentum"])


def _layer_norm(config: Config, shape: Shape) -> nn.Module:
    kind = ChannelNorm if len(shape) == 4 else nn.LayerNorm
    return kind(_channels(shape), eps=config["epsilon"])


def _normalization(config: Config, shape: Shape) -> nn.Module:
    if config["mean"] is None:
        return Standardize()
    std = np.sqrt(np.asarray(config["variance"], dtype=np.float64))
    return Affine(1 / std, -np.asarray(config["mean"], dtype=np.float64) / std)


def _relu(config: Config, shape: Shape) -> nn.Module:
    if config["threshold"] or config["negative_slope"] or config["max_value"] not in (None, 6, 6.0):
        raise TypeError(f"unknown variant of ReLU: {config}")
    return nn.ReLU() if config["max_value"] is None else nn.ReLU6()


def _max_pool(config: Config, shape: Shape) -> nn.Module:
    kernel, stride = _pair(config["pool_size"]), _pair(config["strides"])
    pool = nn.MaxPool2d(kernel, stride)
    return pool if config["padding"] == "valid" else nn.Sequential(SamePadding(kernel, stride, float("-inf")), pool)


def _average_pool(config: Config, shape: Shape) -> nn.Module:
    kernel, stride = _pair(config["pool_size"]), _pair(config["strides"])
    return nn.AvgPool2d(kernel, stride) if config["padding"] == "valid" else SameAveragePool(kernel, stride)


def _zero_padding(config: Config, shape: Shape) -> nn.Module:
    rows, columns = config["padding"]
    return nn.ZeroPad2d((*columns, *rows))


def _dropout(config: Config, shape: Shape) -> nn.Module:
    return DropPath(config["rate"]) if config.get("noise_shape") else nn.Dropout(config["rate"])


def _pooling(config: Config, shape: Shape) -> nn.Module:
    return Function("mean map", _mean_map) if config["keepdims"] else Function("mean", _mean)


def _reshape(config: Config, shape: Shape) -> nn.Module:
    """Return a change between ``(B, C)`` and ``(B, C, 1, 1)``, the only shapes that the order of axes does not matter for."""
    target, side = config["target_shape"], tuple(shape)[1:-1]
    if len(target) not in (1, 3) or set(side) - {1} or set(target[:-1]) - {1}:
        raise TypeError(f"a reshape from {shape} to {target} depends on the order of axes")
    return Function("one pixel", _one_pixel) if len(target) == 3 else Function("vector", _vector)


def _flatten(config: Config, shape: Shape) -> nn.Module:
    return _reshape({"target_shape": (None,)}, shape)


def _rescaling(config: Config, shape: Shape) -> nn.Module:
    return Affine(config["scale"], config["offset"])


def _sequential(config: Config, shape: Shape) -> nn.Module:
    """Return the layers of a nested sequential model whose layers keep the rank."""
    layers = [layer for layer in config["layers"] if layer["class_name"] != "InputLayer"]
    modules = []
    for layer in layers:
        modules.append(make_layer(layer["class_name"], layer["config"], shape))
        shape = (*tuple(shape)[:-1], layer["config"].get("filters", _channels(shape)))
    return nn.Sequential(*modules)


def _pair(values: Sequence[int]) -> tuple[int, int]:
    height, width = values
    return height, width


def _channels(shape: Shape) -> int:
    channels = tuple(shape)[-1]
    assert channels is not None, f"the number of channels is unknown in {shape}"
    return channels


LAYERS: Final[dict[str, Callable[[Config, Shape], nn.Module]]] = {
    "Activation": lambda config, shape: activation(config),
    "Add": lambda config, shape: Function("add", _add),
    "AveragePooling2D": _average_pool,
    "BatchNormalization": _batch_norm,
    "Concatenate": lambda config, shape: Function("concatenate", _concatenate),
    "Conv2D": _conv2d,
    "Cropping2D": lambda config, shape: Crop(*config["cropping"]),
    "CustomScaleLayer": lambda config, shape: Scaled(config["scale"]),
    "Dense": _dense,
    "DepthwiseConv2D": _depthwise,
    "Dropout": _dropout,
    "Flatten": _flatten,
    "GlobalAveragePooling2D": _pooling,
    "LayerNormalization": _layer_norm,
    "LayerScale": lambda config, shape: LayerScale(_channels(shape)),
    "MaxPooling2D": _max_pool,
    "Multiply": lambda config, shape: Function("multiply", _multiply),
    "Normalization": _normalization,
    "ReLU": _relu,
    "Rescaling": _rescaling,
    "Reshape": _reshape,
    "SeparableConv2D": _separable,
    "Sequential": _sequential,
    "StochasticDepth": lambda config, shape: DropPath(config["drop_path_rate"]),
    "ZeroPadding2D": _zero_padding,
}


def make_layer(kind: str, config: Config, shape: Shape) -> nn.Module:
    """Return the torch module of a Keras layer, with random weights.

    Args:
        kind: Keras class.
        config: of the layer.
        shape: of its first input.

    Raises:
        TypeError: the class, or this variant of it, is unknown.
    """
    if kind not in LAYERS:
        raise TypeError(f"unknown Keras layer {kind!r}; expected one of {', '.join(LAYERS)}")
    return LAYERS[kind](config, shape)


# ---------------------------------------------------------------------------------------------------- arrays as tensors


def _kernel(array: Array) -> Array:
    """``(H, W, in, out)`` to ``(out, in, H, W)``."""
    return array.transpose(3, 2, 0, 1)


def _depthwise_kernel(array: Array) -> Array:
    """``(H, W, in, multiplier)`` to ``(in * multiplier, 1, H, W)``."""
    height, width, *_ = array.shape
    return array.transpose(2, 3, 0, 1).reshape(-1, 1, height, width)


def _matrix(array: Array) -> Array:
    """``(in, out)`` to ``(out, in)``."""
    return array.T


def _column(array: Array) -> Array:
    return array.reshape(-1, 1, 1)


def _same(array: Array) -> Array:
    return array


RANKS: Final[dict[Callable[[Array], Array], int]] = {_kernel: 4, _depthwise_kernel: 4, _matrix: 2}
# Tensors of the module in the order of the layer's arrays in Keras; a layer without bias has fewer arrays.
ARRAYS: Final[dict[str, tuple[tuple[str, Callable[[Array], Array]], ...]]] = {
    "BatchNormalization": (("weight", _same), ("bias", _same), ("running_mean", _same), ("running_var", _same)),
    "Conv2D": (("weight", _kernel), ("bias", _same)),
    "Dense": (("weight", _matrix), ("bias", _same)),
    "DepthwiseConv2D": (("weight", _depthwise_kernel), ("bias", _same)),
    "LayerNormalization": (("weight", _same), ("bias", _same)),
    "LayerScale": (("gamma", _column),),
    "Normalization": (("mean", _column), ("variance", _column)),
    "SeparableConv2D": (("0.weight", _depthwise_kernel), ("1.weight", _kernel), ("1.bias", _same)),
}


@dataclass(frozen=True)
class WeightedLayer:
    """A Keras layer with arrays, and where they go."""

    module: str  # name of the torch module in the network
    path: str  # in files that Keras writes: ``layers/conv2d_3``
    kind: str  # Keras class
    config: Config
    rank: int  # number of dimensions of its input
    reads_bgr: bool = False  # its input channels are blue, green, red

    @property
    def rules(self) -> tuple[tuple[str, Callable[[Array], Array]], ...]:
        """Tensor names and conversions, in the order of the layer's arrays."""
        return ARRAYS[self.kind][self.has_fixed_scale :]

    @property
    def num_arrays(self) -> int:
        """Number of arrays in Keras."""
        has_bias = self.config.get("use_bias", True)
        is_counted = self.kind == "Normalization"  # its last array is a counter
        return len(self.rules) + is_counted - (not has_bias)

    @property
    def has_fixed_scale(self) -> bool:
        """Whether it is a batch norm whose scale is 1 and not part of a file."""
        return self.kind == "BatchNormalization" and not self.config["scale"]

    def to_tensors(self, arrays: Sequence[Array]) -> dict[str, Tensor]:
        """Return the tensors of the network, by name; arrays with another number of dimensions keep their shape.

        Args:
            arrays: of the layer, in the order of Keras; those after the known ones, such as counters, are ignored.
        """
        tensors = {}
        for (name, convert), array in zip(self.rules, arrays, strict=False):
            fits = convert is _same or array.ndim == RANKS.get(convert, array.ndim)
            tensor = torch.from_numpy(np.array(convert(array) if fits else array, dtype=np.float32))
            if self.kind == "Dense" and self.rank == 4 and tensor.ndim == 2:
                tensor = tensor[..., None, None]
            if self.reads_bgr and tensor.ndim == 4:
                tensor = tensor.flip(1)
            tensors[f"{self.module}.{name}"] = _squared_deviation(tensor) if name == "variance" else tensor.contiguous()
        return tensors


def _squared_deviation(variance: Tensor) -> Tensor:
    """Return the variance; where the file has ImageNet's standard deviations instead, their squares.

    So it is in the published EfficientNets, whose graph divides by the root once more (TensorFlow issue 49930).
    """
    std = torch.tensor(Standardize.STD).view(-1, 1, 1)
    return std.square() if variance.shape == std.shape and torch.allclose(variance, std, atol=1e-3) else variance


def snake_case(name: str) -> str:
    """Return a class name as in the names of groups in Keras' files: ``SeparableConv2D`` becomes ``separable_conv2d``."""
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
