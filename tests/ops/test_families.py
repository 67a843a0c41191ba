# SPDX-License-Identifier: Apache-2.0
"""Every family of kernels computes what the portable one does, bit for bit, and touches nothing else."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from clibrary import HERE, RUNTIME, load
from medyate import datasets
from medyate.assets import PORTABLE, families, kernel_files
from medyate.boards import BOARDS, MACHINES
from medyate.kernel_room import BAND
from medyate.ops import conv2d, depthwise
from medyate.ops.conv2d import Conv2d
from medyate.ops.depthwise import Depthwise
from medyate.plan.budget import Limits
from medyate.run.session import Training
from medyate.run.train import Compiled, connect
from medyate.run.transport import emulator
from medyate.stages import Options, compile_model
from shared_files import ROOT, Samples, some_long

SHARED = ("src/ops/conv.c", "src/ops/conv2d.c", "src/ops/depthwise.c", "src/fixed.c")
PARTS = (
    "geometry",
    "ranges",
    "bias",
    "mult",
    "shift",
    "weight",
    "x",
    "start",
    "grad_mult",
    "selected",
    "records",
    "dy",
)
FORWARD, CORRECT, BACK_INPUT, BACK_WEIGHT, ADD, POOL = range(6)
"""Directions, as in tests/c/family_probe.c, and operations without weights."""
ALL = (FORWARD, FORWARD, FORWARD, CORRECT, BACK_INPUT, BACK_WEIGHT, ADD, POOL)
CASES = 400
ON_A_CORE = 600
ROOMS = (0, 8, 500, 2000, 8000, 40000)
"""Bytes of the workspace."""
GUARD = 64
OTHERS = tuple(name for name in families() if name != PORTABLE)


def library(family: str, folder: Path, *flags: str) -> ctypes.CDLL:
    kernels = tuple(f"kernels/{file}" for file in kernel_files(family))
    return load("family_probe.c", folder, (*SHARED, *kernels), flags=("-fsanitize=undefined", *flags))


def address(array: NDArray[np.generic] | None) -> ctypes.c_void_p | None:
    return None if array is None else array.ctypes.data_as(ctypes.c_void_p)


@dataclass(frozen=True)
class Case:
    direction: int
    depthwise: bool
    room: int
    """Bytes of the workspace."""
    arrays: Mapping[str, NDArray[np.generic]]
    output: NDArray[np.uint8]
    """Before the call, with guard bands."""

    def written(self) -> bytes:
        """As tests/c/family_device.c reads it."""
        how = np.array([self.direction, self.depthwise, self.room], np.int32)
        parts = [how.tobytes(), self.output.tobytes()]
        parts += [self.arrays[name].tobytes() if name in self.arrays else b"" for name in PARTS]
        return b"".join(struct.pack("<I", len(part)) + part + bytes(-len(part) % 4) for part in parts)


def call(kernels: ctypes.CDLL, case: Case) -> NDArray[np.uint8]:
    """The output with its guard bands."""
    return working(kernels, case)[0]


def working(kernels: ctypes.CDLL, case: Case, paint: int = 77) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """(output with its guard bands, which bytes of the painted workspace have changed)."""
    output = case.output.copy()
    work = np.full(case.room + GUARD + 8, paint, np.uint8)
    begin = work.ctypes.data + -work.ctypes.data % 8
    parts = (ctypes.c_void_p * len(PARTS))(*(address(case.arrays.get(name)) for name in PARTS))
    inside, place = ctypes.c_void_p(output.ctypes.data + GUARD), ctypes.c_void_p(begin)
    kernels.family_call(case.direction, int(case.depthwise), parts, inside, place, ctypes.c_uint32(case.room))
    own = work[begin - work.ctypes.data :]
    assert (own[case.room :] == paint).all()
    return output, own[: case.room] != paint


def any_case(random: np.random.Generator, directions: Sequence[int]) -> Case:
    """A layer of any geometry, in one of the directions."""
    direction = int(random.choice(directions))
    if direction in (ADD, POOL):
        return a_sum(random) if direction == ADD else a_pool(random)
    arrays, depthwise = drawn(random)
    height, width, channels, out_h, out_w, outputs = (int(n) for n in arrays["geometry"][:6])
    if direction == FORWARD:
        result: NDArray[np.generic] = np.full(out_h * out_w * outputs, 99, np.int8)
    else:
        arrays |= with_gradients(arrays, random, depthwise=depthwise)
        count, _, weights = (int(n) for n in arrays["selected"])
        if direction == CORRECT:
            result = np.zeros((out_h * out_w, outputs), np.int32)
        elif direction == BACK_INPUT:
            result = np.zeros(height * width * channels, np.int32)
            arrays["ranges"] = np.array([0, random.choice([1, 4, height]), 0, 0], np.int32)
        else:
            all_taps = int(arrays["geometry"][6] * arrays["geometry"][7])
            first, last = sorted(random.integers(0, all_taps + 1, 2)) if random.random() < 0.3 else (0, all_taps)
            rows = sorted(random.integers(0, out_h + 1, 2)) if random.random() < 0.3 else (0, out_h)
            arrays["ranges"] = np.array([first, last, *rows], np.int32)
            sums = count * (last - first) * weights // all_taps
            result = random.integers(-(1 << 20), 1 << 20, sums).astype(np.int32)
    return Case(direction, depthwise, int(random.choice(ROOMS)), arrays, guarded(result))


def guarded(result: NDArray[np.generic]) -> NDArray[np.uint8]:
    guard = np.full(GUARD, 99, np.uint8)
    return np.concatenate([guard, np.frombuffer(result.tobytes(), np.uint8), guard])


def a_sum(random: np.random.Generator) -> Case:
    """A row of a sum; some scale up, which only portable code does."""
    count = int(random.integers(1, 200))
    shifts = random.integers(-6 if random.random() < 0.8 else -31, 1 if random.random() < 0.8 else 3, 3)
    numbers = []
    for shift in shifts:
        numbers += [int(random.integers(1 << 30, (1 << 31) - 1)), int(shift), int(random.integers(-128, 128))]
    limits = sorted(int(limit) for limit in random.integers(-128, 128, 2)) if random.random() < 0.5 else [-128, 127]
    a, b = random.integers(-128, 128, (2, count)).astype(np.int8)
    geometry = np.array([*numbers, *limits, count], np.int32)
    return Case(ADD, False, 0, {"geometry": geometry, "x": a, "dy": b}, guarded(np.full(count, 99, np.int8)))


def a_pool(random: np.random.Generator) -> Case:
    """An average pool: scaled, without padding, or of one scale."""
    is_scaled = random.random() < 0.5
    kernel, stride = random.integers(1, 6, 2), random.integers(1, 4, 2)
    pads = np.zeros(2, int) if is_scaled else random.integers(0, kernel)
    size = random.integers(np.maximum(kernel, 1), 12)
    out = (size + pads - kernel) // stride + 1
    channels = int(random.integers(1, 40))
    mult = int(random.integers(1 << 30, (1 << 31) - 1)) if is_scaled else 0
    zeros = random.integers(-128, 128, 3)
    numbers = [*size, channels, *out, *kernel, *stride, *pads, mult, random.integers(-8, 1), *zeros]
    x = random.integers(-128, 128, (*size, channels)).astype(np.int8)
    output = guarded(np.full(int(out.prod()) * channels, 99, np.int8))
    return Case(POOL, False, 0, {"geometry": np.array(numbers, np.int32), "x": x}, output)


def drawn(random: np.random.Generator) -> tuple[dict[str, NDArray[np.generic]], bool]:
    """A layer of any geometry; half of them are products of matrices."""
    depthwise = bool(random.random() < 0.4)
    product = not depthwise and random.random() < 0.6
    kernel = (1, 1) if product else tuple(random.integers(1, 8 if depthwise else 4, 2))
    strides = (1, 1) if product and random.random() < 0.8 else random.integers(1, 6 if random.random() < 0.2 else 3, 2)
    stride = tuple(int(step) for step in strides)
    pad = (0, 0) if product else tuple(int(random.integers(0, k)) for k in kernel)
    height, width = (int(n) for n in random.integers(max(kernel), 14, 2))
    if not product and random.random() < 0.15:  # a series: a column of single pixels
        kernel, stride, pad = (int(kernel[0]), 1), (stride[0], 1), (pad[0], 0)
        height, width = int(random.integers(kernel[0], 60)), 1
    groups = 1 if depthwise or random.random() < 0.8 else 2
    channels = int(random.integers(1, 40)) if groups == 1 else 2 * int(random.integers(1, 8))
    channels = channels + -channels % 4 if random.random() < 0.6 else channels
    outputs = channels if depthwise else groups * int(random.integers(1, 20))
    behind = [p + int(random.random() < 0.1) * int(random.integers(1, 11)) for p in pad]  # of a product, too
    sizes = zip((height, width), pad, behind, kernel, stride, strict=True)
    out = [(n + p + q - k) // s + 1 for n, p, q, k, s in sizes]
    own = (1, 1) if depthwise else (channels // groups, outputs // groups)
    extreme = random.random() < 0.2
    x_zero, y_zero = (int(z) for z in (random.choice([-128, 127], 2) if extreme else random.integers(-128, 128, 2)))
    w_zero = int(random.integers(-5, 6)) if random.random() < 0.2 else 0
    limits = sorted(int(limit) for limit in random.integers(-128, 128, 2)) if random.random() < 0.5 else [-128, 127]
    shapes = (height, width, channels, *out, outputs)
    shape = (*kernel, channels) if depthwise else (outputs, *kernel, own[0])
    rows = sorted(random.integers(0, out[0] + 1, 2))
    columns = sorted(random.integers(0, out[1] + 1, 2))
    weight = random.integers(-128 if extreme else -127, 128, shape).astype(np.int8)
    if random.random() < 0.1:
        weight[...] = -128 if extreme else 0
    case: dict[str, NDArray[np.generic]] = {
        "geometry": np.array(
            [*shapes, *kernel, *stride, 1, 1, *pad, *own, x_zero, y_zero, w_zero, *limits, height, out[0], 1], np.int32
        ),
        "ranges": np.array([*rows, *columns] if random.random() < 0.5 else [0, out[0], 0, out[1]], np.int32),
        "bias": random.integers(-(1 << 20), 1 << 20, outputs).astype(np.int32),
        "mult": random.integers(1 << 30, (1 << 31) - 1, outputs).astype(np.int32),
        "shift": random.integers(-31 if extreme else -14, 2, outputs).astype(np.int8),
        "weight": weight,
        "x": random.integers(-128, 128, (height, width, channels)).astype(np.int8),
    }
    if random.random() < 0.2:
        constant = random.random(outputs) < 0.5
        case["mult"][constant] = 0
        case["shift"][constant] = random.integers(limits[0], limits[1] + 1, int(constant.sum()))
    if random.random() < 0.4:
        first, last, left, right = case["ranges"]
        pixels = int((last - first) * (right - left))
        case["start"] = random.integers(-(1 << 22), 1 << 22, (max(pixels, 1), outputs)).astype(np.int32)
    return case, depthwise


@pytest.mark.parametrize("rounding", [0, 1])
@pytest.mark.parametrize("family", OTHERS)
def test_a_family_computes_what_the_portable_one_does(family: str, rounding: int, tmp_path: Path) -> None:
    flag = f"-DMDY_ROUND_ONCE={rounding}"
    for name in (PORTABLE, family):
        (tmp_path / name).mkdir()
    portable, own = (library(name, tmp_path / name, flag) for name in (PORTABLE, family))
    random = np.random.default_rng(rounding)
    changed = [0] * 6
    for number in range(CASES):
        case = any_case(random, ALL)
        expected, found = (call(kernels, case) for kernels in (portable, own))
        assert np.array_equal(found, expected), (number, case.direction, case.arrays["geometry"].tolist())
        assert (found[:GUARD] == 99).all() and (found[-GUARD:] == 99).all()
        changed[case.direction] += int((found != case.output).any())
    assert min(changed) > CASES // 16


def wanted(family: str, case: Case) -> int:
    """What the compiler says that a layer works in."""
    g = [int(value) for value in case.arrays["geometry"]]
    kernel, stride, above = (g[6], g[7]), (g[8], g[9]), (g[12], g[13])
    below = [(n - 1) * s + k - size - p for n, s, k, size, p in zip(g[3:5], stride, kernel, g[:2], above, strict=True)]
    pads = (*above, *(max(0, pad) for pad in below))
    groups = g[2] // g[14]
    attrs = (
        Depthwise(kernel, stride, pads=pads)
        if case.depthwise
        else Conv2d(g[5], kernel, stride, (1, 1), pads, None, groups)
    )
    workspace = (depthwise if case.depthwise else conv2d).WORKSPACES[family]
    return workspace(attrs, ((g[0], g[1], g[2]),), "run" if case.direction == FORWARD else "input")


def used(kernels: ctypes.CDLL, case: Case, room: int) -> int:
    """How many bytes of a workspace a pass writes, whatever it writes there."""
    first, second = (working(kernels, replace(case, room=room), paint)[1] for paint in (77, 178))
    return int((first | second).sum())


def has_a_kernel(family: str, case: Case) -> bool:
    """Whether one of the family's own makes it."""
    channels, outputs = int(case.arrays["geometry"][2]), int(case.arrays["geometry"][5])
    if case.arrays["geometry"][18] != 0:  # a zero point of the weights
        return False
    if case.direction == FORWARD and family == "mve":
        return outputs >= 4
    return channels % 4 == 0 if case.depthwise else case.direction == FORWARD or channels % 2 == 0


