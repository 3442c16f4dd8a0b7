"""Split every network of a library into blocks and compare them with the network: cut, one block, or failed.

    python benchmarks/zoo_sweep.py timm --only 'resnet*' --numeric-up-to 100

Networks of up to ``--numeric-up-to`` million parameters are built with random weights, and their blocks with head must give
the logits of the network; larger ones are only run on the meta device, where shapes and ownership of parameters are checked.
One network is in memory at a time. Prints a line per problem and, at the end, a table per family.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatch
from importlib import import_module
from typing import TYPE_CHECKING

from automl_tl.contracts import Backbone

if TYPE_CHECKING:
    from torch import Tensor, nn

BATCH = 2
SMALL_SIDE_PX = 64  # tried first where the side is free: 224 px cost ten times as much
TOLERANCE = 1e-5  # of the largest logit


def main() -> None:
    options = _options()
    warnings.simplefilter("ignore")  # what the libraries say of their own models while these are built
    import torch

    torch.set_num_threads(options.threads)
    backbones: Sequence[Backbone] = import_module(f"automl_tl_{options.provider}").backbones()
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for backbone in backbones:
        model = backbone.card.name.partition("/")[2]
        if "." in model or not fnmatch(model, options.only):
            continue  # a tag changes the weights, not the network
        verdict = _verdict(backbone, numeric=(backbone.card.num_parameters or 0) <= options.numeric_up_to * 1e6)
        found[backbone.card.family][verdict.partition(":")[0]].append(model)
        if options.verbose or verdict.startswith(("fails", "one block")):
            print(f"{model}: {verdict}", flush=True)
    _print_table(found)
    sys.exit(any("fails" in verdicts for verdicts in found.values()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("provider", choices=("timm", "torchvision"))
    parser.add_argument("--only", default="*", help="pattern of the models' names")
    parser.add_argument("--numeric-up-to", type=float, default=400, help="million parameters (default 400)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="a line for every model")
    return parser.parse_args()


def _verdict(backbone: Backbone, *, numeric: bool) -> str:
    try:
        num_blocks, compared = _compare(backbone) if numeric else (_run_on_meta(backbone), "shapes")
    except Exception as error:  # whatever a network does, the sweep goes on
        text = str(error).strip().splitlines() or [""]
        return f"fails: {type(error).__name__}: {text[0][:200]}"
    return f"cut, {compared}: {num_blocks} blocks" if num_blocks > 1 else f"one block, {compared}"


def _compare(backbone: Backbone) -> tuple[int, str]:
    import torch

    torch.manual_seed(0)
    network = _shaken(backbone.build(pretrained=False))
    blocks, head = list(backbone.cut(network)), backbone.classifier(network)
    _check_ownership(network, blocks, head)
    images = _images(network, backbone)
    with torch.no_grad():
        expected = network(images)
        features = _features(blocks, images)
        _check(features.shape == (BATCH, backbone.card.feature_dim), f"features are {tuple(features.shape)}")
        _check(len(blocks) == backbone.card.num_blocks, f"{len(blocks)} blocks, the card says {backbone.card.num_blocks}")
        if head is None:
            return len(blocks), "no head"
        difference = float((head(features) - expected).abs().max()) / max(1.0, float(expected.abs().max()))
    _check(difference <= TOLERANCE, f"logits differ by {difference:.1e}")
    return len(blocks), "logits"


def _shaken(network: nn.Module) -> nn.Module:
    """With noise on what is initialized to constants, else a block left out might not be noticed."""
    import torch

    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2 or bool((parameter == 0).all()):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return network


def _images(network: nn.Module, backbone: Backbone) -> Tensor:
    """Random images, small if the network takes them."""
    import torch

    side_px = backbone.card.preprocessing.side_px
    if not backbone.card.fixed_side:
        small = torch.randn(BATCH, 3, SMALL_SIDE_PX, SMALL_SIDE_PX)
        try:
            with torch.no_grad():
                network(small)
        except (RuntimeError, AssertionError, ValueError):
            pass
        else:
            return small
    return torch.randn(BATCH, 3, side_px, side_px)


def _run_on_meta(backbone: Backbone) -> int:
    import torch

    try:
        with torch.device("meta"):
            network = backbone.build(pretrained=False)
    except NotImplementedError:  # torchvision's RegNet reads its widths from tensors
        network = backbone.build(pretrained=False).to("meta")
    blocks, head = list(backbone.cut(network)), backbone.classifier(network)
    _check_ownership(network, blocks, head)
    side_px = backbone.card.preprocessing.side_px
    with torch.no_grad():
        features = _features(blocks, torch.zeros(BATCH, 3, side_px, side_px, device="meta"))
    _check(features.shape == (BATCH, backbone.card.feature_dim), f"features are {tuple(features.shape)}")
    return len(blocks)


def _features(blocks: Sequence[nn.Module], x: Tensor) -> Tensor:
    import torch

    for index, block in enumerate(blocks):
        before = x.clone()
        output = block(x)
        _check(isinstance(output, torch.Tensor) and output.shape[0] == BATCH, f"block {index} gives {type(output).__name__}")
        _check(x.is_meta or torch.equal(before, x), f"block {index} changes its input in place")
        x = output
    return x


def _check_ownership(network: nn.Module, blocks: Sequence[nn.Module], head: nn.Module | None) -> None:
    in_blocks = [id(parameter) for block in blocks for parameter in block.parameters()]
    in_head = set() if head is None else {id(parameter) for parameter in head.parameters()}
    rest = [name for name, parameter in network.named_parameters() if id(parameter) not in {*in_blocks, *in_head}]
    unused = ("AuxLogits.", *(("head.", "head_dist.", "heads", "classifier.") if head is None else ()))
    _check(len(in_blocks) == len(set(in_blocks)), "a parameter is in two blocks")
    _check(not in_head & {*in_blocks}, "a parameter of the classifier is in a block")
    _check(all(name.startswith(unused) for name in rest), f"in no block: {rest[:3]}")


def _check(holds: bool, problem: str) -> None:
    if not holds:
        raise AssertionError(problem)


def _print_table(found: dict[str, dict[str, list[str]]]) -> None:
    totals: dict[str, int] = defaultdict(int)
    for family, verdicts in sorted(found.items()):
        print(f"{family:28} " + ", ".join(f"{len(models)} {verdict}" for verdict, models in sorted(verdicts.items())))
        for verdict, models in verdicts.items():
            totals[verdict] += len(models)
    print("all: " + ", ".join(f"{count} {verdict}" for verdict, count in sorted(totals.items())))


if __name__ == "__main__":
    main()
