"""Weights of Keras networks: from Keras' cache or its servers, and from the user's files. No file's code is run."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from automl_tl.errors import UnavailableWeightsError, WeightsError
from automl_tl_keras.cards import Entry

if TYPE_CHECKING:
    from torch import Tensor

    from automl_tl_keras.encoders import KerasNetwork
    from automl_tl_keras.layers import Array

CONNECT_TIMEOUT_S: Final = 10.0  # keras sets none
SUFFIXES: Final = (".h5", ".hdf5", ".keras")
EXPECTED: Final = (
    "Expected model.weights.h5 (`model.save_weights`), model.keras (`model.save`) or a weights file of Keras itself."
)


def build(entry: Entry, *, pretrained: bool) -> KerasNetwork:
    """Build the network of ``entry`` in eval mode; see ``Backbone.build``.

    Args:
        entry: model and source of its weights.
        pretrained: whether to load Keras' own weights.

    Raises:
        WeightsError: the weights are not available, or the installed keras lacks the model.
    """
    from automl_tl_keras.encoders import copy_weights, translate
    from automl_tl_keras.models import build_model, import_keras

    keras = import_keras()
    try:
        model = build_model(entry)
    except (AttributeError, TypeError) as error:
        raise WeightsError(
            f"The installed keras {keras.__version__} can't build {entry.constructor} of this card ({error}). "
            "Install another version of keras, or choose another backbone."
        ) from error
    network = translate(model, reads_bgr=entry.reads_bgr)
    if not pretrained:
        copy_weights(model, network)
    else:
        try:
            _load_all(network, read_weights(network, _own_weights(entry)))
        except Exception as error:  # URLError, OSError, ValueError (wrong digest), WeightsError
            raise UnavailableWeightsError(entry.card.name, entry.path, entry.url, error) from error
    return network


def read_weights(network: KerasNetwork, file: Path) -> Mapping[str, Tensor]:
    """Read a file that Keras wrote: the tensors of ``network`` that it has, by name, with the shapes that they have there.

    Args:
        network: its layers are looked up by class and position, because Keras numbers names again for every model.
        file: ``.weights.h5``, ``.keras``, or a legacy ``.h5`` file.

    Raises:
        WeightsError: the file can't be read, contains code, or has none of the layers.
    """
    import h5py

    if not file.is_file():
        raise WeightsError(f"{file} does not exist. {EXPECTED}")
    if file.suffix == ".keras":
        return _matching(network, _arrays_of_model(file), file)
    try:
        with h5py.File(file, "r") as opened:
            if '"Lambda"' in str(opened.attrs.get("model_config", "")):
                raise WeightsError(_refusal(file))
            group = opened.get("model_weights", opened)
            if any(name.startswith("layer_names") for name in group.attrs):
                return _read_legacy(network, group, file)
            return _matching(network, _arrays_of_group(opened), file)
    except OSError as error:
        raise WeightsError(f"{file} can't be read as HDF5, it is damaged or incomplete: {error}. {EXPECTED}") from error


def _load_all(network: KerasNetwork, tensors: Mapping[str, Tensor]) -> None:
    """Load tensors; all but counters have to be there."""
    keys = network.load_state_dict(dict(tensors), strict=False)
    constant = {f"{layer.module}.weight" for layer in network.weighted if layer.has_fixed_scale}
    missing = [name for name in keys.missing_keys if name not in constant and not name.endswith("num_batches_tracked")]
    if missing:
        raise ValueError(f"the file lacks {', '.join(missing[:3])}")


def _arrays_of_model(file: Path) -> dict[str, list[Array]]:
    """Return the arrays of a ``.keras`` file by the path of their layer; Keras refuses pickled functions in safe mode."""
    from automl_tl_keras.encoders import arrays_of
    from automl_tl_keras.models import import_keras

    keras = import_keras()
    try:
        with keras.device("cpu"):
            model = keras.saving.load_model(file, compile=False, safe_mode=True)
        return dict(arrays_of(model))
    except Exception as error:  # ValueError, TypeError, BadZipFile, KeyError, OSError
        reason = " ".join(str(error).split())
        if "lambda" in reason.lower():
            raise WeightsError(_refusal(file)) from error
        raise WeightsError(
            f"{file} can't be loaded as a Keras model ({type(error).__name__}: {reason[:200]}). It may be damaged, or have "
            "layers of your own; then save the weights alone: model.save_weights('model.weights.h5')."
        ) from error


def _refusal(file: Path) -> str:
    return (
        f"{file} contains a Lambda layer, which is pickled code and is not loaded. "
        "Save the weights alone: model.save_weights('model.weights.h5')."
    )


def _arrays_of_group(group: Any) -> dict[str, list[Array]]:  # noqa: ANN401  h5py has no types
    """Return the arrays of a ``.weights.h5`` file by the path of their layer."""
    found: dict[str, list[Array]] = {}

    def visit(path: str, item: Any) -> None:  # noqa: ANN401
        if path.endswith("/vars") and len(item):
            found[path.removesuffix("/vars")] = [item[name][()] for name in sorted(item, key=int)]

    group.visititems(visit)
    return found


def _matching(network: KerasNetwork, arrays: Mapping[str, Sequence[Array]], file: Path) -> Mapping[str, Tensor]:
    """Return the tensors from the part of the file that has most layers: the network may be nested in a larger model."""
    paths = [layer.path for layer in network.weighted]
    prefixes = {path[: path.rindex("layers/")] for path in arrays if "layers/" in path}
    prefix = max(prefixes, key=lambda prefix: (sum(prefix + path in arrays for path in paths), -len(prefix)), default="")
    own = {path: arrays[prefix + path] for path in paths if prefix + path in arrays}
    if not own:
        raise WeightsError(f"{file} has none of the layers of this network. Is it for another architecture? {EXPECTED}")
    return network.to_tensors(own)


def _read_legacy(network: KerasNetwork, group: Any, file: Path) -> Mapping[str, Tensor]:  # noqa: ANN401
    """Return the tensors of a file of Keras 1 or 2, whose layers are in the order of the model."""
    names = [_text(name) for name in _attribute(group, "layer_names")]
    stored = [[group[name][_text(weight)][()] for weight in _attribute(group[name], "weight_names")] for name in names]
    arrays = [array for layer in stored for array in layer]
    if not arrays:
        raise WeightsError(f"{file} has no weights. {EXPECTED}")
    found: dict[str, list[Array]] = {}
    for layer in network.weighted:
        count = layer.num_arrays
        found[layer.path], arrays = arrays[:count], arrays[count:]
    return network.to_tensors({path: values for path, values in found.items() if values})


def _attribute(group: Any, name: str) -> list[Any]:  # noqa: ANN401
    """Return a list among the attributes; Keras splits long ones into ``name0``, ``name1`` ..."""
    if name in group.attrs:
        return list(group.attrs[name])
    parts = sorted((key for key in group.attrs if key.startswith(name)), key=lambda key: int(key[len(name) :]))
    return [value for key in parts for value in group.attrs[key]]


def _text(value: str | bytes) -> str:
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _own_weights(entry: Entry) -> Path:
    """Return Keras' weights, from its cache or downloaded into it."""
    from automl_tl_keras.models import import_keras

    path = entry.path
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)  # else keras downloads to another folder
    options = {"cache_subdir": path.parent.name, "cache_dir": str(path.parents[1]), "file_hash": entry.hash}
    try:
        with _socket_timeout():
            return Path(import_keras().utils.get_file(path.name, origin=entry.url, **options))
    except ValueError:  # another digest; keras leaves the file, and would take it for cached
        path.unlink(missing_ok=True)
        raise


@contextmanager
def _socket_timeout() -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(CONNECT_TIMEOUT_S)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
