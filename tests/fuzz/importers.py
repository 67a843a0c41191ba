# SPDX-License-Identifier: Apache-2.0
"""Damaged files for every reader: something sound or an error of medyate's own, in bounded time and memory.

    python tests/fuzz/importers.py --minutes 60 [--seed 7] [--only .onnx] [--keep build/fuzz]

Files are changed byte by byte, cut, and, where they are text or an archive, in their values with checksums made anew.
A child process reads them one after the other; one that dies, hangs or grows is a finding, as any other error is.
Findings are kept as files. Exit code 1 if there are any.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import os
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
for place in (TESTS, TESTS.parent / "compiler"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))

import onnx  # noqa: E402
import torch  # noqa: E402

import checkpoint_files  # noqa: E402
import shared_files  # noqa: E402
from medyate import artefact, datasets, frontends  # noqa: E402
from medyate.check import quantised_form  # noqa: E402
from medyate.errors import MedyateError  # noqa: E402
from medyate.export import onnx as onnx_writer  # noqa: E402
from medyate.export import tflite as tflite_writer  # noqa: E402
from medyate.export.trained import read_compiled  # noqa: E402
from medyate.graph_json import quantised_from_json  # noqa: E402
from medyate.passes.pipeline import normalise, simplify  # noqa: E402
from medyate.rank.lara import Ranking  # noqa: E402
from medyate.run.train import Compiled  # noqa: E402
from medyate.study import spec  # noqa: E402
from tiny import compile_tiny  # noqa: E402

SECONDS_MAX = 20.0
MEMORY_MAX = 2 << 30
"""Resident bytes of the child, with Python and PyTorch in it."""
GUARD = 3 << 30
"""Bytes of address space on top of what it has at the start."""
PUBLISHED = {
    "kws.tflite": "models/kws_dscnn_int8.tflite",
    "ad.tflite": "models/ad01_int8.tflite",
    "uint8.tflite": "models/mobilenet_v1_0.25_128_quant_uint8.tflite",
    "ic.onnx": "models/ic_resnet8_cifar10_float.onnx",
    "resnet20.th": "models/resnet20-12fca82f.th",
}
STUDY = """
name = "few"
epochs = 2
[grid]
network = ["net.onnx"]
data = ["digits", {path = "x.npz", epochs = 3}]
strategy = ["medyate", {name = "su", scheme = "49kb"}]
budget = [1000]
seed = [0, 1]
rate = [0.01]
"""


@dataclass(frozen=True)
class Seed:
    """A sound file."""

    name: str
    content: bytes
    folder: Path | None = None
    """Of the other files that are read with it."""


def seeds(folder: Path) -> list[Seed]:
    """One or more for every suffix; published networks too, where they lie beside the repository."""
    compiled = compile_tiny(folder)
    out = compiled.folder
    whole = simplify(frontends.load(folder / "tiny.pt2"))
    quantised = quantised_form(whole, None, None, 0)
    tflite_writer.write(*quantised, folder / "tiny.tflite")
    onnx_writer.write(*quantised, folder / "tiny.onnx")
    torch.save(checkpoint_files.network(), folder / "net.pkl")
    (folder / "study.toml").write_text(STUDY)
    found = [folder / name for name in ("tiny.pt2", "tiny.tflite", "tiny.onnx", "net.pkl", "data.npz", "study.toml")]
    found.append(TESTS.parent / "models" / "digitnet" / "digitnet.onnx")
    kept = [Seed(path.name, path.read_bytes()) for path in found]
    for path in (shared_files.ROOT.parent / "shared" / place for place in PUBLISHED.values()):
        if path.exists():
            kept.append(Seed(path.name, path.read_bytes()))
    names = ("model.json", "05_plan.json", "03_quantised.json", "03_quantised.npz", "01_import.json", "04_ranking.json")
    return kept + [Seed(name, (out / name).read_bytes(), out) for name in names]


# --- what is done to a file ---

NUMBERS = (0, 1, 2, 3, 5, 127, 128, 255, 256, 32767, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)
VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 7, 1 << 31, 1 << 62, 1 << 200, -0.5, 1e308, 1e-308, float("nan"), float("inf")),
    *("", "x", "../../../etc/passwd", "\0", "\ud800", "a" * 5000, [], {}, [[]], {"": None}, [0, 0, 0], [1 << 40] * 3),
)


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    """Some bytes flipped, cut off, overwritten, repeated, moved or taken out."""
    out = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 12))):
        if not out:
            break
        at, length = chance.randrange(len(out)), chance.choice((1, 2, 4, 8, 64, 1024))
        kind = chance.randrange(8)
        if kind == 0:
            out[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            out[at] = chance.randrange(256)
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at : at + length]
        elif kind == 4:
            out[at:at] = out[at : at + length]
        elif kind == 5:
            other = chance.randrange(len(out))
            out[at : at + length] = out[other : other + length]
        else:
            at = at // 4 * 4 if kind == 6 else at
            word = struct.pack("<I", chance.choice(NUMBERS))
            out[at : at + 4] = word[: len(out) - at]
    return bytes(out)


def changed_value(content: Any, chance: random.Random) -> Any:
    """JSON with one value, somewhere, replaced, doubled, taken out or swapped for another."""
    place, content = content, json.loads(json.dumps(content))
    place = content
    while True:
        keys: list[Any] = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return content
        key = chance.choice(keys)
        inner = place[key]
        if isinstance(inner, (dict, list)) and inner and chance.random() < 0.85:
            place = inner
            continue
        kind = chance.randrange(6)
        if kind == 0:
            del place[key]
        elif kind == 1:
            place[key] = place[chance.choice(keys)]
        elif kind == 2 and isinstance(place, list):
            place.insert(key, inner)
        else:
            place[key] = chance.choice(VALUES)
        return content


def changed_json(content: bytes, chance: random.Random) -> bytes:
    """A text with other values, or so deep that a reader may not follow."""
    if chance.random() < 0.01:
        return (b"[" if chance.random() < 0.5 else b'{"a":') * chance.choice((500, 100_000))
    value = json.loads(content)
    for _ in range(chance.choice((1, 1, 2, 5))):
        value = changed_value(value, chance) if isinstance(value, (dict, list)) else value
    return json.dumps(value).encode()


def changed_zip(content: bytes, chance: random.Random) -> bytes:
    """An archive with changed, missing or doubled members, sound as an archive."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(member.filename, archive.read(member)) for member in archive.infolist()]
    at = chance.randrange(len(members))
    name, inner = members[at]
    kind = chance.randrange(10)
    if kind == 0:
        del members[at]
    elif kind == 1:
        members.append((name, inner))
    elif kind == 2:
        members[at] = (chance.choice((name + "x", "../" + name, name.upper(), "dir/")), inner)
    elif name.endswith(".json") and inner:
        members[at] = (name, changed_json(inner, chance))
    else:
        members[at] = (name, changed_bytes(inner, chance))
    out = io.BytesIO()
    packed = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", packed) as archive:
        warnings.simplefilter("ignore")  # about doubled members
        for member, text in members:
            archive.writestr(member, text)
    return out.getvalue()


