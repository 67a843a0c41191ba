# SPDX-License-Identifier: Apache-2.0
"""Files that nobody vouches for end in one error of medyate's own, before they take time or memory."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sqlite3
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from conftest import Cli
from fuzz.importers import changed_value
from medyate import artefact, datasets, files, frontends
from medyate.errors import ArtefactError, DataError, ModelError, UnsupportedOpError
from medyate.export.flatfile import Options
from medyate.export.trained import read_compiled
from medyate.oracle import oracle_for
from medyate.rank.lara import Ranking, rank
from medyate.run.train import Compiled
from medyate.study import spec
from medyate.study.store import Store, writing
from oracles import forms
from tflite_cases import CASES, Case


def npy(array: np.ndarray) -> bytes:
    part = io.BytesIO()
    np.lib.format.write_array(part, array, allow_pickle=True)
    return part.getvalue()


def header(text: str, content: bytes = bytes(4)) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode() + content


def archive(path: Path, members: dict[str, bytes], packed: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as out:
        for name, content in members.items():
            out.writestr(name, content)
    return path


X, Y = npy(np.zeros((4, 8, 8, 1), np.uint8)), npy(np.array([0, 1, 0, 1]))


# --- npz ---


@pytest.mark.parametrize(
    "member",
    [
        b"no array",
        npy(np.array([{}])),
        npy(np.zeros(3, "i4,f4")),
        header("{'descr':'<f4','fortran_order':False,'shape':(1000000000000,1000000)}"),
        header("{'descr':'<f4','fortran_order':False,'shape':(-1,)}"),
        header("{'descr':'<f4','fortran_order':False,'shape':(True,)}"),
        header("{'descr':('<f4',(2,2)),'fortran_order':False,'shape':()}"),
        header("{[]:1}"),
        header("("),
        header("(" * 9000),
        header("-" * 9000 + "1"),
        header("'''"),
        header("'\\d'"),
    ],
)
def test_a_member_that_is_no_array_is_refused(member: bytes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no readable npz"):
        datasets.load(str(archive(tmp_path / "x.npz", {"x.npy": member, "y.npy": Y})))


def test_archives_that_are_encrypted_packed_otherwise_or_hold_more_are_refused(tmp_path: Path) -> None:
    plain = archive(tmp_path / "x.npz", {"x.npy": X, "y.npy": Y})
    assert len(datasets.load(str(plain), 0.5).x_train) == 2
    content = bytearray(plain.read_bytes())
    content[content.find(b"PK\1\2") + 8] |= 1
    plain.write_bytes(content)
    with pytest.raises(DataError, match="encrypted"):
        datasets.load(str(plain))
    for packed in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with pytest.raises(DataError, match="unknown way"):
            datasets.load(str(archive(plain, {"x.npy": X, "y.npy": Y}, packed)))
    with pytest.raises(DataError, match=r"'notes.txt' is no array"):
        datasets.load(str(archive(plain, {"x.npy": X, "y.npy": Y, "notes.txt": b"mine"})))


def test_an_archive_is_not_unpacked_beyond_a_bound(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out, out.open("x.npy", "w", force_zip64=True) as member:
        for _ in range(1100):
            member.write(bytes(1 << 20))
    assert path.stat().st_size < 2 << 20
    with pytest.raises(DataError, match="larger than 1,073,741,824 B"):
        datasets.load(str(path))
    many = b"".join(b"PK\1\2" + bytes(42) for _ in range(40_000))
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 40_000, 40_000, len(many), 0, 0)
    path.write_bytes(many + end)
    with pytest.raises(DataError, match="too many members"):
        datasets.load(str(path))


# --- what is no file ---


@pytest.mark.parametrize("kind", ["fifo", "device", "folder", "loop"])
def test_what_is_no_regular_file_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    readers: dict[str, Callable[[Path], Any]] = {
        **dict.fromkeys(("x.tflite", "x.onnx", "x.pt2", "x.pkl"), frontends.load),
        "x.npz": artefact.read_arrays,
        "x.json": artefact.read_json,
        "x.toml": spec.read,
        "x.sqlite": lambda path: Store(path, create=True),
    }
    for name, reader in readers.items():
        path = tmp_path / name
        {
            "fifo": os.mkfifo,
            "device": lambda path: path.symlink_to("/dev/zero"),
            "folder": lambda path: path.mkdir(),
            "loop": lambda path: path.symlink_to(path),
        }[kind](path)
        with pytest.raises((ModelError, ArtefactError, DataError), match=r"no regular file|cannot be read|no readable"):
            reader(path)


def test_names_that_no_file_can_have_are_refused() -> None:
    for name in ("a" * 5000, "a" * 5000 + ".npz", "a\0b.npz"):
        with pytest.raises(DataError):
            datasets.load(name)


# --- images ---


def png(width: int, height: int) -> bytes:
    """A header that promises more than follows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    sizes = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", sizes) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def test_pixels_are_counted_before_they_are_unpacked(tmp_path: Path) -> None:
    (tmp_path / "one" / "a").mkdir(parents=True)
    for width, height, words in (
        (50_000, 50_000, "too many pixels"),
        (5_000, 5_000, "too many to be read"),
        (2**31 - 1, 2**31 - 1, "no readable image|too many pixels"),
        (300, 300, "no readable image"),
    ):
        (tmp_path / "one" / "a" / "0.png").write_bytes(png(width, height))
        with pytest.raises(DataError, match=words):
            datasets.load(str(tmp_path / "one"))
    for name in ("c0", "c1"):
        (tmp_path / "all" / name).mkdir(parents=True)
    Image.fromarray(np.zeros((2000, 2000, 3), np.uint8)).save(tmp_path / "all" / "c0" / "0.png")
    for number in range(100):
        (tmp_path / "all" / "c1" / f"{number}.png").symlink_to(tmp_path / "all" / "c0" / "0.png")
    with pytest.raises(DataError, match=r"101 images.*1,212,000,000 B"):
        datasets.load(str(tmp_path / "all"))


