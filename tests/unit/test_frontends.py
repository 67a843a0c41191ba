# SPDX-License-Identifier: Apache-2.0
"""What importers promise: the network that a file holds, or an error that names what blocks."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn
from torch.nn import functional

import nets
from medyate import frontends
from medyate.errors import GraphError, ModelError, UnsupportedOpError
from medyate.frontends import torch as torch_frontend
from medyate.frontends.builder import GraphBuilder
from medyate.ir import Imported
from medyate.ops.move import Move
from medyate.oracle.onnx import defined_session
from medyate.passes.pipeline import Normalised, normalise
from medyate.real import Network, channels_last

TOLERANCE = 1e-4
SHARED = Path(__file__).parents[2].parent / "shared"
REAL_FILES = (
    "ic_resnet8_cifar10_float.onnx",
    "vww_mobilenetv1_025_96_float.onnx",
    "derived/mbv2-w0.35_imagenet128_dequant_fp32.onnx",
    "derived/mcunet-5fps_imagenet128_dequant_fp32.onnx",
    "derived/mobilenet_v1_0.25_224_imagenet_bn_fp32.onnx",
)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# --- helpers ---


def assert_close(got: torch.Tensor, want: torch.Tensor | np.ndarray) -> None:
    found, right = got.detach().numpy().ravel(), np.asarray(want).ravel()
    assert found.shape == right.shape
    assert np.abs(found - right).max() <= TOLERANCE * np.abs(right).max()


def run_raw(imported: Imported, x: torch.Tensor) -> torch.Tensor:
    result: torch.Tensor = Network(imported.graph, imported.weights)(x).detach()
    return result


def run_normalised(network: Normalised, x: torch.Tensor) -> torch.Tensor:
    features = channels_last(Network(network.graph, network.weights)(x).detach())
    assert network.classifier is not None
    weight, bias = map(torch.tensor, network.classifier)
    return features @ weight.T + bias


def assert_same_network(imported: Imported, module: nn.Module, x: torch.Tensor) -> None:
    """As imported, and again when normalised: without batch norm, clip, softmax and classifier."""
    want = module(x).detach()
    assert_close(run_raw(imported, x), want)
    network = normalise(imported)
    assert {node.op for node in network.graph}.isdisjoint({"batch_norm", "clip", "softmax"})
    ends_in_softmax = imported.graph.nodes[-1].op == "softmax"
    logits = run_normalised(network, x)
    assert_close(logits.softmax(1) if ends_in_softmax else logits, want)


def export_onnx(module: nn.Module, example: Any, path: Path, *, keep_norms: bool = False, **options: Any) -> Path:
    training = torch.onnx.TrainingMode.PRESERVE if keep_norms else torch.onnx.TrainingMode.EVAL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the legacy exporter announces its end at every call
        torch.onnx.export(
            module.eval(),
            example,
            str(path),
            dynamo=False,
            opset_version=13,
            training=training,
            do_constant_folding=not keep_norms,
            **options,
        )
    return path


def write_onnx(path: Path, nodes: list[Any], arrays: dict[str, Any], extent: tuple[Any, ...] = (1, 4, 8, 8)) -> Path:
    """A file whose graph goes from 'x' to 'y'."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, extent)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(onnx.shape_inference.infer_shapes(model), path)
    return path


def sizes(values: list[int]) -> np.ndarray:
    return np.array(values, np.int64)


def run_onnx(path: Path, x: torch.Tensor) -> np.ndarray:
    session = defined_session(onnx.load(path))
    result: np.ndarray = session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]
    return result


