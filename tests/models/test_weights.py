"""External weights: names and heads may differ, needed tensors may not be missing, and no code is run."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from automl_tl.errors import WeightsError
from automl_tl.models.bundle import load_weights, read_weights


def network() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 10))


def blocks(whole: nn.Sequential) -> nn.Sequential:
    return whole[:2]


def other_state() -> dict[str, Tensor]:
    torch.manual_seed(2)
    return {name: torch.rand_like(tensor.float()).to(tensor.dtype) for name, tensor in network().state_dict().items()}


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "module._orig_mod.", "backbone."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_load_weights_strips_prefixes(tmp_path: Path, prefix: str, suffix: str) -> None:
    state = {prefix + name: tensor for name, tensor in other_state().items()}
    file = tmp_path / f"weights{suffix}"
    save_file(state, file) if suffix == ".safetensors" else torch.save({"epoch": 3, "state_dict": state}, file)
    whole = network()

    summary = load_weights(whole, blocks(whole), file)

    assert torch.equal(whole.state_dict()["0.weight"], other_state()["0.weight"])
    assert summary == f"loaded 9 of 9 tensors from {file.name}"


def test_load_weights_skips_and_names_other_head(tmp_path: Path) -> None:
    state = other_state() | {"3.weight": torch.zeros(7, 4), "3.bias": torch.zeros(7)}
    save_file(state, tmp_path / "w.safetensors")
    whole = network()

    summary = load_weights(whole, blocks(whole), tmp_path / "w.safetensors")

    assert "3.weight" in summary
    assert torch.equal(whole.state_dict()["0.weight"], state["0.weight"])


def test_load_weights_accepts_files_without_counters(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in other_state().items() if "num_batches" not in name}
    save_file(state, tmp_path / "w.safetensors")
    whole = network()

    assert "not loaded: 1.num_batches_tracked" in load_weights(whole, blocks(whole), tmp_path / "w.safetensors")


def test_load_weights_rejects_missing_tensor_of_block(tmp_path: Path) -> None:
    state = {name: tensor for name, tensor in other_state().items() if name != "0.weight"}
    save_file(state, tmp_path / "w.safetensors")
    whole = network()
    before = whole.state_dict()["0.bias"].clone()

    with pytest.raises(WeightsError, match=r"0\.weight \(4, 3, 3, 3\) \(found: missing\)"):
        load_weights(whole, blocks(whole), tmp_path / "w.safetensors")
    assert torch.equal(whole.state_dict()["0.bias"], before)


class Exploit:
    """What a pickle could do."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code was run')",))


@pytest.mark.parametrize("content", [b"", b"no weights", pickle.dumps(Exploit()), pickle.dumps({"a": 1})])
def test_read_weights_rejects_files_without_tensors_or_with_code(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "weights.pth"
    file.write_bytes(content)

    with pytest.raises(WeightsError, match=r"weights\.pth"):
        read_weights(file)


def test_read_weights_rejects_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.safetensors"):
        read_weights(tmp_path / "absent.safetensors")