def test_only_images_are_read_as_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a" / "0.tiff")
    (tmp_path / "a" / "0.tiff").rename(tmp_path / "a" / "0.png")
    with pytest.raises(DataError, match="no readable image"):
        datasets.load(str(tmp_path))


# --- JSON and TOML ---


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, '{"a": NaN}', '{"a": 1e999}', '{"a": ' + "9" * 5000 + "}", "[]", "\xff"]
)
def test_json_that_nothing_wrote_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ArtefactError, match=r"cannot be read as JSON|holds no JSON object"):
        artefact.read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000,
        "x = 1\n" * 2,
        "[grid]\nnetwork = [2024-01-01]\ndata = ['digits']\nstrategy = ['head']\nseed = [0]\nrate = [0.1]",
        "[grid]\nnetwork = ['a']\ndata = [[[]]]\nstrategy = ['head']\nseed = [0]\nrate = [0.1]",
        "[grid]\nnetwork = ['a']\ndata = ['digits']\nstrategy = [{name = 'su', scheme = 5}]\nseed = [0]\nrate = [0.1]\n"
        "budget = [100]",
        "[grid]\nnetwork = ['a']\ndata = ['digits']\nstrategy = ['head']\nseed = [0]\nrate = [inf]",
        "[grid]\nnetwork = ['a']\ndata = ['digits']\nstrategy = ['trady']\nboost = [3]\nseed = [0]\nrate = [0.1]",
        f"[grid]\nnetwork = ['a']\ndata = ['digits']\nstrategy = ['head']\nseed = {list(range(400))}\nrate = "
        f"{[0.1] * 400}",
    ],
)
def test_a_study_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(DataError):
        spec.read(tmp_path / "x.toml")


# --- what compile left ---


