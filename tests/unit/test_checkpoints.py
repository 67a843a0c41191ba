# SPDX-License-Identifier: Apache-2.0
"""Checkpoints: a quantised network is imported with its own integers, weights alone are refused, code never runs."""

from __future__ import annotations

import copy
import io
import os
import pickle
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from checkpoint_files import network
from medyate import frontends
from medyate.errors import MedyateError, ModelError
from medyate.frontends import checkpoint
from medyate.ir import Imported, Quant
from medyate.oracle import oracle_for
from medyate.passes.pipeline import normalise
from medyate.quantize.apply import dequantize, integer_tensors, run_integers
from medyate.real import Network
from oracles import forms
from shared_files import ROOT, shared

sys.path.insert(0, str(ROOT / "models" / "checkpoints"))

import resnet_cifar
import to_pt2

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def saved(content: Any, folder: Path, name: str = "net.pkl") -> Path:
    torch.save(content, folder / name)
    return folder / name


def integers(imported: Imported, x: torch.Tensor) -> torch.Tensor:
    """The outputs in steps, for samples in steps (N, C, H, W)."""
    assert imported.qgraph is not None
    with torch.no_grad():
        result: torch.Tensor = run_integers(imported.qgraph, integer_tensors(imported.weights), x.double())
    return result


def test_a_quantised_checkpoint_comes_with_its_own_integers(tmp_path: Path) -> None:
    content = network()
    imported = frontends.load(saved(content, tmp_path))
    assert imported.qgraph is not None
    assert imported.notes == ()
    assert [node.op for node in imported.graph] == [
        *("conv2d", "depthwise", "conv2d"),
        *("conv2d", "depthwise", "conv2d", "add"),
        *("conv2d", "depthwise", "conv2d"),
        *("average_pool", "conv2d"),
    ]
    assert imported.graph.shapes["input"] == (16, 16, 3)
    assert imported.qgraph.quant["input"] == Quant(float(np.float32(1 / 127.5)), 0)
    assert imported.qgraph.quant["blocks.1.residual"] == Quant(float(np.float32(0.06)), -5)
    assert imported.qgraph.quant["pool"] == imported.qgraph.quant["blocks.2.pointwise2"]
    kept = imported.weights["blocks.2.depthwise.weight"]
    assert kept.dtype == np.int8
    assert (kept == content["blocks"][2]["depthwise"]["params"]["weight"][:, 0].transpose(1, 2, 0)).all()
    padded = next(node.attrs for node in imported.graph if node.name == "blocks.2.depthwise")
    assert getattr(padded, "pads", None) == (3, 3, 3, 3)
    normalise(imported)


def test_its_integers_follow_its_real_numbers(tmp_path: Path) -> None:
    imported = frontends.load(saved(network(), tmp_path))
    assert imported.qgraph is not None
    x = torch.from_numpy(np.random.default_rng(1).integers(-128, 128, (16, 3, 16, 16)).astype(np.float64))
    with torch.no_grad():
        real = Network(imported.graph, dequantize(imported.qgraph, imported.weights))((x / 127.5).float())
    steps = integers(imported, x) - 2
    assert float((steps - real / 0.1).abs().max()) <= 3
    assert float(steps.std()) > 3


@pytest.mark.parametrize("name", ["net.pkl", "net.th", "net.pth"])
def test_its_integers_are_those_of_the_simulation(name: str, tmp_path: Path) -> None:
    content = network()
    blocks = content["blocks"]  # a sum in steps of 0.06 often lies on a half, where nothing says which way it goes
    blocks[1]["residual"]["params"]["y_scale"] = blocks[2]["pointwise1"]["params"]["x_scale"] = 0.0617
    path = saved(content, tmp_path, name)
    imported = frontends.load(path)
    assert imported.qgraph is not None and imported.qgraph.rounds_once
    samples = np.random.default_rng(1).integers(-128, 128, (40, 16, 16, 3)).astype(np.int8)
    simulated = oracle_for(path)(path, forms(samples))
    assert simulated.dtype == np.int8 and simulated.shape == (40, 5)
    ours = integers(imported, torch.from_numpy(samples.transpose(0, 3, 1, 2).copy())).flatten(1).numpy()
    assert float((ours == simulated).mean()) >= 0.99
    assert np.abs(ours - simulated).max() <= 1


