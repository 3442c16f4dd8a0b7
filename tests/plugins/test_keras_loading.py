"""Weights of Keras networks: files of the user in every format, Keras' cache, and a local server."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from automl_tl.errors import WeightsError
from automl_tl_keras import KerasBackbone
from automl_tl_keras import loading as keras_loading
from tests.plugins.keras_networks import ENTRIES, SMALLEST, Untyped, backbone_of, keras_model, needs_keras, network_of
from tests.plugins.weight_server import REFUSED, File, serving, silence

pytestmark = [needs_keras, pytest.mark.filterwarnings("ignore:__array__ implementation")]  # when keras saves

Save = Callable[[Untyped, Path], Path]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty cache of keras."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    return tmp_path / "keras" / "models"


def save_weights(model: Untyped, folder: Path) -> Path:
    model.save_weights(folder / "own.weights.h5")
    return folder / "own.weights.h5"


def save_model(model: Untyped, folder: Path) -> Path:
    model.save(folder / "own.keras")
    return folder / "own.keras"


def save_legacy_model(model: Untyped, folder: Path) -> Path:
    model.save(folder / "own.h5")
    return folder / "own.h5"


def with_other_head(base: Untyped) -> Untyped:
    """What users do: a model around the base."""
    import keras

    top = [keras.layers.Dense(1024, activation="relu"), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((64, 64, 3)), base, *top])


def encoder_state(network: Untyped) -> dict[str, Any]:
    from torch import nn

    from automl_tl_keras.encoders import cut

    return nn.Sequential(*cut(network)).state_dict()


def assert_same_encoder(network: Untyped, expected: Untyped) -> None:
    actual, wanted = encoder_state(network), encoder_state(expected)
    assert all(tensor.equal(actual[name]) for name, tensor in wanted.items())


def load(file: Path, model: str = SMALLEST) -> Untyped:
    """The network with the weights of the file, as `--weights` loads them."""
    from torch import nn

    from automl_tl.models.bundle import load_weights

    backbone = backbone_of(model)
    network = backbone.build(pretrained=False)
    blocks = nn.Sequential(*backbone.cut(network))
    load_weights(network, blocks, file, backbone.read_weights(network, file))
    return network


@pytest.mark.parametrize("save", [save_weights, save_model, save_legacy_model])
def test_read_weights_reads_what_keras_saves(save: Save, tmp_path: Path) -> None:
    file = save(keras_model(), tmp_path)

    assert_same_encoder(load(file), network_of())


@pytest.mark.parametrize("save", [save_weights, save_model])
def test_read_weights_finds_the_network_in_a_larger_model(save: Save, tmp_path: Path) -> None:
    file = save(with_other_head(keras_model()), tmp_path)

    assert_same_encoder(load(file), network_of())


@pytest.mark.parametrize(
    ("model", "save"),
    [
        ("convnext_tiny", save_weights),
        ("efficientnet_b0", save_legacy_model),
        ("xception", save_model),
    ],
)
def test_read_weights_knows_nested_and_separable_layers(model: str, save: Save, tmp_path: Path) -> None:
    file = save(keras_model(model, 96), tmp_path)
    network = network_of(model, 96)

    tensors = keras_loading.read_weights(network, file)

    state = network.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in tensors.items())
    assert {name for name in state if name not in tensors} <= {name for name in state if name.endswith("num_batches_tracked")}


def test_read_weights_squares_the_deviations_of_published_efficientnets(tmp_path: Path) -> None:
    import numpy as np
    import torch

    network = network_of("efficientnet_b0")
    (layer,) = [layer for layer in network.weighted if layer.kind == "Normalization"]
    std = np.array([0.229, 0.224, 0.225], dtype=np.float32)

    tensors = layer.to_tensors([np.zeros(3, dtype=np.float32), std, np.array(0)])

    torch.testing.assert_close(tensors["layers.normalization.variance"].flatten(), torch.from_numpy(std).square())
    assert len(tensors) == 2


def test_load_weights_leaves_safetensors_to_the_host(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    network = network_of()
    save_file(network.state_dict(), tmp_path / "own.safetensors")

    assert backbone_of().read_weights(network, tmp_path / "own.safetensors") is None
    assert_same_encoder(load(tmp_path / "own.safetensors"), network)


@pytest.mark.parametrize("save", [save_weights, save_model, save_legacy_model])
def test_load_weights_names_another_architecture(save: Save, tmp_path: Path) -> None:
    file = save(keras_model("mobilenet_v2_0.35"), tmp_path)

    with pytest.raises(WeightsError, match=r"doesn't fit this backbone: .* Is it for another architecture\?"):
        load(file)


@pytest.mark.parametrize("save", [save_weights, save_model, save_legacy_model])
def test_read_weights_names_a_truncated_file(save: Save, tmp_path: Path) -> None:
    file = save(keras_model(), tmp_path)
    file.write_bytes(file.read_bytes()[:20_000])

    with pytest.raises(WeightsError, match=r"own\.\S+ can't be (read as HDF5, it is damaged|loaded as a Keras model)"):
        load(file)


@pytest.mark.parametrize("name", ["absent.weights.h5", "absent.keras", "absent.h5"])
def test_read_weights_names_a_missing_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"does not exist\. Expected model\.weights\.h5"):
        load(tmp_path / name)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("save", [save_model, save_legacy_model])
def test_read_weights_refuses_pickled_functions(save: Save, tmp_path: Path) -> None:
    import keras

    from automl_tl_keras.models import import_keras

    import_keras()
    model = keras.Sequential([keras.Input((64, 64, 3)), keras.layers.Lambda(lambda x: x / 2), keras_model()])
    file = save(model, tmp_path)

    with pytest.raises(WeightsError, match=r"contains a Lambda layer, .* is not loaded\. Save the weights alone"):
        load(file)


def test_read_weights_explains_layers_of_the_users_own(tmp_path: Path) -> None:
    import keras

    class Own(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
        def call(self, x: Untyped) -> Untyped:
            return x

    file = save_model(keras.Sequential([keras.Input((64, 64, 3)), Own(), keras_model()]), tmp_path)

    with pytest.raises(WeightsError, match=r"layers of your own; then save the weights alone"):
        load(file)


def served(address: str, content: bytes, name: str = "own.weights.h5") -> KerasBackbone:
    """A backbone whose weights are ``content`` at ``address``."""
    digest = hashlib.sha256(content).hexdigest()
    return KerasBackbone(replace(ENTRIES[SMALLEST], url=f"{address}/{name}", hash=digest))


@pytest.fixture
def content(tmp_path: Path) -> bytes:
    return save_weights(keras_model(), tmp_path).read_bytes()


def test_build_downloads_weights(content: bytes, cache: Path) -> None:
    with serving({"/own.weights.h5": File(content)}) as address:
        network = served(address, content).build(pretrained=True)

    assert_same_encoder(network, network_of())
    assert not network.training
    assert (cache / "own.weights.h5").read_bytes() == content


def test_build_loads_cached_weights_offline(content: bytes, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "own.weights.h5").write_bytes(content)

    assert_same_encoder(served(REFUSED, content).build(pretrained=True), network_of())


def test_build_without_network_explains_in_one_line(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        served(REFUSED, b"").build(pretrained=True)

    text = str(caught.value)
    assert "\n" not in text
    for expected in (f"keras/{SMALLEST}", REFUSED, str(cache / "own.weights.h5"), "--weights FILE", "--weights none"):
        assert expected in text


def test_build_gives_up_on_a_silent_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras_loading, "CONNECT_TIMEOUT_S", 0.2)

    with silence() as address, pytest.raises(WeightsError, match="timed out"):
        served(address, b"").build(pretrained=True)


def test_build_refuses_a_wrong_digest(content: bytes, cache: Path) -> None:
    with (
        serving({"/own.weights.h5": File(b"something else")}) as address,
        pytest.raises(WeightsError, match=r"Cannot download .* corrupted"),
    ):
        served(address, content).build(pretrained=True)

    assert not list(cache.parent.rglob("*.h5"))


def test_build_names_a_damaged_cached_file(content: bytes, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / "own.weights.h5").write_bytes(content[:20_000])

    with pytest.raises(WeightsError, match=r"Delete the file to download it again"):
        served(REFUSED, content).build(pretrained=True)