class Classifier(nn.Module):
    """A body that keeps the extent of an 8 x 8 map, and a classifier behind it."""

    def __init__(self, body: nn.Module, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.body = body
        self.classifier = nn.Linear(width, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.classifier(self.body(self.first(x)).mean((2, 3)))
        return logits


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def import_body(body: nn.Module | Callable[[torch.Tensor], torch.Tensor], width: int = 4) -> Imported:
    module = Classifier(body if isinstance(body, nn.Module) else Function(body), width)
    return torch_frontend.from_module(module, IMAGE, "test")


IMAGE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(3))


# --- the same network through every door ---


@pytest.mark.parametrize("name", nets.NETS)
def test_a_module_gives_the_same_outputs_as_its_graph(name: str) -> None:
    module, x = nets.build(name)
    assert_same_network(torch_frontend.from_module(module, x, name), module, x)


@pytest.mark.parametrize("name", nets.NETS)
@pytest.mark.parametrize("keep_norms", [True, False], ids=["norms kept", "norms folded"])
def test_an_onnx_export_gives_the_same_outputs_as_its_graph(name: str, keep_norms: bool, tmp_path: Path) -> None:
    module, x = nets.build(name)
    path = export_onnx(module, x, tmp_path / "net.onnx", keep_norms=keep_norms)
    imported = frontends.load(path)
    assert any(node.op == "batch_norm" for node in imported.graph) == keep_norms
    assert_same_network(imported, module, x)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet8", "resnet20"])
def test_a_saved_program_gives_the_same_outputs_as_its_graph(name: str, tmp_path: Path) -> None:
    module, x = nets.build(name)
    torch.export.save(torch.export.export(module, (x,)), tmp_path / "net.pt2")
    imported = frontends.load(tmp_path / "net.pt2")
    assert imported.graph.name == "net"
    assert_same_network(imported, module, x)


@pytest.mark.parametrize("name", ["mobilenet_v2", "resnet20", "ds_cnn"])
def test_a_decomposed_program_gives_the_same_outputs_as_its_graph(name: str, tmp_path: Path) -> None:
    module, x = nets.build(name)
    torch.export.save(torch.export.export(module, (x,)).run_decompositions(), tmp_path / "net.pt2")
    assert_same_network(frontends.load(tmp_path / "net.pt2"), module, x)


@pytest.mark.parametrize("name", ["mcunet", "resnet20"])
def test_a_symbolic_batch_is_taken_as_one_image(name: str, tmp_path: Path) -> None:
    module, x = nets.build(name)
    program = torch.export.export(module, (x.repeat(2, 1, 1, 1),), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, tmp_path / "net.pt2")
    assert_same_network(frontends.load(tmp_path / "net.pt2"), module, x)


@pytest.mark.parametrize("name", ["mcunet", "resnet8", "resnet20", "flat_head"])
def test_a_symbolic_batch_in_onnx_is_taken_as_one_image(name: str, tmp_path: Path) -> None:
    module, x = nets.build(name)
    path = export_onnx(module, x, tmp_path / "net.onnx", input_names=["x"], dynamic_axes={"x": {0: "batch"}})
    assert_same_network(frontends.load(path), module, x)


@pytest.mark.parametrize("file", REAL_FILES)
def test_a_published_network_agrees_with_onnxruntime(file: str) -> None:
    path = SHARED / "models" / file
    if not path.is_file():
        reason = f"the published network {file} is not in the folder 'shared' beside the repository"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    imported = frontends.load(path)
    height, width, channels = imported.graph.shapes[imported.graph.input]
    x = torch.randn(1, channels, height, width, generator=torch.Generator().manual_seed(5))
    want = run_onnx(path, x)
    assert_close(run_raw(imported, x), want)
    normalise(imported)


# --- what a graph is made of ---


def test_a_layer_is_called_like_its_module() -> None:
    module, x = nets.build("ds_cnn")
    graph = torch_frontend.from_module(module, x, "ds_cnn").graph
    assert graph.nodes[0].name == "layers.0"
    assert graph.nodes[-1].name == "classifier"


def test_a_strided_slice_and_its_padding_become_one_shortcut() -> None:
    module, x = nets.build("resnet20")
    graph = torch_frontend.from_module(module, x, "resnet20").graph
    moves = [n.attrs for n in graph if isinstance(n.attrs, Move)]
    assert [(m.start, m.step) for m in moves] == [((0, 0, -2), (2, 2, 1))] * 2


def test_a_slice_that_two_nodes_read_stays_right() -> None:
    def body(x: torch.Tensor) -> torch.Tensor:
        small = x[:, :, ::2, ::4]
        padded = functional.pad(small, (0, 0, 0, 0, 1, 1))
        return functional.pad(small + small[:, :, ::1], (0, 0, 0, 0, 2, 0)) + padded

    module = Classifier(Function(body), 6)
    imported = torch_frontend.from_module(module, IMAGE, "test")
    assert_close(run_raw(imported, IMAGE), module(IMAGE).detach())


def test_a_branch_that_the_output_does_not_need_is_left_out(tmp_path: Path) -> None:
    weight = np.ones((2, 4, 1, 1), np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], "used"),
        helper.make_node("Conv", ["x", "w"], ["z"], "unused"),
    ]
    imported = frontends.load(write_onnx(tmp_path / "net.onnx", nodes, {"w": weight}))
    assert [node.name for node in imported.graph] == ["used"]
    assert set(imported.weights) == {"used.weight", "used.bias"}