@pytest.mark.parametrize("family", ["dsp", "mve"])
@pytest.mark.parametrize("direction", [FORWARD, BACK_INPUT])
def test_kernels_use_what_the_compiler_says_to_the_byte(direction: int, family: str, tmp_path: Path) -> None:
    """With exactly that room as much as with any; with a byte less they do less at once, or are the portable ones."""
    kernels, random = library(family, tmp_path), np.random.default_rng(3)
    seen = {(depthwise, is_small): 0 for depthwise in (False, True) for is_small in (False, True)}
    while min(seen.values()) < 15:
        case = any_case(random, (direction,))
        geometry = case.arrays["geometry"]
        height, width = (int(n) for n in geometry[3:5])
        arrays = dict(case.arrays)
        if direction == FORWARD:
            arrays["ranges"] = np.array([0, min(height, BAND), 0, width], np.int32)
            arrays.pop("start", None)
        else:
            arrays["ranges"] = np.array([0, BAND, 0, 0], np.int32)  # rows of the input at once
        case = replace(case, arrays=arrays)
        if not has_a_kernel(family, case):
            continue
        room = wanted(family, case)
        most = used(kernels, case, room + 5000)
        assert used(kernels, case, room) == most, geometry.tolist()
        less = room // 2 if case.depthwise and direction == BACK_INPUT else room - 1  # rows of gradients reach several
        if room > 0:
            assert used(kernels, case, less) < most, geometry.tolist()
        seen[case.depthwise, height * width < 3] += 1