def test_a_checkpoint_that_cannot_be_simulated_is_refused(tmp_path: Path) -> None:
    content = network()
    del content["blocks"][1]["residual"]["params"]["x_zero"]
    path = saved(content, tmp_path)
    with pytest.raises(ModelError, match="cannot be simulated"):
        oracle_for(path)(path, forms(np.zeros((1, 16, 16, 3), np.int8)))


def test_biases_that_could_overflow_are_clamped_with_a_note(tmp_path: Path) -> None:
    content = network()
    content["first_conv"]["params"]["bias"][:2] = (-(2**31), 2**31 - 1)
    imported = frontends.load(saved(content, tmp_path))
    assert [note for note in imported.notes if "'first_conv': 2 biases were clamped" in note]


def changed(keys: tuple[Any, ...], value: Any) -> Callable[[dict[str, Any]], None]:
    def change(content: dict[str, Any]) -> None:
        inner: Any = content
        for key in keys[:-1]:
            inner = inner[key]
        if value is Ellipsis:
            del inner[keys[-1]]
        else:
            inner[keys[-1]] = value

    return change


LAYER = ("blocks", 1, "depthwise")
PARAMS = (*LAYER, "params")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (changed(("blocks",), ...), "lacks.*blocks"),
        (changed(("classifier",), ...), "lacks.*classifier"),
        (changed(("blocks",), 3), "list of blocks"),
        (changed(("blocks", 1), []), r"'blocks\.1' is missing or no record"),
        (changed(("blocks", 1), {}), r"'blocks\.1' has none of"),
        (changed(("blocks", 1, "se"), {}), "squeeze-excite"),
        (changed(("blocks", 1, "residual"), {}), r"residual\.params' is missing"),
        (changed(("blocks", 1, "residual", "params", "x_zero"), 9), "reads another scale"),
        (
            changed(
                ("blocks", 2, "residual"), {"params": {"x_scale": 0.06, "x_zero": -5, "y_scale": 0.1, "y_zero": 0}}
            ),
            "adds",
        ),
        (changed((*LAYER, "params"), ...), r"depthwise\.params' is missing"),
        (changed((*LAYER, "act"), "swish"), "activation 'swish'"),
        (changed((*LAYER, "stride"), 0), "a stride of 0"),
        (changed((*LAYER, "stride"), "1"), "a stride of 1"),
        (changed((*LAYER, "groups"), 5), "5 groups"),
        (changed((*LAYER, "kernel_size"), (3, 3)), "kernel_size"),
        (changed((*LAYER, "out_shape"), 5), "makes 8 x 8 pixels"),
        (changed((*PARAMS, "weight"), ...), "lacks the array 'weight'"),
        (changed((*PARAMS, "weight"), np.zeros((12, 1, 5, 5), np.float32)), "weight of float32"),
        (changed((*PARAMS, "weight"), np.full((12, 1, 5, 5), -128, np.int8)), "has a weight of"),
        (changed((*PARAMS, "weight"), np.zeros((12, 1, 25), np.int8)), "of rank 4"),
        (changed((*PARAMS, "weight"), np.zeros((12, 0, 5, 5), np.int8)), "not a sound checkpoint"),
        (changed((*PARAMS, "weight"), np.zeros((12, 1, 99, 99), np.int8)), "has a weight of"),
        (changed((*PARAMS, "bias"), np.zeros(3, np.int32)), "biases of"),
        (changed((*PARAMS, "bias"), np.zeros(12, object)), "not a sound checkpoint"),
        (changed((*PARAMS, "w_scales"), np.full(12, np.nan, np.float32)), "do not serve"),
        (changed((*PARAMS, "w_scales"), np.zeros(12, np.float32)), "do not serve"),
        (changed((*PARAMS, "x_scale"), float("nan")), "x_scale of nan"),
        (changed((*PARAMS, "y_scale"), float("inf")), "y_scale of inf"),
        (changed((*PARAMS, "y_scale"), -1.0), "y_scale of -1"),
        (changed((*PARAMS, "y_scale"), None), "lacks y_scale"),
        (changed((*PARAMS, "y_zero"), 300), "y_zero of 300"),
        (changed((*PARAMS, "y_zero"), True), "lacks y_scale or y_zero"),
        (changed((*PARAMS, "y_zero"), 0), "not that of ReLU6"),
        (changed((*PARAMS, "x_zero"), 0), "reads Quant"),
        (changed(("first_conv", "in_shape"), 10**9), "in_shape of 1000000000"),
        (changed(("first_conv", "in_channel"), 4), "groups of 3 input channels"),
        (changed(("first_conv",), None), "'first_conv' is missing"),
        (changed(("classifier", "params", "w_scales"), [1.0]), "lacks the array 'w_scales'"),
    ],
)
def test_a_checkpoint_that_does_not_fit_together_is_refused(
    change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path
) -> None:
    content = copy.deepcopy(network())
    change(content)
    with pytest.raises(ModelError, match=message):
        frontends.load(saved(content, tmp_path))