def test_importing_leaves_the_module_in_its_mode() -> None:
    module, x = nets.build("ds_cnn")
    module.train()
    torch_frontend.from_module(module, x, "ds_cnn")
    assert all(part.training for part in module.modules())


def test_batch_norm_without_parameters_is_taken() -> None:
    module = Classifier(nn.BatchNorm2d(4, affine=False)).eval()
    module.body.running_mean = torch.tensor([1.0, -2.0, 0.5, 3.0])
    assert_same_network(torch_frontend.from_module(module, IMAGE, "test"), module, IMAGE)


def test_an_even_window_is_padded_like_pytorch_does() -> None:
    module = Classifier(nn.Conv2d(4, 4, (4, 2), padding="same", dilation=(1, 2)))
    assert_same_network(torch_frontend.from_module(module, IMAGE, "test"), module, IMAGE)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
def test_automatic_padding_agrees_with_onnxruntime(auto_pad: str, tmp_path: Path) -> None:
    weight = np.random.default_rng(2).normal(size=(2, 4, 4, 3)).astype(np.float32)
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", auto_pad=auto_pad, strides=[2, 2])
    path = write_onnx(tmp_path / "net.onnx", [node], {"w": weight}, (1, 4, 9, 8))
    x = torch.randn(1, 4, 9, 8)
    assert_close(run_raw(frontends.load(path), x), run_onnx(path, x))


def test_a_bias_of_one_value_counts_for_every_class(tmp_path: Path) -> None:
    arrays = {"w": np.ones((2, 4 * 64), np.float32), "b": np.array([3.0], np.float32)}
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"], transB=1),
    ]
    path = write_onnx(tmp_path / "net.onnx", nodes, arrays)
    assert_close(run_raw(frontends.load(path), IMAGE), run_onnx(path, IMAGE))


def test_slice_bounds_may_leave_out_axes_and_steps(tmp_path: Path) -> None:
    arrays = {"w": np.ones((2, 4, 1, 1), np.float32), "starts": sizes([0, 0, 0, 0]), "ends": sizes([1, 9, 9, 9])}
    nodes = [
        helper.make_node("Slice", ["x", "starts", "ends"], ["s"]),
        helper.make_node("Conv", ["s", "w"], ["y"]),
    ]
    path = write_onnx(tmp_path / "net.onnx", nodes, arrays)
    assert_close(run_raw(frontends.load(path), IMAGE), run_onnx(path, IMAGE))


def test_the_classifier_takes_only_its_own_weights_along() -> None:
    builder = GraphBuilder("test", "x", (1, 1, 4), ())
    builder.convolution("fc.1", "x", "a", np.ones((4, 1, 1, 4), np.float32), None)
    builder.linear("fc", "a", "y", np.ones((2, 4), np.float32), None)
    assert set(normalise(builder.finish("y")).weights) == {"fc.1.weight", "fc.1.bias"}


# --- in-place operations ---


def test_an_overwritten_tensor_has_its_new_value() -> None:
    def body(x: torch.Tensor) -> torch.Tensor:
        y = x + x
        functional.relu_(y)
        y += x
        return y

    module = Classifier(Function(body))
    assert_same_network(torch_frontend.from_module(module, IMAGE, "test"), module, IMAGE)


def test_an_overwritten_view_is_refused_where_its_base_is_read() -> None:
    def body(x: torch.Tensor) -> torch.Tensor:
        y = x + x
        functional.relu_(y[:, :, ::2])
        return y

    with pytest.raises(UnsupportedOpError, match=r"aten\.relu_.*overwrites 'slice_\d', which is read again"):
        import_body(body)


# --- refusals name what blocks ---


@pytest.mark.parametrize(
    ("body", "op"),
    [
        (nn.Conv2d(4, 4, 17, padding=8), "convolution"),
        (nn.ConvTranspose2d(4, 4, 2, dilation=2), "aten.conv_transpose2d.input"),
        (nn.BatchNorm2d(4, track_running_stats=False), "aten.batch_norm.default"),
        (Function(lambda x: x[:, ::2].repeat(1, 2, 1, 1)), "aten.repeat.default"),
        (Function(lambda x: x.softmax(1)), "aten.softmax.int"),
        (Function(lambda x: x.cumsum(2)), "aten.cumsum.default"),
    ],
    ids=str,
)
def test_what_has_no_kernel_is_refused_by_name(body: nn.Module, op: str) -> None:
    with pytest.raises(UnsupportedOpError) as refusal:
        import_body(body)
    assert refusal.value.op == op
    assert refusal.value.node in str(refusal.value)
    assert ("docs/ops.md" if op in refusal.value.supported else "aten.conv2d.default") in refusal.value.remedy