def with_gradients(
    case: dict[str, NDArray[np.generic]], random: np.random.Generator, *, depthwise: bool
) -> dict[str, NDArray[np.generic]]:
    """The way back of a layer: gradients, half of them zeros, and some selected channels with deltas."""
    geometry = case["geometry"]
    height, width = (int(n) for n in geometry[:2])
    channels, outputs, group_out = int(geometry[2]), int(geometry[5]), int(geometry[15])
    taps = int(geometry[6] * geometry[7])
    weights = taps * (1 if depthwise else group_out)
    record = -(-(10 + weights + height * width) // 4) * 4
    chosen = np.flatnonzero(random.random(channels) < 0.3)
    records = np.zeros((max(len(chosen), 1), record), np.uint8)
    for row, channel in zip(records, chosen, strict=False):
        row[8:10] = np.frombuffer(struct.pack("<H", channel), np.uint8)
    whole = case["weight"].astype(np.int16)
    x = case["x"]
    for row, channel in zip(records, chosen, strict=False):
        if depthwise:
            own = whole[:, :, channel].reshape(-1)
        else:
            group = int(channel) // int(geometry[14])
            own = whole[group * group_out : (group + 1) * group_out, :, :, channel % geometry[14]]
            own = own.reshape(group_out, taps).T.reshape(-1)
        changed = np.clip(own + random.integers(-40, 41, own.shape), -127, 127)
        row[10 : 10 + weights] = (changed - own).astype(np.int8).view(np.uint8)
        row[10 + weights : 10 + weights + height * width] = (
            np.ascontiguousarray(x[:, :, channel]).reshape(-1).view(np.uint8)
        )
    dy = random.integers(-127, 128, tuple(geometry[3:6])).astype(np.int8)
    dy[random.random(dy.shape) < 0.5] = 0
    return {
        "grad_mult": random.integers(-40, 1 << 12, outputs).astype(np.int16),
        "weight": np.clip(case["weight"], -127, 127),
        "selected": np.array([len(chosen), record, weights], np.int32),
        "records": records,
        "dy": dy,
    }


@pytest.mark.parametrize("rounding", [0, 1])
@pytest.mark.parametrize(("family", "target"), [("dsp", "qemu-m4"), ("dsp", "qemu-m7"), ("mve", "qemu-m55")])
def test_a_core_computes_what_the_portable_family_does(family: str, target: str, rounding: int, tmp_path: Path) -> None:
    """Machine code beside the host's portable C, in one image of the C library."""
    board = BOARDS[target]
    assert board.build is not None
    flags = ["-std=c11", "-O2", f"-mcpu={board.build.cpu}", f"-mfloat-abi={board.build.float_abi}", "-mthumb"]
    flags += [f"-DMDY_ROUND_ONCE={rounding}", "-Werror"]
    sources = [HERE / "c" / "family_device.c", HERE / "c" / "family_probe.c", *(RUNTIME / file for file in SHARED)]
    sources += [RUNTIME / "kernels" / file for file in kernel_files(family)]
    image = tmp_path / "image.elf"
    script = ["-T", str(HERE / "c" / "family_device.ld")]
    script += [f"-Wl,--defsym={name}=0x{address:08x}" for name, address in board.build.symbols.items()]
    command = ["arm-none-eabi-gcc", *flags, "--specs=rdimon.specs", f"-I{RUNTIME / 'include'}", *map(str, sources)]
    subprocess.run([*command, *script, "-o", str(image)], check=True)
    portable = library(PORTABLE, tmp_path, f"-DMDY_ROUND_ONCE={rounding}")
    random = np.random.default_rng(2 + rounding)
    cases = [any_case(random, ALL) for _ in range(ON_A_CORE)]
    expected = [call(portable, case) for case in cases]
    (tmp_path / "cases.bin").write_bytes(b"".join(case.written() for case in cases))
    machine = [emulator(), "-M", MACHINES[target], "-display", "none", "-monitor", "none", "-serial", "none"]
    machine += ["-semihosting-config", "enable=on,target=native", "-kernel", str(image)]
    subprocess.run(machine, cwd=tmp_path, check=True, timeout=60)
    found = np.fromfile(tmp_path / "outputs.bin", np.uint8)
    ends = np.cumsum([len(part) for part in expected])
    assert len(found) == ends[-1]
    for number, (begin, part) in enumerate(zip([0, *ends[:-1]], expected, strict=True)):
        assert np.array_equal(found[begin : begin + len(part)], part), (number, cases[number].direction)


def test_a_family_has_the_portable_file_of_what_it_lacks() -> None:
    assert families()[0] == PORTABLE
    names = [file.partition("/")[2] for file in kernel_files(PORTABLE)]
    for family in families():
        files = kernel_files(family)
        assert set(names) <= {file.partition("/")[2] for file in files}
        assert any(file.startswith(f"{family}/") for file in files)
    assert {board.build.kernels for board in BOARDS.values() if board.build is not None} <= set(families())


@pytest.mark.parametrize("builder", some_long(["make", "platformio"], lambda builder: builder != "make"))
@pytest.mark.parametrize("family", ["dsp"])
def test_an_image_with_it_trains_alike_in_fewer_instructions(
    family: str, builder: str, samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One training on a Cortex-M4 by either family; the family is a fact of the board."""
    seen = {}
    for kernels in (PORTABLE, family):
        board = BOARDS["qemu-m4"]
        assert board.build is not None
        monkeypatch.setitem(BOARDS, "qemu-m4", replace(board, build=replace(board.build, kernels=kernels)))
        out = tmp_path / kernels
        options = Options("qemu-m4", Limits(48 << 10), rank_epochs=1, builder=builder)
        compile_model(ROOT / "models" / "digitnet" / "digitnet.onnx", datasets.load("digits"), options, out)
        with connect(Compiled.read(out), "qemu", tmp_path / f"{kernels}.bin") as session:
            session.begin(Training(0.02, 1, 8, seed=1))
            steps = [session.train(samples.x[i], int(samples.y[i])) for i in range(8)]
            losses = [step.loss for step in steps]
            seen[kernels] = (losses, session.digests(), sum(step.instructions for step in steps))
    assert seen[family][:2] == seen[PORTABLE][:2]
    assert seen[family][2] < 0.9 * seen[PORTABLE][2]
    assert "qemu-m4" in MACHINES