def changed_onnx(content: bytes, chance: random.Random) -> bytes:
    """A model with other attributes, sizes, types or names, sound as a message."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    for _ in range(chance.choice((1, 1, 2, 4))):
        node, tensor = chance.choice(graph.node), chance.choice(graph.initializer)
        attribute = chance.choice(node.attribute) if node.attribute else onnx.AttributeProto()
        number = chance.choice((-1, *NUMBERS, 1 << 40, -(1 << 62)))
        number = max(-(1 << 62), number)
        names = [value for other in graph.node for value in (*other.input, *other.output)] + ["", "none"]
        kind = chance.randrange(10)
        if kind == 0 and attribute.ints:
            attribute.ints[chance.randrange(len(attribute.ints))] = number
        elif kind == 1 and attribute.ints:
            del attribute.ints[chance.randrange(len(attribute.ints)) :]
        elif kind == 2:
            attribute.i = number
        elif kind == 3:
            attribute.f = chance.choice((0.0, -1.0, 1e38, float("nan"), float("inf")))
        elif kind == 4 and node.input:
            node.input[chance.randrange(len(node.input))] = chance.choice(names)
        elif kind == 5 and node.output:
            node.output[0] = chance.choice(names)
        elif kind == 6:
            node.op_type = chance.choice(graph.node).op_type
        elif kind == 7 and tensor.dims:
            tensor.dims[chance.randrange(len(tensor.dims))] = number
        elif kind == 8:
            tensor.data_type = chance.randrange(24)
        elif kind == 9:
            del node.input[chance.randrange(len(node.input) + 1) :]
    return bytes(model.SerializeToString())


WAYS: dict[str, tuple[Callable[[bytes, random.Random], bytes], ...]] = {
    ".json": (changed_json, changed_bytes),
    ".npz": (changed_zip, changed_bytes),
    ".pt2": (changed_zip, changed_zip, changed_bytes),
    ".pkl": (changed_zip, changed_bytes),
    ".onnx": (changed_onnx, changed_bytes),
}


def changed(seed: Seed, chance: random.Random) -> bytes:
    """A damaged variant."""
    return chance.choice(WAYS.get(Path(seed.name).suffix, (changed_bytes,)))(seed.content, chance)


# --- who reads it ---


def read(path: Path) -> None:
    """What the commands do with such a file first."""
    if path.name in ("model.json", "05_plan.json", "03_quantised.json", "03_quantised.npz"):
        read_compiled(Compiled.read(path.parent))
    elif path.name == "04_ranking.json":
        graph = quantised_from_json(artefact.read_json(path.with_name("03_quantised.json"))).graph
        Ranking.from_json(artefact.read_json(path), graph)
    elif path.suffix == ".json":
        quantised_from_json({**artefact.read_json(path), "quant": {}})
    elif path.suffix == ".npz":
        dataset = datasets.load(str(path)).check((8, 8, 1))
        dataset.warnings()
    elif path.suffix == ".toml":
        spec.read(path)
    else:
        normalise(frontends.load(path))


def resident(what: str) -> int:
    """Bytes of this process in memory: VmRSS, or the most that there were, VmHWM."""
    found = re.search(rf"{what}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def serve(pipe: Any) -> None:
    """Reads files as they are named; answers with the error's class and text, or '', and how far memory has grown."""
    torch.set_num_threads(1)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + GUARD, used + GUARD))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 2)  # what libraries say of damaged files
    Path("/proc/self/clear_refs").write_text("5")  # the mark of the process that this one was forked from
    start = resident("VmRSS")
    while (path := pipe.recv()) is not None:
        found = "read"
        try:
            read(Path(path))
        except MedyateError as error:
            found = "refused" if error.what and error.remedy else "an error that says nothing"
        except BaseException:  # noqa: BLE001  # that is what is looked for
            found = traceback.format_exc()
        pipe.send((found, resident("VmHWM") - start))