@pytest.mark.parametrize(
    "body",
    [
        nn.MaxPool2d(2),
        nn.Sigmoid(),
        nn.Conv2d(4, 4, 3, groups=2),
        nn.AdaptiveAvgPool2d(2),
        nn.AvgPool2d(3, padding=1),
        nn.AvgPool2d(3, stride=1),
        nn.Hardtanh(1.0, 2.0),
        nn.ZeroPad2d(1),
        Function(lambda x: x[:, :, 1:]),
        Function(lambda x: functional.pad(x[:, :2], (0, 0, 0, 0, 1, 1))),
        Function(lambda x: x + 1.0),
        Function(lambda x: torch.add(x, x, alpha=2)),
        Function(lambda x: x * x.mean((2, 3), keepdim=True)),
        Function(lambda x: x.mean(3, keepdim=True)),
        Function(lambda x: x.permute(0, 1, 3, 2)),
    ],
    ids=str,
)
def test_operations_give_the_numbers_of_pytorch(body: nn.Module) -> None:
    module = Classifier(body, 4)
    imported = torch_frontend.from_module(module, IMAGE, "test")
    assert_close(run_raw(imported, IMAGE), module.eval()(IMAGE).detach())


def onnx_of(op: str, **attributes: Any) -> tuple[list[Any], dict[str, Any]]:
    return [helper.make_node(op, ["x"], ["y"], "the_node", **attributes)], {}


def onnx_with(op: str, *arrays: Any, **attributes: Any) -> tuple[list[Any], dict[str, Any]]:
    names = {f"c{k}": array for k, array in enumerate(arrays)}
    return [helper.make_node(op, ["x", *names], ["y"], "the_node", **attributes)], names


