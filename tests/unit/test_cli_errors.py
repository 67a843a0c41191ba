# SPDX-License-Identifier: Apache-2.0
"""The user's mistakes end in exit code 2 and two sentences: what is wrong, what to do; nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import DIGITNET, REPOSITORY, Cli, Ended
from medyate import __version__, artefact, datasets
from medyate.boards import BOARDS, Area, Board, Flash, Sectors
from medyate.errors import ArtefactError, DataError
from medyate.run.train import Compiled


def assert_refused(ended: Ended, *words: str) -> None:
    """Exit code 2, nothing on standard output, one line on what is wrong and one on what to do."""
    assert ended.code == 2, ended
    assert ended.out == ""
    assert "Traceback" not in ended.err
    lines = ended.err.rstrip("\n").split("\n")
    assert len(lines) == 2, ended.err
    assert lines[0].startswith("medyate: ")
    assert lines[1].startswith("  ")
    assert lines[0].endswith(".")
    for word in words:
        assert word in ended.err, f"'{word}' is not in: {ended.err}"


def shell(*arguments: object, **environment: str) -> Ended:
    """The command in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "medyate.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY / "compiler"), "OMP_NUM_THREADS": "1", **environment},
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def arrays(path: Path) -> dict[str, Any]:
    with np.load(path) as archive:
        return dict(archive)


def with_changes(small: Path, folder: Path, **changes: Any) -> Path:
    """The small set with other arrays; None leaves one out."""
    content = {name: value for name, value in {**arrays(small), **changes}.items() if value is not None}
    np.savez(folder / "changed.npz", **content)
    return folder / "changed.npz"


def images(folder: Path, sizes: dict[str, tuple[int, int]]) -> Path:
    """Class folders with images; "class/name.png": (width, height)."""
    random = np.random.default_rng(0)
    for name, (width, height) in sizes.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (height, width, 3), np.uint8)).save(file)
    return folder


# The machine


def test_a_budget_that_is_too_small_says_what_takes_it_and_what_would_do(tmp_path: Path, small_digits: Path) -> None:
    ended = shell("compile", DIGITNET, "--data", small_digits, "--ram", "8KiB", "-o", tmp_path / "out")
    assert_refused(ended, "8,192 B of RAM leave 0 B", "activations", "Give about", "04_ranking.json")
    assert not (tmp_path / "out" / "model.json").exists()


def test_the_ram_that_the_remedy_names_is_enough(run_cli: Cli, small_digits: Path) -> None:
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--ram", "8KiB")
    wanted = ended.err.split("Give about ")[1].split(" B")[0].replace(",", "")
    assert run_cli("plan", DIGITNET, "--data", small_digits, "--ram", wanted).code == 0


def test_a_budget_below_the_asked_elements_is_refused(run_cli: Cli, small_digits: Path) -> None:
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--ram", "24KiB", "--min-elements", 50_000)
    assert_refused(ended, "for 50,000 elements", "ask for less")


def test_a_missing_cross_compiler_names_the_package(tmp_path: Path, small_digits: Path) -> None:
    ended = shell(
        "compile", DIGITNET, "--data", small_digits, "--target", "qemu-m4", "-o", tmp_path / "out", PATH=str(tmp_path)
    )
    assert_refused(ended, "'arm-none-eabi-gcc' is not installed", "apt-get install gcc-arm-none-eabi")
    assert not (tmp_path / "out" / "model.json").exists()


