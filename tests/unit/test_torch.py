# SPDX-License-Identifier: Apache-2.0
"""PyTorch programs: every operation, rank and spelling gives the outputs of the module itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import nets
import nets_wide
from medyate import frontends
from medyate.errors import ModelError, UnsupportedOpError
from medyate.frontends import torch as frontend
from medyate.ir import Imported
from medyate.passes.pipeline import normalise
from medyate.real import Network
from torch_cases import (
    AS_EXPORTED,
    FUNCTIONS,
    IMAGE,
    MAPS,
    SERIES,
    SERIES_BODIES,
    SPELLED,
    VECTOR,
    VECTOR_BODIES,
    Body,
    Program,
    exported,
)

TOLERANCE = 1e-4


def name_of(value: Any) -> str:
    """A test's name that every process gives alike: the text of a function holds its address."""
    return str(getattr(value, "__name__", value))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Function(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def in_the_ir(imported: Imported, x: torch.Tensor, *, channels_last: bool = False) -> torch.Tensor:
    """A sample (1, ...) of the program as (1, C, H, W) of the graph's input."""
    height, width, channels = imported.graph.shapes[imported.graph.input]
    rows = x if channels_last or x.ndim == 2 else x.movedim(1, -1)
    return rows.reshape(1, height, width, channels).permute(0, 3, 1, 2)


def assert_close(got: torch.Tensor, want: torch.Tensor) -> None:
    assert got.shape == want.shape
    error, largest = float((got - want).abs().max()), float(want.abs().max())
    assert error <= TOLERANCE * largest


def read_in(form: Program) -> Imported:
    return frontend._run(frontend.Importer(form, "test", frontend.SUPPORTED))


def assert_outputs(
    module: nn.Module, forms: Iterable[Program], x: torch.Tensor, *, channels_last: bool = False
) -> list[Imported]:
    """Each form gives the module's outputs. The graphs are returned."""
    want, found = module(x).detach(), [read_in(form) for form in forms]
    for imported in found:
        given = in_the_ir(imported, x, channels_last=channels_last)
        got = Network(imported.graph, imported.weights)(given).detach()
        assert_close(got.reshape(want.shape), want)
    return found


def check(module: nn.Module, x: torch.Tensor, *, channels_last: bool = False) -> list[Imported]:
    """A module as exported and decomposed."""
    program = torch.export.export(module.eval(), (x,))
    return assert_outputs(module, (program, program.run_decompositions()), x, channels_last=channels_last)


def check_body(body: Any, x: torch.Tensor = IMAGE) -> list[Imported]:
    return assert_outputs(*exported(body, x), x)


def kinds(imported: Imported) -> list[str]:
    return [getattr(node.attrs, "kind", node.op) for node in imported.graph]


# --- whole networks ---


@pytest.mark.parametrize("name", nets.NETS)
def test_both_forms_of_a_network_give_its_outputs(name: str) -> None:
    check(*nets.build(name))


@pytest.mark.parametrize("name", nets_wide.NETS)
def test_both_forms_of_a_wider_network_give_its_outputs(name: str) -> None:
    module, x = nets_wide.build(name)
    for imported in check(module, x, channels_last=name == "channels_last_series"):
        normalise(imported)


@pytest.mark.parametrize("name", ["gated", "shuffled", "one_sensor"])
def test_a_saved_program_with_a_symbolic_batch_is_taken(name: str, tmp_path: Path) -> None:
    module, x = nets_wide.build(name)
    batch = torch.cat([x, x])
    program = torch.export.export(module, (batch,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for form in (program, program.run_decompositions()):
        torch.export.save(form, tmp_path / "net.pt2")
        imported = frontends.load(tmp_path / "net.pt2")
        got = Network(imported.graph, imported.weights)(in_the_ir(imported, x)).detach()
        assert_close(got.reshape(1, -1), module(x).detach())


# --- operations one by one ---


@pytest.mark.parametrize("name", AS_EXPORTED)
def test_what_is_read_as_it_is_exported_gives_its_outputs(name: str) -> None:
    module, (program, _) = exported(AS_EXPORTED[name], IMAGE)
    imported = frontend._run(frontend.Importer(program, name, frontend.SUPPORTED))
    got = Network(imported.graph, imported.weights)(IMAGE).detach()
    assert_close(got, module(IMAGE).detach())


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("x", [VECTOR, IMAGE], ids=["vector", "map"])
def test_a_function_of_one_value_is_taken(name: str, x: torch.Tensor) -> None:
    check_body(FUNCTIONS[name], x)


@pytest.mark.parametrize(("body", "kind"), SPELLED, ids=name_of)
def test_a_function_is_recognised_however_it_is_spelled(body: Any, kind: str) -> None:
    for imported in check_body(body):
        assert kinds(imported) == ["conv2d", kind]


def test_a_function_is_not_recognised_across_a_gate() -> None:
    for imported in check_body(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))):
        assert kinds(imported) == ["conv2d", "average_pool", "sigmoid", "mul"]


@pytest.mark.parametrize("name", MAPS)
def test_an_operation_on_a_map_gives_its_outputs(name: str) -> None:
    check_body(MAPS[name])


@pytest.mark.parametrize("name", SERIES_BODIES)
def test_an_operation_on_a_series_gives_its_outputs(name: str) -> None:
    check_body(SERIES_BODIES[name], SERIES)


@pytest.mark.parametrize("name", VECTOR_BODIES)
def test_an_operation_on_a_vector_gives_its_outputs(name: str) -> None:
    check_body(VECTOR_BODIES[name], VECTOR)


# --- what a graph is made of ---


def test_padding_in_front_of_a_convolution_becomes_its_own() -> None:
    body = nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 4, 3, 2, padding=(1, 0)))
    for imported in check_body(body):
        assert kinds(imported) == ["conv2d", "conv2d"]
        assert getattr(imported.graph.nodes[1].attrs, "pads", None) == (1, 0, 2, 1)


