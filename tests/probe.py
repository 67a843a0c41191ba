# SPDX-License-Identifier: Apache-2.0
"""A plan as a shared library that tests call: the same C, with gradients noted instead of applied."""

from __future__ import annotations

import ctypes
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate.assets import PORTABLE, assets, kernel_files
from medyate.build.project import write_project
from medyate.plan import ids
from medyate.plan.parameters import NORM_BITS
from medyate.plan.plan import Plan
from medyate.sample.policy import pack

HERE = Path(__file__).parent
RUNTIME = assets() / "runtime_c"
OPTIONS = ("-std=c11", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror", "-fPIC")
OBJECTS = tempfile.TemporaryDirectory(prefix="medyate-objects-")
"""The runtime is the same for every model: it is compiled once for each set of options."""


def compiler() -> str:
    """The host's C compiler."""
    return os.environ.get("CC", "cc")


@cache
def runtime_objects(options: tuple[str, ...], left_out: tuple[str, ...]) -> list[Path]:
    """The runtime's objects, but for some files."""
    folder = Path(tempfile.mkdtemp(dir=OBJECTS.name))
    sources = [file.resolve() for file in sorted((RUNTIME / "src").rglob("*.c")) if file.name not in left_out]
    sources += [RUNTIME / "kernels" / file for file in kernel_files(PORTABLE)]
    subprocess.run([compiler(), *options, "-c", *map(str, sources)], cwd=folder, check=True)
    return sorted(folder.glob("*.o"))


class Probe:
    """The library of one plan."""

    def __init__(
        self,
        plan: Plan,
        folder: Path,
        *,
        record: bool,
        flags: tuple[str, ...] = ("-O2",),
        more: tuple[Path, ...] = (),
    ) -> None:
        self.plan = plan
        project = folder / "project"
        write_project(plan, project)
        library = folder / "libprobe.so"
        defines = (f"-DMDY_GRAD_BITS={plan.limits.grad_bits}", f"-DMDY_ROUND_ONCE={int(plan.qgraph.rounds_once)}")
        options = (*OPTIONS, *flags, *defines, f"-I{RUNTIME / 'include'}")
        own = [*(project / "src").glob("*.c"), HERE / "c" / "probe.c"]
        own += [HERE / "c" / "record_update.c"] if record else []
        left_out = ("link.c", "serve.c", "sgd.c") if record else ("link.c", "serve.c")
        includes = [f"-I{folder}" for folder in (project / "src", *(path.parent for path in more))]
        command = [compiler(), *options, *includes, *map(str, (*own, *more))]
        command += map(str, runtime_objects(options, left_out))
        subprocess.run([*command, "-shared", "-o", str(library), "-lm"], check=True)
        self.lib = ctypes.CDLL(str(library))
        self.lib.probe_planned.restype = ctypes.POINTER(ctypes.c_uint8)
        if record:
            self._allocate_record()

    def _allocate_record(self) -> None:
        starts = np.cumsum([0] + [c.channels * c.cost.weights for c in self.plan.candidates])
        self.starts = starts.astype(np.uint32)
        self.record = np.zeros(int(starts[-1]) + self.plan.state.biases, np.float64)
        self.biases = self.record[starts[-1] :]
        places = {"mdy_recorded": self.record, "mdy_recorded_start": self.starts, "mdy_recorded_biases": self.biases}
        for name, array in places.items():
            pointer = ctypes.c_void_p.in_dll(self.lib, name)
            pointer.value = array.ctypes.data

    def init(self, seed: int = 0, rate_mult: int = 1 << 14, rate_exponent: int = -64, clip: float = 0.0) -> None:
        """Factory state."""
        code = pack(round(clip * 2**NORM_BITS))
        assert self.lib.probe_init(ctypes.c_uint32(seed), rate_mult, rate_exponent, code) == 0

    def step(self, sample: NDArray[np.int8], label: Any) -> float:
        """One training step towards a class or a vector; returns the loss, in nats for classes."""
        loss = ctypes.c_uint32()
        data, vector = np.ascontiguousarray(sample), np.ndim(label) == 1
        target = np.round(np.asarray(label, np.float64) * 65536).astype(np.int32) if vector else None
        address = None if target is None else target.ctypes.data_as(ctypes.c_void_p)
        number = 0 if vector else int(label)
        assert self.lib.probe_step(data.ctypes.data_as(ctypes.c_void_p), number, address, ctypes.byref(loss)) == 0
        return loss.value / 65536

    def infer(self, sample: NDArray[np.int8]) -> NDArray[np.int32]:
        """Logits, Q16."""
        logits = np.zeros(self.plan.head.classes if self.plan.head else 1, np.int32)
        data = np.ascontiguousarray(sample)
        assert self.lib.probe_infer(data.ctypes.data_as(ctypes.c_void_p), logits.ctypes.data_as(ctypes.c_void_p)) == 0
        return logits

    def output(self, sample: NDArray[np.int8]) -> NDArray[np.int8]:
        """What inference without a head gives."""
        self.infer(sample)
        return self.tensor(self.plan.qgraph.graph.output)

    def digests(self) -> tuple[int, ...]:
        """Of losses, selections, state and deltas."""
        out = np.zeros(4, np.uint32)
        self.lib.probe_digests(out.ctypes.data_as(ctypes.c_void_p))
        return tuple(int(word) for word in out)

    def end_epoch(self) -> None:
        """Commits, and draws the next selection."""
        assert self.lib.probe_end_epoch() == 0

    def exponents(self) -> NDArray[np.int16]:
        """Predicted exponents of all slots, 1/16 octaves."""
        out = np.zeros(max(1, self.plan.state.slots), np.int16)
        self.lib.probe_exponents(out.ctypes.data_as(ctypes.c_void_p))
        return out

    def gradient_step(self, sample: NDArray[np.int8], label: Any, passes: int) -> None:
        """Adds one sample's gradients to the record; the exponents may settle over `passes` before."""
        before = self.record.copy()
        for _ in range(passes):
            last = self.exponents()
            self.step(sample, label)
            if np.array_equal(last, self.exponents()):
                break
            self.record[:] = before
        else:
            self.step(sample, label)

    def tensor(self, name: str) -> NDArray[np.int8]:
        """A tensor that is still alive in the planned region."""
        shape = self.plan.qgraph.graph.shapes[name]
        offset = self.plan.layout.offsets[ids.tensor(name)]
        raw = np.ctypeslib.as_array(self.lib.probe_planned(), (self.plan.layout.planned_bytes,))
        return raw[offset : offset + int(np.prod(shape))].view(np.int8).reshape(shape).copy()

    def weight_gradient(self, index: int) -> NDArray[np.float64]:
        """Recorded dL/dW_q of the index-th candidate, in the layout of its weight, without M[o]."""
        candidate = self.plan.candidates[index]
        graph = self.plan.qgraph.graph
        node = next(n for n in graph if n.name == candidate.layer)
        weight = self.plan.weights[node.weight_name("weight")]
        part = self.record[self.starts[index] : self.starts[index + 1]]
        kernel: Any = node.attrs.kernel  # type: ignore[attr-defined]
        if node.op == "conv2d":
            groups = node.attrs.groups  # type: ignore[attr-defined]
            shaped = part.reshape(groups, weight.shape[3], *kernel, weight.shape[0] // groups)
            return np.ascontiguousarray(shaped.transpose(0, 4, 2, 3, 1)).reshape(weight.shape)
        return np.ascontiguousarray(part.reshape(candidate.channels, *kernel).transpose(1, 2, 0))