@pytest.mark.parametrize("content", [{}, [], None, 3, {"weights": 1}, {"state_dict": {}}, torch.zeros(3)], ids=str)
def test_a_file_of_neither_weights_nor_network_is_refused(content: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="holds neither weights nor a network"):
        frontends.load(saved(content, tmp_path, "net.pth"))


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("name", ["net.pth", "net.th", "net.pkl"])
def test_weights_without_a_graph_are_refused_with_the_way_to_a_program(
    name: str, wrapped: bool, tmp_path: Path
) -> None:
    state: dict[str, Any] = resnet_cifar.ResNet(1).state_dict()
    content = {"state_dict": {f"module.{k}": v for k, v in state.items()}, "best_prec1": 91.0} if wrapped else state
    with pytest.raises(ModelError, match=r"state dict.*no graph") as refusal:
        frontends.load(saved(content, tmp_path, name))
    assert "torch.export.save" in refusal.value.remedy


# --- files that are no checkpoints ---


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def trapped(trap: Trap) -> dict[str, Any]:
    content = network()
    content["first_conv"]["params"]["bias"] = trap
    return content


@pytest.mark.parametrize("place", ["alone", "in the network", "in an array"])
@pytest.mark.parametrize("form", ["zip", "old zip", "pickle"])
def test_code_in_a_checkpoint_never_runs(place: str, form: str, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    content: Any = {"alone": trap, "in the network": trapped(trap), "in an array": np.array([trap], object)}[place]
    path = tmp_path / "net.pkl"
    if form == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ModelError, match="not a sound checkpoint"):
        frontends.load(path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_checkpoint_is_refused(kept: float, tmp_path: Path) -> None:
    data = saved(network(), tmp_path).read_bytes()
    path = tmp_path / "bad.pkl"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(ModelError, match="bad") as refusal:
        frontends.load(path)
    assert "\n" not in str(refusal.value)


def test_damaged_bytes_never_raise_anything_else(tmp_path: Path) -> None:
    data = bytearray(saved(network(), tmp_path).read_bytes())
    rng = np.random.default_rng(2)
    path = tmp_path / "bad.pkl"
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(0, len(data), 3):
            damaged[position] = rng.integers(0, 256)
        path.write_bytes(damaged)
        try:
            frontends.load(path)
        except MedyateError:
            continue


def test_damaged_pickles_never_raise_anything_else(tmp_path: Path) -> None:
    """The archive itself is sound here: checksums would otherwise keep most damage away from the loader."""
    source = saved(network(), tmp_path)
    rng = np.random.default_rng(3)
    with zipfile.ZipFile(source) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = next(member for member in members if member.endswith("data.pkl"))
    for _ in range(150):
        damaged = bytearray(members[name])
        for position in rng.integers(0, len(damaged), 2):
            damaged[position] = rng.integers(0, 256)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for member, content in {**members, name: bytes(damaged)}.items():
                archive.writestr(member, content)
        (tmp_path / "bad.pkl").write_bytes(buffer.getvalue())
        try:
            frontends.load(tmp_path / "bad.pkl")
        except MedyateError:
            continue


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "FILE_MAX", 1 << 20)
    path = tmp_path / "bomb.pkl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", bytes(1 << 21))
    assert path.stat().st_size < 1 << 16
    with pytest.raises(ModelError, match="larger than"):
        frontends.load(path)