@pytest.mark.parametrize(
    ("model", "op"),
    [
        (onnx_of("ReduceMean", axes=[1]), "ReduceMean"),
        (onnx_of("Flatten", axis=2), "Flatten"),
        (onnx_with("Conv", np.ones((4, 2, 3, 3), np.float32), group=3), "convolution"),
        (onnx_with("Add", np.arange(256, dtype=np.float32).reshape(1, 4, 8, 8)), "Add"),
        (onnx_with("Reshape", sizes([4, -1])), "Reshape"),
        (onnx_with("Slice", sizes([7]), sizes([-9]), sizes([2]), sizes([-1])), "Slice"),
        (onnx_with("Pad", sizes([1, 0, 1, 1, 0, 0, 1, 1])), "Pad"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_has_no_kernel_is_refused_by_name_in_onnx(
    model: tuple[list[Any], dict[str, Any]], op: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsupportedOpError, match="'the_node'") as refusal:
        frontends.load(write_onnx(tmp_path / "net.onnx", *model))
    assert refusal.value.op == op
    assert ("docs/ops.md" if op in refusal.value.supported else "GlobalAveragePool") in refusal.value.remedy


def test_height_and_width_must_be_fixed(tmp_path: Path) -> None:
    module = Classifier(nn.ReLU())
    axes = {2: torch.export.Dim("height", min=4), 3: torch.export.Dim("width", min=4)}
    program = torch.export.export(module, (IMAGE,), dynamic_shapes=(axes,))
    torch.export.save(program, tmp_path / "net.pt2")
    export_onnx(module, IMAGE, tmp_path / "net.onnx", input_names=["x"], dynamic_axes={"x": {2: "h", 3: "w"}})
    for file in ("net.pt2", "net.onnx"):
        with pytest.raises(ModelError, match="fixed height and width"):
            frontends.load(tmp_path / file)


def test_a_batch_of_several_images_is_refused(tmp_path: Path) -> None:
    module, batch = Classifier(nn.ReLU()), IMAGE.repeat(2, 1, 1, 1)
    with pytest.raises(ModelError, match="one image"):
        torch_frontend.from_module(module, batch, "test")
    with pytest.raises(ModelError, match="one image"):
        frontends.load(export_onnx(module, batch, tmp_path / "net.onnx"))


class TwoInputs(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class TwoOutputs(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + x, x.relu()


def test_several_inputs_are_refused(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(TwoInputs(), (IMAGE, IMAGE)), tmp_path / "net.pt2")
    export_onnx(TwoInputs(), (IMAGE, IMAGE), tmp_path / "net.onnx")
    for file in ("net.pt2", "net.onnx"):
        with pytest.raises(ModelError, match="2 inputs"):
            frontends.load(tmp_path / file)


def test_of_several_outputs_each_is_read_by_its_name(tmp_path: Path) -> None:
    torch.export.save(torch.export.export(TwoOutputs(), (IMAGE,)), tmp_path / "net.pt2")
    export_onnx(TwoOutputs(), (IMAGE,), tmp_path / "net.onnx")
    for file in ("net.pt2", "net.onnx"):
        names = frontends.load(tmp_path / file).outputs
        assert len(names) == 2
        ends = [frontends.load(tmp_path / file, name).graph for name in names]
        assert [node.op for node in ends[0]] == ["add"]
        with pytest.raises(ModelError, match="nothing"):
            frontends.load(tmp_path / file, "nothing")


def test_weights_that_are_not_finite_are_refused_by_layer(tmp_path: Path) -> None:
    norm = nn.BatchNorm2d(4)
    norm.weight.data[1] = float("nan")
    module = Classifier(norm)
    with pytest.raises(GraphError, match="'body' holds NaN"):
        torch_frontend.from_module(module, IMAGE, "test")
    path = export_onnx(module, IMAGE, tmp_path / "net.onnx", keep_norms=True)
    with pytest.raises(GraphError, match="holds NaN"):
        frontends.load(path)


def test_a_negative_variance_is_refused_by_layer() -> None:
    norm = nn.BatchNorm2d(4)
    norm.running_var = torch.tensor([1.0, 1.0, -1.0, 1.0])
    module = Classifier(norm)
    with pytest.raises(GraphError, match="'body' holds NaN"):
        torch_frontend.from_module(module, IMAGE, "test")


def test_a_module_that_decides_on_values_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be exported"):
        import_body(lambda x: x if x.sum() > 0 else -x)


# --- files that are no models ---


def good_file(folder: Path, suffix: str) -> Path:
    module, path = Classifier(nn.ReLU()), folder / f"good{suffix}"
    if suffix == ".onnx":
        return export_onnx(module, IMAGE, path)
    torch.export.save(torch.export.export(module, (IMAGE,)), path)
    return path


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(suffix: str, kept: float, tmp_path: Path) -> None:
    content = good_file(tmp_path, suffix).read_bytes()
    path = tmp_path / f"bad{suffix}"
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ModelError, match="bad") as refusal:
        frontends.load(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_text_file_is_refused(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"bad{suffix}"
    path.write_text("This is a shopping list: eggs, flour, butter.\n")
    with pytest.raises(ModelError, match="is not a sound"):
        frontends.load(path)


@pytest.mark.parametrize("suffix", [".onnx", ".pt2"])
def test_a_missing_file_is_refused(suffix: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        frontends.load(tmp_path / f"nowhere{suffix}")


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is none of \.onnx"):
        frontends.load(tmp_path / "net.h5")


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def rewrite_member(source: Path, target: Path, ending: str, content: bytes | None, added: str = "") -> None:
    """Copies an archive with one member exchanged, or with one more."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            swapped = content is not None and not added and member.filename.endswith(ending)
            new.writestr(member.filename, content if swapped and content is not None else old.read(member))
        if added and content is not None:
            new.writestr(added, content)


@pytest.mark.parametrize(
    ("ending", "added"),
    [
        ("sample_inputs/model.pt", ""),
        ("", "good/data/constants/custom_obj_0"),
        ("", "good/data/constants/opaque_obj_0"),
        ("", "good/data/weights/model.pt"),
        ("", "good/data/aotinductor/model/model.so"),
    ],
)
def test_a_program_that_carries_more_than_tensors_is_refused_unopened(ending: str, added: str, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(Trap(tmp_path / "sprung"), buffer)
    content = buffer.getvalue() if not added or added.endswith(".pt") else pickle.dumps(Trap(tmp_path / "sprung"))
    rewrite_member(good_file(tmp_path, ".pt2"), tmp_path / "bad.pt2", ending, content, added)
    with pytest.raises(ModelError):
        frontends.load(tmp_path / "bad.pt2")
    assert not (tmp_path / "sprung").exists()