def edited(compiled: Compiled, folder: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A copy of a compiled folder in which one file says something else."""
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(compiled.folder, out, ignore=shutil.ignore_patterns("*.o"))
    content = json.loads((out / name).read_text())
    change(content)
    (out / name).write_text(json.dumps(content))
    return out


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("model.json", "image", "../../../bin/true"),
        ("model.json", "image", "/bin/true"),
        ("model.json", "image", "project"),
        ("model.json", "image", "a\0b"),
        ("model.json", "image", 3),
        ("model.json", "digest", "x"),
        ("model.json", "digest", -1),
        ("model.json", "input", [0.0, 0]),
        ("model.json", "input", [0.1, 500]),
        ("model.json", "input_shape", [8, 8]),
        ("model.json", "input_shape", [1 << 40, 1 << 40, 1]),
        ("model.json", "classes", "abcd"),
        ("model.json", "outputs", 1 << 60),
        ("model.json", "outputs", True),
        ("model.json", "split", 1.5),
        ("model.json", "flash_runs", [[1 << 40, 1 << 40]]),
        ("model.json", "flash_unit_bytes", 3),
        ("model.json", "pixels", [None, 1]),
        ("05_plan.json", "weights", "rom"),
        ("05_plan.json", "classes", 5),
        ("05_plan.json", "candidates", [{"layer": "x"}]),
        ("05_plan.json", "candidates", 7),
        ("05_plan.json", "batch", 0),
        ("05_plan.json", "biases", [None]),
    ],
)
def test_an_artefact_that_compile_did_not_write_is_refused(
    tiny_host: Compiled, tmp_path: Path, run_cli: Cli, name: str, key: str, value: Any
) -> None:
    out = edited(tiny_host, tmp_path, name, lambda content: content.update({key: value}))
    ended = run_cli("run", out, "--data", tiny_host.folder.parent / "data.npz")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("medyate: ") and len(ended.err.splitlines()) == 2, ended.err


def test_a_stage_with_any_one_value_changed_reads_or_is_refused(tiny_host: Compiled, tmp_path: Path) -> None:
    out = edited(tiny_host, tmp_path, "model.json", lambda _: None)
    chance = random.Random(3)
    for name in ("model.json", "05_plan.json", "03_quantised.json"):
        original = json.loads((out / name).read_text())
        for _ in range(150):
            (out / name).write_text(json.dumps(changed_value(original, chance)))
            try:
                read_compiled(Compiled.read(out))
            except ArtefactError:
                continue
        (out / name).write_text(json.dumps(original))


@pytest.mark.parametrize("change", ["nan", "negative", "twice", "text", "missing"])
def test_a_ranking_with_impossible_entries_is_refused(change: str) -> None:
    from medyate.rank.collect import GradientNorms
    from medyate.rank.lara import channel_costs

    graph = frontends.load(Path(__file__).parents[2] / "models" / "digitnet" / "digitnet.onnx").graph
    made = rank(graph, "x", {name: GradientNorms(1.0, 2.0) for name in channel_costs(graph)}).to_json()
    assert Ranking.from_json(made, graph).to_json() == made
    first = made["layers"][0]
    if change == "twice":
        made["layers"].append(first)
    elif change == "missing":
        del made["layers"][0]
    else:
        first["lara"] = {"nan": float("nan"), "negative": -1.0, "text": "much"}[change]
    with pytest.raises(ArtefactError, match=r"the ranking is damaged|another architecture"):
        Ranking.from_json(made, graph)


# --- results of studies ---


@pytest.mark.parametrize("kind", ["text", "null", "no json", "other json", "page", "half", "view", "cut"])
def test_a_damaged_result_file_is_refused(kind: str, tmp_path: Path, run_cli: Cli) -> None:
    path = tmp_path / "x.sqlite"
    with writing(path) as store:
        store.add_ranking("k", {"layers": []})
    with sqlite3.connect(path) as db:
        if kind in ("null", "no json", "other json"):
            cell = {"null": "null", "no json": "{", "other json": "{}"}[kind]
            for number in range(3):
                db.execute("INSERT INTO results VALUES (?, ?, NULL, NULL, 1)", (str(number), cell))
        elif kind == "view":
            db.execute("DROP TABLE results")
            db.execute("CREATE VIEW results AS SELECT 1 AS cell, 2 AS result, 3 AS error")
        elif kind == "half":
            db.execute("DROP TABLE results")
        else:
            db.executemany("INSERT INTO rankings VALUES (?, ?)", [(str(n), '"' + "x" * 900 + '"') for n in range(90)])
    db.close()
    content = bytearray(path.read_bytes())
    if kind == "text":
        content = bytearray(b"this is no database, however long it may be")
    elif kind == "page":
        content[4096:-4096] = b"\xa5" * len(content[4096:-4096])
    elif kind == "cut":
        content = content[: len(content) // 2]
    path.write_bytes(content)
    ended = run_cli("study", "report", path)
    assert (ended.code, ended.out) == (2, ""), ended
    assert len(ended.err.splitlines()) == 2


def test_a_result_file_that_was_half_made_is_made_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE rankings (key TEXT PRIMARY KEY, ranking TEXT NOT NULL)")
    db.close()
    with writing(path) as store:
        assert store.results() == []


# --- models ---


def program(folder: Path, module: nn.Module, *shape: int, dtype: torch.dtype = torch.float32) -> Path:
    path = folder / "net.pt2"
    torch.export.save(torch.export.export(module.to(dtype).eval(), (torch.randn(1, *shape).to(dtype),)), path)
    return path


def changed_program(path: Path, change: Callable[[str, Any], Any], packed: int = zipfile.ZIP_STORED) -> None:
    """The program with other JSON, and its archive made anew."""
    with zipfile.ZipFile(path) as file:
        members = {member.filename: file.read(member) for member in file.infolist()}
    for name, content in members.items():
        if name.endswith(".json"):
            value = json.loads(content)
            members[name] = json.dumps(change(name, value) or value).encode()
    archive(path, members, packed)


def test_a_program_asks_for_no_more_than_a_bound(tmp_path: Path) -> None:
    def widen(name: str, value: Any) -> None:
        for entry in value["config"].values() if name.endswith("_config.json") else ():
            entry["tensor_meta"]["sizes"][0]["as_int"] = 1 << 40
            entry["tensor_meta"]["strides"][0]["as_int"] = 0

    path = program(tmp_path, nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), 8)
    frontends.load(path)
    changed_program(path, widen)
    with pytest.raises(ModelError, match="larger than"):
        frontends.load(path)
    name = "net/data/weights/weight_0"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as out, out.open(name, "w", force_zip64=True) as member:
        for _ in range(1100):
            member.write(bytes(1 << 20))
    with pytest.raises(ModelError, match="larger than"):
        frontends.load(path)


def test_no_text_of_a_program_is_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    code = f"__import__('pathlib').Path('{sprung}').touch()"

    def inject(name: str, value: Any) -> Any:
        if "/models/" not in name:
            return value
        value["guards_code"] = [f"{code} is None"]
        return value

    def inject_size(name: str, value: Any) -> Any:
        if "/models/" not in name:
            return value
        for known in value["graph_module"]["graph"]["tensor_values"].values():
            known["sizes"][0] = {"as_expr": {"expr_str": code, "hint": {"as_int": 1}}}
        return value

    module = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
    path = program(tmp_path, module, 8)
    changed_program(path, inject)
    outputs = oracle_for(path)(path, forms(np.zeros((2, 1, 1, 8), np.float32)))
    assert outputs.shape == (2, 4)
    path = program(tmp_path, module, 8)
    changed_program(path, inject_size)
    with pytest.raises(ModelError, match="more than tensors and a graph"):
        frontends.load(path)
    assert not sprung.exists()


def test_a_program_of_half_precision_runs_as_it_is(tmp_path: Path) -> None:
    path = program(tmp_path, nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), 8, dtype=torch.float16)
    assert oracle_for(path)(path, forms(np.ones((2, 1, 1, 8), np.float32))).dtype == np.float16


@pytest.mark.parametrize("case", [case for case in CASES if case.constants], ids=lambda case: case.kind)
def test_an_operator_with_short_constants_is_named_and_not_called_damage(case: Case, tmp_path: Path) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(case.file())
    frontends.load(path)
    for place, constant in enumerate(case.constants):
        constants = [*case.constants]
        constants[place] = np.concatenate([constant, constant]) if constant.size == 1 else constant[:-1]
        path.write_bytes(replace(case, constants=constants).file())
        try:
            frontends.load(path)
        except UnsupportedOpError as error:
            assert error.node.rstrip("_").encode() in path.read_bytes()  # a tensor of the file
        except ModelError as error:
            pytest.fail(f"called damaged: {error}")


def test_a_concatenation_of_five_axes_is_not_supported(tmp_path: Path) -> None:
    case = Case("CONCATENATION", (1, 1, 6, 4, 6), (), Options("ConcatenationOptions", {"Axis": 4}), twice=True)
    (tmp_path / "net.tflite").write_bytes(case.file())
    with pytest.raises(UnsupportedOpError, match=r"CONCATENATION.*5 axes"):
        frontends.load(tmp_path / "net.tflite")


def test_the_boundary_lets_mistakes_of_its_own_through() -> None:
    with pytest.raises(AssertionError), files.boundary(DataError, "x", "y"):
        raise AssertionError
    with pytest.raises(DataError, match=r"x \('z'\)"), files.boundary(DataError, "x", "y"):
        raise KeyError("z")
