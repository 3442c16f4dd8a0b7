"""Networks of Keras against Keras itself, their blocks, and their cards."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from automl_tl.contracts import Preprocessing
from automl_tl.errors import PluginError, WeightsError
from automl_tl_keras import KerasBackbone, backbones
from tests.plugins.keras_networks import ENTRIES, SMALLEST, Untyped, backbone_of, keras_model, needs_keras, network_of
from tests.plugins.network_checks import check_network

FAMILIES = [
    ("convnext_tiny", 64),
    ("densenet121", 64),
    ("efficientnet_b0", 64),
    ("efficientnet_v2_b0", 64),
    ("inception_resnet_v2", 96),
    ("inception_v3", 96),
    ("mobilenet_0.25", 64),
    ("mobilenet_v2_0.35", 64),
    ("mobilenet_v3_small", 64),
    ("nasnet_mobile", 64),
    ("resnet50", 64),
    ("resnet50_v2", 64),
    ("vgg16", 64),
    ("vgg19", 64),
    ("xception", 96),
]


@needs_keras
@pytest.mark.parametrize(("model", "side_px"), FAMILIES)
def test_translate_computes_what_keras_computes(model: str, side_px: int, tmp_path: Path) -> None:
    import torch

    from automl_tl_keras.encoders import classifier, cut

    original, network, entry = keras_model(model, side_px), network_of(model, side_px), ENTRIES[model]
    pixels = np.random.default_rng(0).uniform(0, 255, (2, side_px, side_px, 3)).astype(np.float32)
    module = sys.modules[f"keras.src.applications.{entry.card.family}"]

    expected = original(module.preprocess_input(pixels.copy()), training=False).detach().numpy()
    with torch.no_grad():
        actual = network(normalized(pixels, entry.card.preprocessing)).numpy()
    features = check_network(network, cut(network), classifier(network), side_px, tmp_path)

    assert float(np.abs(expected).max()) > 0
    np.testing.assert_allclose(actual, expected, atol=1e-4 * float(np.abs(expected).max()))
    assert features.shape[1] == entry.card.feature_dim
    assert len(cut(network)) == entry.card.num_blocks
    assert sum(parameter.numel() for parameter in network.parameters()) == entry.card.num_parameters


def normalized(pixels: np.ndarray[Any, Any], preprocessing: Preprocessing) -> Untyped:
    import torch

    mean, std = np.array(preprocessing.mean), np.array(preprocessing.std)
    return torch.from_numpy(((pixels / 255 - mean) / std).transpose(0, 3, 1, 2).copy()).float()


@needs_keras
@pytest.mark.filterwarnings("ignore:__array__ implementation")  # when keras saves
def test_vgg16_has_the_features_of_torchvision_with_its_weights(tmp_path: Path) -> None:
    import torch

    from automl_tl.models.bundle import load_weights
    from automl_tl_keras.encoders import cut
    from automl_tl_keras.models import build_model
    from automl_tl_torchvision.encoders import cut as cut_torchvision
    from automl_tl_torchvision.loading import build_random

    torch.manual_seed(0)
    original = build_random("vgg16", "IMAGENET1K_FEATURES", 224)
    for parameter in original.parameters():  # biases are zero at first
        parameter.data.add_(torch.randn_like(parameter), alpha=0.01)
    model = build_model(ENTRIES["vgg16"], 64)
    kernels = [parameter.detach().numpy() for parameter in original.parameters()]
    first = kernels[0][:, ::-1]  # keras reads blue, green, red
    arrays = [(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array) for array in (first, *kernels[1:])]
    model.set_weights(arrays)
    model.save_weights(tmp_path / "vgg16.weights.h5")
    network = network_of("vgg16", 64)
    blocks = torch.nn.Sequential(*cut(network))
    tensors = backbone_of("vgg16").read_weights(network, tmp_path / "vgg16.weights.h5")

    summary = load_weights(network, blocks, tmp_path / "vgg16.weights.h5", tensors)

    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        expected = torch.nn.Sequential(*cut_torchvision(original))(images)
        actual = blocks(images)
    assert summary == "loaded 26 of 26 tensors from vgg16.weights.h5"
    assert expected.shape == (2, 512)
    torch.testing.assert_close(actual, expected, atol=1e-4 * float(expected.abs().max()), rtol=1e-4)
    assert [tuple(value.shape) for value in blocks.state_dict().values()] == [
        tuple(value.shape) for value in original.parameters()
    ]


@needs_keras
def test_frozen_blocks_and_their_statistics_stay_bit_identical(tmp_path: Path) -> None:
    import torch
    from torch import nn

    from automl_tl_keras.encoders import cut

    blocks = nn.Sequential(*cut(network_of())).eval().requires_grad_(False)
    last = blocks[-1].requires_grad_(True).train()
    before = {name: tensor.clone() for name, tensor in blocks.state_dict().items()}

    blocks(torch.randn(4, 3, 64, 64)).square().sum().backward()
    torch.optim.SGD(last.parameters(), lr=0.1).step()

    changed = {name for name, tensor in blocks.state_dict().items() if not tensor.equal(before[name])}
    assert changed
    assert {name.partition(".")[0] for name in changed} == {str(len(blocks) - 1)}
    assert any("running_mean" in name for name in changed)  # in training mode statistics of a trained block follow the images
    assert not any("running" in name for name, _ in blocks.named_parameters())


@needs_keras
def test_openvino_and_eager_compute_the_same(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    from torch import nn

    from automl_tl.models.engines import EagerEngine, Normalize, OpenVinoEngine
    from automl_tl_keras.encoders import cut

    preprocessing = ENTRIES["efficientnet_b0"].card.preprocessing.model_copy(update={"side_px": 64})
    blocks = nn.Sequential(*cut(network_of("efficientnet_b0"))).eval()
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)

    fast = OpenVinoEngine(nn.Sequential(Normalize(preprocessing), blocks).eval(), tmp_path / "graph", 64)(images)

    slow = EagerEngine(blocks, preprocessing)(images)
    np.testing.assert_allclose(fast, slow, atol=1e-4 * float(np.abs(slow).max()))


@needs_keras
def test_build_names_tensors_the_same_whatever_was_built_before() -> None:
    first = list(backbone_of("mobilenet_v3_small").build(pretrained=False).state_dict())

    assert list(backbone_of("mobilenet_v3_small").build(pretrained=False).state_dict()) == first


@needs_keras
def test_build_follows_the_seed_and_leaves_random_alone() -> None:
    import random

    import torch

    state = random.getstate()
    torch.manual_seed(3)
    first = backbone_of().build(pretrained=False).state_dict()
    torch.manual_seed(3)
    second = backbone_of().build(pretrained=False).state_dict()

    assert all(tensor.equal(second[name]) for name, tensor in first.items())
    assert random.getstate() == state


@needs_keras
def test_build_ignores_settings_of_the_users_keras() -> None:
    from automl_tl_keras.models import import_keras

    keras = import_keras()
    keras.config.set_image_data_format("channels_first")
    try:
        network = backbone_of().build(pretrained=False)
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")

    assert network.get_parameter("layers.conv1.weight").shape[1] == 3


def test_build_names_the_wrong_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    other = SimpleNamespace(config=SimpleNamespace(backend=lambda: "jax"))
    monkeypatch.setitem(sys.modules, "keras", other)

    with pytest.raises(PluginError, match=r"backend 'jax', but .* 'torch'. Set KERAS_BACKEND=torch"):
        backbone_of().build(pretrained=False)


@needs_keras
def test_build_names_a_model_unknown_to_keras() -> None:
    from dataclasses import replace

    with pytest.raises(WeightsError, match="can't build ResNet19"):
        KerasBackbone(replace(ENTRIES[SMALLEST], constructor="ResNet19")).build(pretrained=False)


@needs_keras
def test_cards_are_read_without_keras_and_torch() -> None:
    code = (
        "import sys, automl_tl_keras as p; assert len(p.backbones()) > 50; "
        "assert not {'torch', 'keras', 'h5py'} & set(sys.modules), 'imported too early'"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


@needs_keras
def test_cards_cover_every_constructor_of_keras() -> None:
    from automl_tl_keras.models import import_keras

    applications = import_keras().applications
    constructors = {name for name in dir(applications) if name[0].isupper()}

    assert {entry.constructor for entry in ENTRIES.values()} == constructors
    assert len(backbones()) == len(ENTRIES)


@pytest.mark.parametrize(
    ("model", "value", "expected"),
    [
        ("vgg16", (255, 0, 0), (131.32, -116.779, -103.939)),  # caffe
        ("xception", (255, 0, 0), (1, -1, -1)),  # tf
        ("densenet121", (0, 0, 255), (-2.1179, -2.0357, 2.64)),  # torch
        ("efficientnet_b0", (255, 128, 0), (255, 128, 0)),  # inside the graph
    ],
)
def test_card_has_the_preprocessing_of_the_family(
    model: str, value: tuple[int, int, int], expected: tuple[float, float, float]
) -> None:
    preprocessing = ENTRIES[model].card.preprocessing

    actual = (np.array(value) / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)

    np.testing.assert_allclose(actual, expected, atol=1e-3)


def test_card_is_cached_if_keras_has_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from automl_tl_keras.cards import entries

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = next(entry.path for entry in entries() if entry.card.name == "keras/vgg16")
    path.parent.mkdir()
    path.touch()

    assert [entry.card.name for entry in entries() if entry.card.weights == "cached"] == ["keras/vgg16"]
    assert path == tmp_path / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
