# SPDX-License-Identifier: Apache-2.0
"""PyTorch programs: every operation, rank and spelling gives the outputs of the module itself."""

from __future__ import annotations

from collections.abc import Callable
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

TOLERANCE = 1e-4
GENERATOR = torch.Generator().manual_seed(7)
IMAGE = torch.randn(1, 4, 8, 8, generator=GENERATOR)
SERIES = torch.randn(1, 4, 12, generator=GENERATOR)
VECTOR = torch.randn(1, 16, generator=GENERATOR)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Body(nn.Module):
    """A function or module behind a layer that makes its input no graph input."""

    def __init__(self, body: Callable[[torch.Tensor], torch.Tensor], rank: int) -> None:
        super().__init__()
        self.first = (nn.Linear(16, 16), nn.Conv1d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))[rank - 2]
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(self.first(x))


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


def both_forms(module: nn.Module, x: torch.Tensor) -> list[Imported]:
    program = torch.export.export(module.eval(), (x,))
    return [
        frontend._run(frontend.Importer(form, "test", frontend.SUPPORTED))
        for form in (program, program.run_decompositions())
    ]


def check(module: nn.Module, x: torch.Tensor, *, channels_last: bool = False) -> list[Imported]:
    """Imports both forms; each gives the module's outputs. The graphs are returned."""
    want = module.eval()(x).detach()
    found = both_forms(module, x)
    for imported in found:
        given = in_the_ir(imported, x, channels_last=channels_last)
        got = Network(imported.graph, imported.weights)(given).detach()
        assert_close(got.reshape(want.shape), want)
    return found


def check_body(body: Any, x: torch.Tensor = IMAGE) -> list[Imported]:
    module = Body(body, x.ndim)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3))
    return check(module, x)


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

FUNCTIONS = {
    "relu": functional.relu,
    "relu6": functional.relu6,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.3),
    "hardswish": functional.hardswish,
    "hardsigmoid": functional.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "elu": functional.elu,
    "hardtanh": functional.hardtanh,
    "clamp_min": lambda x: x.clamp_min(-0.5),
    "maximum": lambda x: torch.maximum(x, torch.tensor(0.25)),
    "minimum": lambda x: torch.minimum(torch.ones(1), x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("x", [VECTOR, IMAGE], ids=["vector", "map"])
def test_a_function_of_one_value_is_taken(name: str, x: torch.Tensor) -> None:
    check_body(FUNCTIONS[name], x)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (lambda x: x * functional.relu6(x + 3) / 6, "hard_swish"),
        (lambda x: x * (functional.relu6(x + 3) / 6), "hard_swish"),
        (lambda x: x * functional.hardtanh(x * (1 / 6) + 0.5, 0.0, 1.0), "hard_swish"),
        (functional.hardswish, "hard_swish"),
        (lambda x: functional.relu6(x.add(3.0)) / 6, "hard_sigmoid"),
        (functional.hardsigmoid, "hard_sigmoid"),
        (lambda x: x * torch.sigmoid(x), "silu"),
        (lambda x: x / (1 + torch.exp(-x)), "silu"),
        (functional.silu, "silu"),
        (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), "gelu"),
        (lambda x: torch.where(x > 0, x, 0.1 * x), "leaky_relu"),
        (nn.PReLU(init=0.3), "leaky_relu"),
        (lambda x: torch.where(x > 0, x, 0.0), "clip"),
    ],
    ids=str,
)
def test_a_function_is_recognised_however_it_is_spelled(body: Any, kind: str) -> None:
    for imported in check_body(body):
        assert kinds(imported) == ["conv2d", kind]


def test_a_function_is_not_recognised_across_a_gate() -> None:
    for imported in check_body(lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True))):
        assert kinds(imported) == ["conv2d", "average_pool", "sigmoid", "mul"]