def test_a_missing_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        frontends.load(tmp_path / "nowhere.pkl")


# --- published networks ---


def test_a_published_quantised_network_stands_for_its_dequantised_weights() -> None:
    imported = frontends.load(shared("models/mbv2-w0.35.pkl"))
    assert imported.qgraph is not None
    real = dequantize(imported.qgraph, imported.weights)
    state = to_pt2.state_dict(shared("models/derived/mbv2-w0.35_imagenet128_dequant_fp32.pth"))
    for node in imported.graph:
        if node.op != "conv2d":
            continue
        want = state[f"{node.name}.weight"].numpy()
        got = real[f"{node.name}.weight"].transpose(0, 3, 1, 2).reshape(want.shape)
        assert np.abs(got - want).max() <= 1e-6 * np.abs(want).max()
        bias = state[f"{node.name}.bias"].numpy()
        assert np.abs(real[f"{node.name}.bias"] - bias).max() <= 1e-5 * np.abs(bias).max()


def assert_same(imported: Imported, module: torch.nn.Module, x: torch.Tensor) -> None:
    with torch.no_grad():
        want, got = module(x), Network(imported.graph, imported.weights)(x).flatten(1)
    assert float((got - want).abs().max()) <= TOLERANCE * float(want.abs().max())


def test_a_converted_cifar_network_keeps_its_accuracy(tmp_path: Path) -> None:
    source = shared("models/resnet20-12fca82f.th")
    with np.load(shared("data/cifar10") / "data.npz", allow_pickle=False) as archive:
        images, labels = archive["x_test"], archive["y_test"]
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (resnet_cifar.MEAN, resnet_cifar.DEVIATION))
    x = (torch.from_numpy(images.astype(np.float32) / 255).permute(0, 3, 1, 2) - mean) / deviation
    to_pt2.convert(source, tmp_path / "net.pt2")
    imported = frontends.load(tmp_path / "net.pt2")
    assert_same(imported, to_pt2.module(source)[0], x[:20])
    with torch.no_grad():
        logits = Network(imported.graph, imported.weights)(x).flatten(1)
    accuracy = float((logits.argmax(1).numpy() == labels).mean())
    print(f"ResNet-20: {accuracy:.3f} on {len(labels)} images")
    assert 0.90 <= accuracy <= 0.94


@pytest.mark.parametrize(
    ("file", "shape"),
    [
        ("resnet56-4bfd9763.th", (4, 3, 32, 32)),
        ("derived/mbv2-w0.35_imagenet128_dequant_fp32.pth", (2, 3, 128, 128)),
        ("derived/mobilenet_v1_0.25_224_imagenet_bn_fp32.pth", (2, 3, 224, 224)),
    ],
)
def test_converted_weights_give_the_outputs_of_their_module(file: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    source = shared(f"models/{file}")
    to_pt2.convert(source, tmp_path / "net.pt2")
    imported = frontends.load(tmp_path / "net.pt2")
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    assert_same(imported, to_pt2.module(source)[0], x)
    normalise(imported)


def test_weights_of_an_unknown_family_are_not_converted(tmp_path: Path) -> None:
    path = saved({"weight": torch.zeros(3)}, tmp_path, "net.pth")
    with pytest.raises(SystemExit, match="of none of CIFAR ResNet"):
        to_pt2.convert(path, tmp_path / "net.pt2")
