# SPDX-License-Identifier: Apache-2.0
"""ONNX that cannot be imported: refused by node, or as no sound file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from medyate import frontends
from medyate.errors import GraphError, MedyateError, ModelError, UnsupportedOpError
from onnx_cases import CONV
from onnx_files import assert_same, chain, node, real, whole, write
from shared_files import shared

REFUSED: Mapping[str, tuple[tuple[list[Any], dict[str, Any]], str]] = {
    "an unknown operation": (chain(node("Erf")), "the operation is not supported"),
    "weights that are no constant": (
        ([helper.make_node("Conv", ["x", "x"], ["y"], "the_Conv_0")], {}),
        "'x' is not a constant",
    ),
    "three dimensions": (chain(node("Conv", real(2, 4, 3, 3, 3))), "a kernel of 3 dimensions"),
    "groups that do not fit": (chain(node("Conv", real(3, 2, 1, 1), group=2)), "2 groups"),
    "a large window": (chain(node("Conv", real(2, 4, 17, 1), pads=[9, 0, 9, 0])), "above 16"),
    "a constant per pixel": (chain(node("Add", real(8, 6))), "not one number per channel"),
    "a divided constant": (
        ([helper.make_node("Div", ["c", "x"], ["y"], "the_Div_0")], {"c": np.float32(1)}),
        "a constant is divided",
    ),
    "two batches": (chain(node("Reshape", whole(2, -1))), "none of one sample"),
    "a mean over channels": (chain(node("ReduceMean", axes=[1])), "height and width"),
    "a squeezed batch": (chain(node("GlobalMaxPool"), node("Squeeze")), "the axes None"),
    "a softmax over pixels": (chain(node("Softmax", axis=2)), "a softmax over axis 2"),
    "four groups of axes": (
        chain(node("Reshape", whole(1, 4, 4, 2, 6)), node("Transpose", perm=[0, 1, 3, 2, 4])),
        "an order of",
    ),
    "a mixed batch": (chain(node("Transpose", perm=[1, 0, 2, 3])), "an order of"),
    "reflections": (chain(node("Pad", whole(0, 0, 1, 1, 0, 0, 1, 1), mode="reflect")), "only zeros"),
    "another border": (chain(node("Pad", whole(0, 0, 1, 1, 0, 0, 1, 1), np.float32(2))), "only zeros"),
    "linear interpolation": (
        chain(node("Resize", None, np.array([1, 1, 2, 2], np.float32), mode="linear")),
        "only the nearest pixel",
    ),
    "an odd factor": (
        chain(node("Resize", None, np.array([1, 1, 1.5, 1], np.float32), mode="nearest")),
        "no whole factor",
    ),
    "another hard sigmoid": (chain(node("HardSigmoid")), "alpha is 0.2"),
    "a steep slope": (chain(node("LeakyRelu", alpha=2.0)), "a slope of 2.0"),
    "a backward slice": (chain(node("Slice", whole(7), whole(-9), whole(2), whole(-1))), "a step of -1"),
    "nothing left": (chain(node("Slice", whole(3), whole(3), whole(2))), "its result is empty"),
    "a scale that is none": (chain(node("QuantizeLinear", np.float32(0), np.int8(0))), "its scales are invalid"),
    "int16": (
        (
            [
                helper.make_node("QuantizeLinear", ["x", "s", "z"], ["a"], "the_first"),
                helper.make_node("DequantizeLinear", ["a", "s", "z"], ["y"], "the_second"),
            ],
            {"s": np.float32(1), "z": np.int16(0)},
        ),
        "'the_first'.*activations of int16",
    ),
    "another scale": (
        chain(node("QuantizeLinear", np.float32(1), np.int8(0)), node("DequantizeLinear", np.float32(2), np.int8(0))),
        "not that with which",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported_is_refused_by_node(name: str, tmp_path: Path) -> None:
    (nodes, arrays), reason = REFUSED[name]
    opset = 21 if name == "int16" else 13
    with pytest.raises(UnsupportedOpError, match=reason) as refusal:
        frontends.load(write(tmp_path / "net.onnx", nodes, arrays, opset=opset))
    assert refusal.value.node in (nodes[0].name, nodes[-1].name)
    known = refusal.value.op in refusal.value.supported
    assert ("docs/ops.md" if known else "GlobalAveragePool") in refusal.value.remedy


def test_a_network_without_layers_is_refused(tmp_path: Path) -> None:
    for nodes in ([helper.make_node("Identity", ["x"], ["y"])], []):
        with pytest.raises(ModelError, match=r"no layers|not a sound"):
            frontends.load(write(tmp_path / "net.onnx", nodes, {}))


@pytest.mark.parametrize("extent", [(2, 4, 8, 6), (1, 4, "height", 6), (4,), (1, 2, 2, 2, 2), (1, 0, 8, 6)], ids=str)
def test_an_input_of_another_form_is_refused(extent: tuple[Any, ...], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is expected"):
        frontends.load(write(tmp_path / "net.onnx", [helper.make_node("Relu", ["x"], ["y"])], {}, extent))


def test_values_that_are_not_finite_are_refused_by_layer(tmp_path: Path) -> None:
    broken = CONV.copy()
    broken[1, 2, 0, 0] = np.nan
    for part in (node("Conv", broken), node("Mul", np.float32(np.inf)), node("Add", np.float32(np.nan))):
        with pytest.raises(GraphError, match=f"'{part[0].name}_0' holds NaN"):
            frontends.load(write(tmp_path / "net.onnx", *chain(part)))


def test_a_huge_constant_is_refused_before_it_is_made(tmp_path: Path) -> None:
    path = write(tmp_path / "net.onnx", *chain(node("Conv", CONV)))
    model = onnx.load(path)
    model.graph.initializer[0].dims[:] = [1 << 40, 1 << 40]
    onnx.save(model, path)
    with pytest.raises(ModelError, match="is larger than"):
        frontends.load(path)
    nodes = [helper.make_node("ConstantOfShape", ["size"], ["c"], "huge"), helper.make_node("Add", ["x", "c"], ["y"])]
    with pytest.raises(UnsupportedOpError, match=r"'huge'.*no microcontroller can hold"):
        frontends.load(write(tmp_path / "net.onnx", nodes, {"size": whole(1 << 20, 1 << 20)}))


def test_a_loop_over_constants_is_refused_unrun(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [
            helper.make_tensor_value_info("k", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("on", TensorProto.BOOL, [])],
    )
    nodes = [
        helper.make_node("Loop", ["", "true"], [], "endless", body=body),
        helper.make_node("Relu", ["x"], ["y"]),
    ]
    with pytest.raises(ModelError):
        frontends.load(write(tmp_path / "net.onnx", nodes, {"true": np.array(True)}))


# --- damaged files ---


@pytest.mark.parametrize("kept", [0.0, 0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(kept: float, tmp_path: Path) -> None:
    content = write(tmp_path / "good.onnx", *chain(node("Conv", CONV))).read_bytes()
    (tmp_path / "bad.onnx").write_bytes(content[: int(kept * len(content))])
    with pytest.raises(MedyateError):
        frontends.load(tmp_path / "bad.onnx")


def test_damaged_bytes_raise_no_other_error(tmp_path: Path) -> None:
    source = shared("models/ic_resnet8_cifar10_float.onnx").read_bytes()
    header, path = len(source) - 20000, tmp_path / "bad.onnx"
    for seed in range(60):
        random = np.random.default_rng(seed)
        content = bytearray(source)
        for position in random.integers(0, 4000 if seed % 2 else header, 4):
            content[position] = int(random.integers(0, 256))
        path.write_bytes(content)
        try:
            frontends.load(path)
        except MedyateError as error:
            assert "\n" not in str(error)


# --- constants in other files ---


def with_external(path: Path, location: str, **entries: str) -> Path:
    """A file whose only constant lies elsewhere."""
    write(path, *chain(node("Conv", CONV)))
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_constants_may_lie_beside_the_model(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "weights.bin").write_bytes(b"1234" + CONV.tobytes())
    assert_same(with_external(tmp_path / "net.onnx", "data/weights.bin", offset="4", length=str(CONV.nbytes)))


@pytest.mark.parametrize("location", ["../secret.bin", "/etc/hostname", "link.bin", "folder/secret.bin", "", "..\\a"])
def test_constants_outside_the_folder_are_refused_unread(location: str, tmp_path: Path) -> None:
    inside = tmp_path / "model"
    inside.mkdir()
    (tmp_path / "secret.bin").write_bytes(CONV.tobytes())
    (inside / "link.bin").symlink_to(tmp_path / "secret.bin")
    (inside / "folder").symlink_to(tmp_path)
    with pytest.raises(ModelError, match="outside the model's folder"):
        frontends.load(with_external(inside / "net.onnx", location))


@pytest.mark.parametrize(
    ("entries", "reason"),
    [({"offset": "8"}, "does not lie in"), ({"length": "3"}, "does not lie in"), ({"offset": "x"}, "not a sound")],
)
def test_constants_must_fit_their_file(entries: dict[str, str], reason: str, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(CONV.tobytes())
    with pytest.raises(ModelError, match=reason):
        frontends.load(with_external(tmp_path / "net.onnx", "weights.bin", **entries))


def test_a_missing_file_of_constants_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"'nowhere.bin', which does not exist"):
        frontends.load(with_external(tmp_path / "net.onnx", "nowhere.bin"))