MAPS: dict[str, Any] = {
    "grouped": nn.Conv2d(4, 8, 3, groups=2),
    "multiplier": nn.Conv2d(4, 8, 3, groups=4),
    "same": nn.Conv2d(4, 4, (4, 2), padding="same", dilation=(1, 2)),
    "row": nn.Conv2d(4, 4, (1, 5), padding=(0, 2)),
    "max": nn.MaxPool2d(2),
    "max, padded": nn.MaxPool2d(3, 2, 1),
    "max, rounded up": nn.MaxPool2d(3, 2, ceil_mode=True),
    "average": nn.AvgPool2d(3, 1),
    "average, padding counted": nn.AvgPool2d(3, 2, 1),
    "average, padding not counted": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "average, rounded up": nn.AvgPool2d(3, 2, ceil_mode=True),
    "average, not square": nn.AvgPool2d((2, 4), (1, 2)),
    "adaptive": nn.AdaptiveAvgPool2d(2),
    "adaptive, one side": nn.AdaptiveAvgPool2d((None, 1)),
    "adaptive max": nn.AdaptiveMaxPool2d((1, 2)),
    "mean of one axis": lambda x: x.mean(3, keepdim=True),
    "mean of rows": lambda x: x.mean(2),
    "mean of channels": lambda x: x.mean(1, keepdim=True),
    "mean of everything": lambda x: x.mean((2, 3)).mean(1, keepdim=True),
    "largest": lambda x: x.amax((2, 3), keepdim=True),
    "largest of a row": lambda x: x.max(3)[0],
    "sum with itself": lambda x: x + x,
    "scaled sum": lambda x: torch.add(x, x.relu(), alpha=2),
    "difference": lambda x: x - x.relu(),
    "number minus": lambda x: 1 - x,
    "negative": lambda x: -x,
    "numbers": lambda x: (x * 2 + 1.5) / 4 - 0.25,
    "constants": lambda x: (x - torch.tensor([1.0, 2, 3, 4]).view(4, 1, 1)) * torch.arange(1.0, 5).view(1, 4, 1, 1),
    "constant of a row": lambda x: x + torch.arange(8.0),
    "square": lambda x: x * x,
    "gate": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "gate first": lambda x: torch.sigmoid(x.amax((2, 3), keepdim=True)) * x,
    "join": lambda x: torch.cat((x, x.relu(), x[:, :1]), 1),
    "join of rows": lambda x: torch.cat((x, x.relu()), 2),
    "join of columns": lambda x: torch.cat((x, x.relu()), -1),
    "padding": nn.ZeroPad2d((1, 2, 0, 3)),
    "padding of channels": lambda x: functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 2, 1)),
    "crop": lambda x: functional.pad(x, (-1, 0, 0, -2)),
    "slice": lambda x: x[:, 1:3, 1:, ::3],
    "one channel": lambda x: x[:, 2:3] * 2,
    "one row": lambda x: x[:, :, 3],
    "split": lambda x: torch.cat(x.split([1, 3], 1)[::-1], 1),
    "chunk": lambda x: x.chunk(2, 2)[0] + x.chunk(2, 2)[1],
    "nearest": lambda x: functional.interpolate(x, scale_factor=2),
    "nearest by size": lambda x: functional.interpolate(x, size=(16, 24)),
    "nearest, exact": lambda x: functional.interpolate(x, scale_factor=(2, 3), mode="nearest-exact"),
    "transpose": lambda x: x.transpose(2, 3),
    "permute": lambda x: x.permute(0, 3, 1, 2) * 2,
    "regrouped": lambda x: x.view(1, 2, 2, 64).transpose(1, 2).reshape(1, 4, 64),
    "shuffle": nn.ChannelShuffle(2),
    "flatten and back": lambda x: x.flatten(1).view(1, 8, 4, 8).relu(),
    "cast": lambda x: x.float().type_as(x).contiguous(),
    "map as a sequence": lambda x: x.flatten(2).transpose(1, 2),
    "stack": lambda x: torch.stack((x.mean((2, 3)), x.amax((2, 3))), 2),
    "in place": lambda x: x.mul_(2).add_(1).relu_(),
    "softmax": lambda x: x.mean((2, 3)).softmax(1),
    "linear over the channels": lambda x: functional.linear(x.permute(0, 2, 3, 1), torch.ones(3, 4)).permute(
        0, 3, 1, 2
    ),
    "batch dropped": lambda x: x.mean((2, 3)).squeeze(),
}
SERIES_BODIES: dict[str, Any] = {
    "conv": nn.Conv1d(4, 6, 5, 2, 2),
    "grouped": nn.Conv1d(4, 4, 3, padding="same", groups=4),
    "norm": nn.BatchNorm1d(4),
    "max": nn.MaxPool1d(3, 2, 1),
    "average": nn.AvgPool1d(3, 1, 1),
    "adaptive": nn.AdaptiveAvgPool1d(4),
    "adaptive max": nn.AdaptiveMaxPool1d(1),
    "nearest": lambda x: functional.interpolate(x, scale_factor=3),
    "gate": lambda x: x * torch.sigmoid(x.mean(2, keepdim=True)),
    "join": lambda x: torch.cat((x, x * 2), 1),
    "join in time": lambda x: torch.cat((x, x * 2), 2),
    "padding": nn.ConstantPad1d((2, 1), 0.0),
    "last of the series": lambda x: x[:, :, -1],
    "largest": lambda x: x.max(dim=2).values,
    "linear at every position": nn.Linear(12, 5),
    "linear over sensors": lambda x: functional.linear(x.transpose(1, 2), torch.ones(3, 4)).relu().mean(1),
    "as an image": lambda x: functional.max_pool2d(x.unsqueeze(1), 2).flatten(1),
    "as a row": lambda x: functional.conv2d(x.unsqueeze(2), torch.ones(2, 4, 1, 3)).squeeze(2),
    "flattened": lambda x: functional.linear(x.flatten(1), torch.arange(96.0).view(2, 48)),
}
VECTOR_BODIES: dict[str, Any] = {
    "norm": nn.BatchNorm1d(16),
    "no bias": nn.Linear(16, 4, bias=False),
    "matmul": lambda x: x @ torch.arange(48.0).view(16, 3),
    "constants": lambda x: x * torch.arange(16.0) + 1,
    "join": lambda x: torch.cat((x, x.relu()), 1),
    "gate": lambda x: x * torch.sigmoid(x),
    "part": lambda x: x[:, 3:9],
    "padding": lambda x: functional.pad(x, (1, 2)),
    "as a map": lambda x: functional.conv2d(x.view(1, 4, 2, 2), torch.ones(3, 4, 2, 2)).flatten(1),
    "as a series": lambda x: functional.conv1d(x.unflatten(1, (2, 8)), torch.ones(3, 2, 3)).flatten(1),
    "softmax": lambda x: x.softmax(-1),
}


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
        (lambda x: functional.gelu(x, approximate="tanh"), "aten.gelu.default"),
        (lambda x: functional.elu(x, 0.5), "aten.elu.default"),
        (nn.PReLU(4), "aten.prelu.default"),
        (nn.Softplus(), "aten.softplus.default"),
        (nn.PixelShuffle(2), "aten.pixel_shuffle.default"),
        (nn.ConvTranspose2d(4, 4, 2), "aten.conv_transpose2d.input"),
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
    ids=str,
)
def test_what_has_no_kernel_is_refused_by_name(body: Any, op: str) -> None:
    with pytest.raises(UnsupportedOpError) as refusal:
        frontend.from_module(Body(body, 4), IMAGE, "test")
    assert refusal.value.op == op
    assert refusal.value.node in str(refusal.value)


def test_an_input_of_five_axes_is_refused() -> None:
    with pytest.raises(ModelError, match="one image"):
        frontend.from_module(nn.Conv3d(1, 1, 1), torch.zeros(1, 1, 2, 2, 2), "test")