def test_a_missing_host_compiler_names_the_package(
    tmp_path: Path, small_digits: Path, run_cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = run_cli("compile", DIGITNET, "--data", small_digits, "-o", tmp_path / "out")
    assert_refused(ended, "'make' is not installed", "apt-get install make")


def test_a_missing_emulator_names_the_package(
    tmp_path: Path, run_cli: Cli, digitnet_host: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = shutil.copytree(digitnet_host.folder, tmp_path / "out")
    artefact.write_json(out / "model.json", {**digitnet_host.model, "target": "qemu-m4"})
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = run_cli("run", out, "--data", "digits", "--on", "qemu")
    assert_refused(ended, "'qemu-system-arm' is not installed", "apt-get install")


def test_doctor_says_what_is_missing(run_cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    ended = run_cli("doctor", "--json")
    assert ended.code == 2
    assert not json.loads(ended.out)["qemu-system-arm"]["installed"]


def test_a_full_disk_leaves_the_old_file_intact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "plan.json"
    artefact.write_bytes(path, b"old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtefactError, match="No space left on device"):
        artefact.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("at", ["create", "write", "replace"])
def test_a_disk_that_refuses_at_any_moment_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = tmp_path / "plan.json"
    artefact.write_bytes(path, b"old")
    original = tempfile.NamedTemporaryFile

    def full(*_: object, **__: object) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def unwritable(*args: Any, **kwargs: Any) -> Any:
        file = original(*args, **kwargs)
        file.write = full
        return file

    patches = {
        "create": (tempfile, "NamedTemporaryFile", full),
        "write": (tempfile, "NamedTemporaryFile", unwritable),
        "replace": (os, "replace", full),
    }
    monkeypatch.setattr(*patches[at])
    with pytest.raises(ArtefactError, match="No space left on device"):
        artefact.write_bytes(path, b"new")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["plan.json"]


def test_a_full_disk_during_compile_is_reported(
    tmp_path: Path, run_cli: Cli, small_digits: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    ended = run_cli("compile", DIGITNET, "--data", small_digits, "-o", tmp_path / "out")
    assert_refused(ended, "No space left on device", "free space")
    assert not any(file.is_file() for file in (tmp_path / "out").rglob("*"))


def test_an_output_folder_that_is_a_file_is_refused(tmp_path: Path, run_cli: Cli, small_digits: Path) -> None:
    (tmp_path / "out").write_text("mine")
    ended = run_cli("compile", DIGITNET, "--data", small_digits, "-o", tmp_path / "out")
    assert_refused(ended, "cannot write")
    assert (tmp_path / "out").read_text() == "mine"


# Boards


def test_an_unknown_board_is_refused(run_cli: Cli, small_digits: Path) -> None:
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--board", "stm32f999")
    assert_refused(ended, "board 'stm32f999' is unknown", "stm32f405")


def test_a_target_is_no_board_to_plan_for(run_cli: Cli, small_digits: Path) -> None:
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--board", "qemu-m7")
    assert_refused(ended, "'qemu-m7' is a target", "stm32f746")


def test_more_ram_than_the_board_has_is_refused(run_cli: Cli, small_digits: Path) -> None:
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--board", "stm32f405", "--ram", "193KiB")
    assert_refused(ended, "--ram asks for 197,632 B, stm32f405 has 196,608 B", "Leave --ram out")


def test_a_board_says_itself_what_is_linked_against(run_cli: Cli, tmp_path: Path, small_digits: Path) -> None:
    options = ("--board", "stm32f405", "--board-ram", "64KiB", "-o", tmp_path / "out")
    ended = run_cli("compile", DIGITNET, "--data", small_digits, *options)
    assert_refused(ended, "--board stm32f405 says already", "Leave --board-ram out")


def small_board(areas: tuple[int, ...], *sectors: tuple[int, int]) -> Board:
    spaces = tuple(Area(f"RAM{number}", number << 20, size) for number, size in enumerate(areas))
    runs = tuple(Sectors(count, size, 1.0, 2.0) for count, size in sectors)
    return Board(
        "small", "for tests", "Cortex-M4", spaces, Flash(0, runs, 4, 1.0, 2.0, "x32", "confirmed", 10_000, 1, "tests")
    )


@pytest.mark.parametrize(
    ("board", "words"),
    [
        (small_board((6144, 4096), (64, 16384)), ("in areas (RAM0 6,144 B, RAM1 4,096 B) leave", "larger areas")),
        (
            small_board((65536,), (2, 16384)),
            ("a bank of", "larger than the 32,768 B of flash of small", "fewer"),
        ),
        (small_board((65536,), (4, 16384)), ("too few sectors", "4 of 16,384 B", "fewer layers")),
        (
            small_board((65536,), (10, 16384)),
            ("an image of", "two banks of", "do not fit the 163,840 B", "fewer"),
        ),
    ],
    ids=["areas", "bank", "sectors", "image"],
)
def test_a_board_that_is_too_small_says_what_is(
    run_cli: Cli, small_digits: Path, monkeypatch: pytest.MonkeyPatch, board: Board, words: tuple[str, ...]
) -> None:
    monkeypatch.setitem(BOARDS, "small", board)
    assert_refused(run_cli("plan", DIGITNET, "--data", small_digits, "--board", "small"), *words)


def test_a_picture_needs_a_name_that_says_its_kind(run_cli: Cli, small_digits: Path) -> None:
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--picture", "memory.bmp")
    assert_refused(ended, "'memory.bmp' is no name of a picture", ".svg")


def test_a_frontier_up_to_too_little_ram_says_what_would_do(run_cli: Cli, small_digits: Path) -> None:
    ended = run_cli("plan", DIGITNET, "--data", small_digits, "--frontier", "--ram", "8KiB")
    assert_refused(ended, "8,192 B of RAM leave 0 B", "Give about")


# The model


def test_a_truncated_model_is_refused(tmp_path: Path, small_digits: Path) -> None:
    model = tmp_path / "half.onnx"
    model.write_bytes(DIGITNET.read_bytes()[: DIGITNET.stat().st_size // 2])
    assert_refused(shell("plan", model, "--data", small_digits), "half.onnx")


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("none.onnx", None, "none.onnx"),
        ("empty.onnx", b"", "empty.onnx"),
        ("noise.onnx", bytes(range(256)) * 8, "noise.onnx"),
        ("noise.pt2", b"PK\x03\x04 no zip", "noise.pt2"),
        ("none.pt2", None, "none.pt2"),
        ("model.h5", b"x", "is none of .onnx, .pt2, .tflite"),
    ],
)
def test_a_file_that_is_no_model_is_refused(
    tmp_path: Path, run_cli: Cli, small_digits: Path, name: str, content: bytes | None, word: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    assert_refused(run_cli("plan", tmp_path / name, "--data", small_digits), word)
    assert_refused(run_cli("inspect", tmp_path / name), word)


def test_a_folder_as_a_model_is_refused(tmp_path: Path, run_cli: Cli) -> None:
    (tmp_path / "folder.onnx").mkdir()
    assert_refused(run_cli("inspect", tmp_path / "folder.onnx"), "folder.onnx")


# The data


def plan(run_cli: Cli, source: object, *more: object) -> Ended:
    return run_cli("plan", DIGITNET, "--data", source, *more)


def test_a_name_that_is_no_data_is_refused(run_cli: Cli, tmp_path: Path) -> None:
    assert_refused(plan(run_cli, "digitz"), "'digitz'", "class folders")
    assert_refused(plan(run_cli, tmp_path / "none.npz"), "none.npz", "does not exist")


def test_a_folder_without_images_is_refused(run_cli: Cli, tmp_path: Path) -> None:
    assert_refused(plan(run_cli, tmp_path), "no images in class folders")
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    assert_refused(plan(run_cli, tmp_path), "no images in class folders", ".png")


def test_images_of_another_size_than_the_network_are_refused(run_cli: Cli, tmp_path: Path) -> None:
    folder = images(tmp_path, {f"{c}/{i}.png": (20, 20) for c in "ab" for i in range(8)})
    assert_refused(plan(run_cli, folder), "(20, 20, 3)", "(16, 16, 1)", "Resize")


def test_images_of_differing_sizes_are_refused_by_name(run_cli: Cli, tmp_path: Path) -> None:
    folder = images(tmp_path, {"a/0.png": (16, 16), "a/1.png": (16, 16), "b/odd.png": (18, 16)})
    assert_refused(plan(run_cli, folder), "odd.png", "18 x 16", "16 x 16")


@pytest.mark.parametrize("kind", ["truncated", "text", "empty"])
def test_an_unreadable_image_is_refused_by_name(run_cli: Cli, tmp_path: Path, kind: str) -> None:
    folder = images(tmp_path, {"a/0.jpg": (64, 64), "b/bad.jpg": (64, 64)})
    whole = (folder / "b" / "bad.jpg").read_bytes()
    content = {"truncated": whole[: len(whole) // 2], "text": b"no image at all", "empty": b""}[kind]
    (folder / "b" / "bad.jpg").write_bytes(content)
    assert_refused(plan(run_cli, folder), "bad.jpg", "no readable image")


def test_a_damaged_png_is_refused_by_name(run_cli: Cli, tmp_path: Path) -> None:
    folder = images(tmp_path, {"a/0.png": (64, 64), "b/bad.png": (64, 64)})
    content = bytearray((folder / "b" / "bad.png").read_bytes())
    content[60:80] = bytes(20)
    (folder / "b" / "bad.png").write_bytes(bytes(content))
    assert_refused(plan(run_cli, folder), "bad.png", "no readable image")


def test_a_class_that_only_the_test_part_has_is_named(tmp_path: Path) -> None:
    names = ["train/cat/0.png", "train/dog/0.png", "test/cat/0.png", "test/emu/0.png"]
    folder = images(tmp_path, dict.fromkeys(names, (16, 16)))
    with pytest.raises(DataError, match="without training samples: emu"):
        datasets.load(str(folder)).check((16, 16, 3))


def test_a_part_without_samples_is_refused(tmp_path: Path) -> None:
    folder = images(tmp_path, {"cat/0.png": (16, 16), "dog/0.png": (16, 16)})
    with pytest.raises(DataError, match="no samples to train or to test"):
        datasets.load(str(folder)).check((16, 16, 3))


def test_an_npz_whose_test_part_has_a_class_of_its_own_is_refused(
    run_cli: Cli, tmp_path: Path, small_digits: Path
) -> None:
    whole = arrays(small_digits)
    keep = whole["y_train"] != 7
    changed = with_changes(small_digits, tmp_path, x_train=whole["x_train"][keep], y_train=whole["y_train"][keep])
    assert_refused(plan(run_cli, changed), "classes without training samples: 7", "Add training samples")


def test_an_npz_without_labels_is_refused(run_cli: Cli, tmp_path: Path, small_digits: Path) -> None:
    assert_refused(plan(run_cli, with_changes(small_digits, tmp_path, y_test=None)), "lacks y_test")


@pytest.mark.parametrize("part", ["x_train", "x_test"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_samples_that_are_no_numbers_are_refused(
    run_cli: Cli, tmp_path: Path, small_digits: Path, part: str, value: float
) -> None:
    samples = arrays(small_digits)[part].astype(np.float32)
    samples[3, 2, 1, 0] = value
    assert_refused(plan(run_cli, with_changes(small_digits, tmp_path, **{part: samples})), "NaN or infinite")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"y_train": np.zeros(5, np.int64)}, "x_train is"),
        ({"x_train": np.zeros((120, 16), np.uint8)}, "the network takes"),
        ({"x_test": np.zeros((40, 20, 20, 1), np.uint8)}, "(20, 20, 1)"),
        ({"x_train": np.full((120, 16, 16, 1), 1j)}, "numbers"),
        ({"y_train": np.full(120, 0.5)}, "no class numbers"),
        ({"y_train": np.full(120, -1)}, "no class numbers"),
        ({"x_train": np.full((120, 16, 16, 1), "pixel")}, "numbers"),
        ({"x_train": np.full((120, 16, 16, 1), None)}, "npz"),
        ({"classes": np.array(["only", "two"])}, "classes"),
        ({"y_train": np.zeros(120, np.int64), "y_test": np.zeros(40, np.int64)}, "fewer than two classes"),
    ],
    ids=["lengths", "planes", "test size", "complex", "fractions", "negative", "text", "objects", "names", "one class"],
)
def test_an_npz_with_the_wrong_contents_is_refused(
    run_cli: Cli, tmp_path: Path, small_digits: Path, changes: dict[str, Any], word: str
) -> None:
    assert_refused(plan(run_cli, with_changes(small_digits, tmp_path, **changes)), word)


@pytest.mark.parametrize("kind", ["truncated", "text", "single array", "damaged"])
def test_a_damaged_npz_is_refused(run_cli: Cli, tmp_path: Path, small_digits: Path, kind: str) -> None:
    path = tmp_path / "bad.npz"
    if kind == "single array":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "damaged":
        np.savez_compressed(path, **arrays(small_digits))
        with zipfile.ZipFile(path) as archive:
            start = archive.infolist()[0].header_offset + 100
        content = bytearray(path.read_bytes())
        content[start : start + 40] = bytes(40)
        path.write_bytes(bytes(content))
    else:
        whole = small_digits.read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if kind == "truncated" else b"no zip")
    assert_refused(plan(run_cli, path), "bad.npz", "numpy.savez")


@pytest.mark.parametrize("split", [0, 1, -0.25, 2, "nan"])
def test_a_split_that_leaves_a_part_empty_is_refused(run_cli: Cli, split: object) -> None:
    assert_refused(plan(run_cli, "digits", "--split", split), "split")


# The options


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--target", "stm32", ("--target 'stm32' is unknown", "qemu-m4")),
        ("--pixels", "bgr", ("--pixels 'bgr' is unknown", "signed")),
        ("--head", "old", ("--head 'old' is unknown", "new, keep")),
        ("--builder", "cmake", ("--builder 'cmake' is unknown", "platformio")),
        ("--ram", "much", ("'much' is no size", "128KiB")),
        ("--ram", "-4KiB", ("'-4KiB' is no size",)),
        ("--ram", "1.5MiB", ("'1.5MiB' is no size",)),
        ("--board-ram", "4 Gibi", ("'4 Gibi' is no size",)),
        ("--alpha", "0", ("alpha 0 is outside",)),
        ("--alpha", "nan", ("alpha nan is outside",)),
        ("--grad-bits", "12", ("gradients of 12 bits",)),
        ("--ranking", "none.json", ("'none.json' does not exist",)),
    ],
)
def test_an_unknown_choice_names_what_there_is(
    run_cli: Cli, tmp_path: Path, small_digits: Path, option: str, value: str, words: tuple[str, ...]
) -> None:
    ended = run_cli("compile", DIGITNET, "--data", small_digits, "-o", tmp_path / "out", f"{option}={value}")
    assert_refused(ended, *words)
    assert not (tmp_path / "out").exists()


def test_an_unknown_option_or_command_is_a_usage_error(run_cli: Cli) -> None:
    for arguments in (("plan", DIGITNET, "--data", "digits", "--rams", "3"), ("fly",), ("run",)):
        ended = run_cli(*arguments)
        assert ended.code == 2
        assert ended.out == ""
        assert "Usage:" in ended.err


def test_the_pretrained_classifier_is_only_kept_for_as_many_classes(
    run_cli: Cli, tmp_path: Path, small_digits: Path
) -> None:
    whole = arrays(small_digits)
    few = {
        f"{axis}_{part}": whole[f"{axis}_{part}"][whole[f"y_{part}"] < 4] for part in ("train", "test") for axis in "xy"
    }
    changed = with_changes(small_digits, tmp_path, **few)
    assert_refused(plan(run_cli, changed, "--head", "keep"), "10 outputs", "wants 4", "--head new")


def test_a_ranking_of_another_network_is_refused(
    run_cli: Cli, tmp_path: Path, small_digits: Path, digitnet_host: Compiled
) -> None:
    ranking = json.loads((digitnet_host.folder / "04_ranking.json").read_text())
    wider = [{**layer, "channels": layer["channels"] + 1} for layer in ranking["layers"]]
    other, damaged, text = (tmp_path / name for name in ("other.json", "damaged.json", "text.json"))
    other.write_text(json.dumps({**ranking, "layers": wider}))
    damaged.write_text(json.dumps({**ranking, "layers": [{"layer": "x"}]}))
    text.write_text("no json")
    assert_refused(plan(run_cli, small_digits, "--ranking", other), "another architecture", "medyate rank")
    assert_refused(plan(run_cli, small_digits, "--ranking", damaged), "the ranking is damaged", "medyate rank")
    assert_refused(plan(run_cli, small_digits, "--ranking", text), "cannot be read as JSON")


# Running


def test_a_folder_that_was_not_compiled_cannot_run(run_cli: Cli, tmp_path: Path) -> None:
    assert_refused(run_cli("run", tmp_path, "--data", "digits"), "model.json", "medyate compile")
    assert_refused(run_cli("run", tmp_path / "none", "--data", "digits"), "does not exist", "medyate compile")
    assert list(tmp_path.iterdir()) == []


def test_a_compiled_folder_without_its_image_cannot_run(run_cli: Cli, tmp_path: Path, digitnet_host: Compiled) -> None:
    for name in ("model.json", "05_plan.json"):
        shutil.copy(digitnet_host.folder / name, tmp_path)
    assert_refused(run_cli("run", tmp_path, "--data", "digits"), "no built image", "medyate compile")
    (tmp_path / "model.json").write_text("{}")
    assert_refused(run_cli("run", tmp_path, "--data", "digits"), "no built image")


@pytest.mark.parametrize(
    ("on", "word"),
    [("qemu", "compiled for host"), ("cloud", "cannot run on 'cloud'"), ("serial:/dev/none", "cannot be opened")],
)
def test_an_image_runs_only_on_what_it_was_compiled_for(
    run_cli: Cli, digitnet_host: Compiled, tmp_path: Path, small_digits: Path, on: str, word: str
) -> None:
    log = tmp_path / "run.json"
    ended = run_cli("run", digitnet_host.folder, "--data", small_digits, "--on", on, "--log", log)
    assert_refused(ended, word)
    assert not log.exists()


def test_data_with_another_number_of_classes_is_refused(
    run_cli: Cli, tmp_path: Path, small_digits: Path, digitnet_host: Compiled
) -> None:
    whole = arrays(small_digits)
    few = {
        f"{axis}_{part}": whole[f"{axis}_{part}"][whole[f"y_{part}"] < 4] for part in ("train", "test") for axis in "xy"
    }
    changed = with_changes(small_digits, tmp_path, **few)
    ended = run_cli("run", digitnet_host.folder, "--data", changed)
    assert_refused(ended, "wants 4 outputs, the model has 10", "compiled for")


def test_a_ranking_without_epochs_is_refused(run_cli: Cli, small_digits: Path, tmp_path: Path) -> None:
    ended = run_cli("rank", DIGITNET, "--data", small_digits, "--epochs", 0, "-o", tmp_path / "ranking.json")
    assert_refused(ended, "at least one epoch")
    assert not (tmp_path / "ranking.json").exists()


def test_more_steps_than_the_device_counts_are_refused(
    run_cli: Cli, small_digits: Path, digitnet_host: Compiled
) -> None:
    ended = run_cli("run", digitnet_host.folder, "--data", small_digits, "--epochs", 10**8)
    assert_refused(ended, "100,000,000 epochs of 120 samples", "--epochs")


@pytest.mark.parametrize("option", ["--epochs=0", "--rate=0", "--rate=-1", "--rate=nan", "--limit=0", "--schedule=no"])
def test_hyper_parameters_out_of_range_are_refused(
    run_cli: Cli, small_digits: Path, digitnet_host: Compiled, option: str
) -> None:
    assert_refused(run_cli("run", digitnet_host.folder, "--data", small_digits, option), option[2:6])


# --json


def test_json_prints_one_object_and_nothing_else(
    run_cli: Cli, tmp_path: Path, small_digits: Path, digitnet_host: Compiled
) -> None:
    run = ("run", digitnet_host.folder, "--data", small_digits, "--rate", 0.01, "--epochs", 1)
    commands = [
        ("plan", DIGITNET, "--data", small_digits),
        ("inspect", DIGITNET),
        ("boards",),
        ("version",),
        ("rank", DIGITNET, "--data", small_digits, "--epochs", 1, "-o", tmp_path / "ranking.json"),
        (*run, "--log", tmp_path / "run.json", "--flash", tmp_path / "flash.bin"),
    ]
    for command in commands:
        ended = run_cli(*command, "--json")
        assert ended.code == 0, ended.err
        assert isinstance(json.loads(ended.out), dict)
        assert ended.out.count("\n") == 1
    assert json.loads((tmp_path / "run.json").read_text())["epochs"] == 1


def test_the_version_is_a_command_and_an_option(run_cli: Cli) -> None:
    option = run_cli("--version")
    assert (option.code, option.out) == (0, f"{__version__}\n")
    assert run_cli("version").out == option.out


def test_json_prints_nothing_when_the_command_fails(small_digits: Path) -> None:
    ended = shell("plan", DIGITNET, "--data", small_digits, "--ram", "2KiB", "--json")
    assert_refused(ended, "of RAM leave")