def test_reading_a_tensor_otherwise_moves_nothing() -> None:
    def body(x: torch.Tensor) -> torch.Tensor:
        rows = functional.linear(x.flatten(2).transpose(1, 2), torch.ones(6, 4)).relu()
        return functional.linear(rows.transpose(1, 2).unsqueeze(3).flatten(1), torch.arange(768.0).view(2, 384))

    for imported in check_body(body):
        assert kinds(imported) == ["conv2d", "conv2d", "clip", "conv2d"]


def test_a_series_of_one_row_is_pooled_where_it_lies() -> None:
    for imported in check_body(lambda x: functional.max_pool2d(x.unsqueeze(2), (1, 2)).squeeze(2), SERIES):
        assert kinds(imported) == ["conv2d", "max_pool"]


def test_two_readers_of_one_permutation_share_the_move() -> None:
    conv = nn.Conv2d(8, 4, 1)

    def body(x: torch.Tensor) -> torch.Tensor:
        turned = x.permute(0, 3, 1, 2)
        return torch.cat((conv(turned), conv(turned).relu()), 1)

    for imported in check_body(body):
        assert kinds(imported).count("move") == 1


def test_an_input_that_is_put_in_order_first_is_taken_as_it_comes() -> None:
    body = nn.Conv2d(4, 3, 3)
    module = Function(lambda x: body(x.permute(0, 3, 1, 2)))
    for imported in check(module, IMAGE.movedim(1, -1).contiguous(), channels_last=True):
        assert imported.graph.shapes[imported.graph.input] == (8, 8, 4)
        assert kinds(imported) == ["conv2d"]


@pytest.mark.parametrize("name", ["gated", "series", "channels_last_series", "one_sensor", "perceptron"])
def test_a_sample_of_the_graph_is_turned_into_one_of_the_program(name: str) -> None:
    module, x = nets_wide.build(name)
    program = torch.export.export(module, (x,))
    imported = frontend.from_module(module, x, name)
    rows = in_the_ir(imported, x, channels_last=name == "channels_last_series")[0].permute(1, 2, 0)
    assert torch.equal(frontend.program_input(program, rows.numpy()), x)


def test_a_branch_that_the_output_does_not_need_may_hold_anything() -> None:
    for imported in check_body(lambda x: (x.relu(), x.cumsum(1))[0]):
        assert kinds(imported) == ["conv2d", "clip"]


# --- refusals name what blocks ---


@pytest.mark.parametrize(
    ("body", "op"),
    [
        (lambda x: x + x.mean((2, 3), keepdim=True), "aten.add.Tensor"),
        (lambda x: x * x.mean(1, keepdim=True), "aten.mul.Tensor"),
        (lambda x: x * torch.ones(4, 8, 8).cumsum(1), "aten.cumsum.default"),
        (lambda x: x + torch.arange(64.0).view(8, 8), "aten.add.Tensor"),
        (lambda x: 1 / x, "aten.reciprocal.default"),
        (lambda x: x / x.relu(), "aten.div.Tensor"),
        (lambda x: functional.elu(x, 0.5), "aten.elu.default"),
        (nn.Softplus(2.0), "aten.softplus.default"),
        (nn.ConvTranspose2d(4, 4, 2, groups=2), "aten.conv_transpose2d.input"),
        (lambda x: functional.log_softmax(x.mean((2, 3)), 1) * 2, "aten.log_softmax.int"),
        (nn.Conv2d(4, 4, 17, padding=8), "convolution"),
        (nn.GroupNorm(2, 4), "aten.group_norm.default"),
        (nn.BatchNorm2d(4, track_running_stats=False), "aten.batch_norm.default"),
        (nn.MaxPool2d(2, dilation=2), "aten.max_pool2d.default"),
        (nn.AdaptiveAvgPool2d(3), "aten.adaptive_avg_pool2d.default"),
        (nn.AvgPool2d(2, divisor_override=3), "aten.avg_pool2d.default"),
        (nn.ReflectionPad2d(1), "aten.pad.default"),
        (nn.ConstantPad2d(1, 1.0), "aten.pad.default"),
        (nn.Upsample(scale_factor=1.5), "aten.upsample_nearest2d.vec"),
        (nn.Upsample(scale_factor=2, mode="bilinear"), "aten.upsample_bilinear2d.vec"),
        (lambda x: x.softmax(1), "aten.softmax.int"),
        (lambda x: x.double(), "aten.to.dtype"),
        (
            lambda x: x.view(1, 2, 2, 2, 4, 2, 4).permute(0, 1, 3, 5, 2, 4, 6).relu().flatten(1) * 2,
            "output",
        ),
        (lambda x: x.relu() @ x.transpose(2, 3), "aten.matmul.default"),
    ],
    ids=name_of,
)
def test_what_has_no_kernel_is_refused_by_name(body: Any, op: str) -> None:
    with pytest.raises(UnsupportedOpError) as refusal:
        frontend.from_module(Body(body, 4), IMAGE, "test")
    assert refusal.value.op == op
    assert refusal.value.node in str(refusal.value)


def test_an_input_of_five_axes_is_refused() -> None:
    with pytest.raises(ModelError, match="one image"):
        frontend.from_module(nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 2, 2, 2), "test")