class Reader:
    """The child, started anew where it died."""

    def __init__(self) -> None:
        self.context = multiprocessing.get_context("fork")
        self.start()

    def start(self) -> None:
        """A fresh one, from this process as it is."""
        self.pipe, far = self.context.Pipe()
        self.process = self.context.Process(target=serve, args=(far,), daemon=True)
        self.process.start()
        far.close()

    def stop(self) -> None:
        """Ends it."""
        self.process.kill()
        self.process.join()
        self.pipe.close()

    def read(self, path: Path) -> str:
        """'read', 'refused', or what is wrong."""
        self.pipe.send(str(path))
        try:
            if not self.pipe.poll(SECONDS_MAX):
                found, memory = f"it took more than {SECONDS_MAX:g} s", 0
            else:
                found, memory = self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            found, memory = f"the reader died ({self.process.exitcode})", 0
        if memory > MEMORY_MAX:
            found = f"it took {memory:,} B"
        if found not in ("read", "refused"):
            self.stop()
            self.start()
        return found


@dataclass
class Tally:
    """What came of it."""

    executions: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    findings: dict[str, str] = field(default_factory=dict)
    """What is wrong, by the file that shows it."""


def fuzz(minutes: float, seed: int, keep: Path, only: str = "") -> Tally:
    """Tries damaged files for so long, each kind of file equally often."""
    tally, chance = Tally(), random.Random(seed)
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        torch.set_num_threads(1)
        sound = [one for one in seeds(folder) if one.name.endswith(only)]
        by_suffix: dict[str, list[Seed]] = {}
        for one in sound:
            by_suffix.setdefault(Path(one.name).suffix, []).append(one)
            read_sound(one, folder)
        reader, end = Reader(), time.monotonic() + 60 * minutes
        while time.monotonic() < end:
            chosen = chance.choice(by_suffix[chance.choice(list(by_suffix))])
            place = folder / "try" / chosen.name if chosen.folder is None else chosen.folder / chosen.name
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(changed(chosen, chance))
            found = reader.read(place)
            suffix = place.suffix
            tally.executions[suffix] += 1
            tally.outcomes[found if found in ("read", "refused") else "finding"] += 1
            if found not in ("read", "refused"):
                keep.mkdir(parents=True, exist_ok=True)
                kept = keep / f"{len(tally.findings):03}-{chosen.name}"
                shutil.copy(place, kept)
                tally.findings[str(kept)] = found
            if chosen.folder is not None:
                place.write_bytes(chosen.content)
        reader.stop()
    return tally


def read_sound(seed: Seed, folder: Path) -> None:
    """Raises what reading the sound file raises; a state dict has no graph and is refused."""
    place = folder / seed.name if seed.folder is None else seed.folder / seed.name
    place.write_bytes(seed.content)
    if place.suffix != ".th":
        read(place)


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="one suffix, like .onnx")
    parser.add_argument("--keep", type=Path, default=TESTS.parent / "build" / "fuzz")
    options = parser.parse_args()
    tally = fuzz(options.minutes, options.seed, options.keep, options.only)
    for suffix, count in sorted(tally.executions.items()):
        print(f"{suffix:8} {count:,}")
    print(f"{sum(tally.executions.values()):,} files: {dict(tally.outcomes)}")
    for place, what in tally.findings.items():
        print(f"\n{place}\n{what}")
    return 1 if tally.findings else 0


if __name__ == "__main__":
    sys.exit(main())
