# SPDX-License-Identifier: Apache-2.0
"""A project's folder is written again and again, and nothing of anybody else's is lost."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from conftest import Cli
from medyate.build.manifest import NAME, building, replace_files
from medyate.errors import ArtefactError
from medyate.run.train import Compiled

FIRST = {"src/a.c": b"a1", "src/b.c": b"b1", "Makefile": b"m1"}
SECOND = {"src/a.c": b"a2", "src/c.c": b"c2", "Makefile": b"m1"}


def content(folder: Path) -> dict[str, bytes]:
    """All files but the list."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != NAME)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_what_was_written_and_built_is_replaced(tmp_path: Path) -> None:
    assert replace_files(tmp_path / "p", FIRST) == []
    with pytest.raises(RuntimeError), building(tmp_path / "p"):
        (tmp_path / "p" / "build").mkdir()
        (tmp_path / "p" / "build" / "a.o").write_bytes(b"o")
        (tmp_path / "p" / "build" / "link").symlink_to("..")
        raise RuntimeError  # a build that fails leaves products, too
    assert replace_files(tmp_path / "p", SECOND) == []
    assert content(tmp_path / "p") == SECOND
    assert not (tmp_path / "p" / "build").exists()


def test_strangers_stay_and_what_is_in_the_way_is_kept(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    replace_files(folder, FIRST)
    mine = {"notes.txt": b"n", "src/c.c": b"my own", "src/mine/d.c": b"d"}
    for name, text in mine.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(text)
    (folder / "src" / "a.c").write_bytes(b"a1, edited")
    (folder / "src" / "b.c").write_bytes(b"b1, edited")
    with building(folder):
        (folder / "a.o").write_bytes(b"o")
    (folder / "a.o").write_bytes(b"built by hand")  # a product is made again: no copies of those
    kept = replace_files(folder, SECOND)
    assert {path.relative_to(folder).as_posix() for path in kept} == {
        "src/a.c.kept",
        "src/b.c.kept",
        "src/c.c.kept",
    }
    assert content(folder) == {
        **SECOND,
        "notes.txt": b"n",
        "src/mine/d.c": b"d",
        "a.o": b"built by hand",
        "src/a.c.kept": b"a1, edited",
        "src/b.c.kept": b"b1, edited",
        "src/c.c.kept": b"my own",
    }
    (folder / "src" / "a.c").write_bytes(b"again")
    assert replace_files(folder, SECOND) == [folder / "src" / "a.c.kept2"]
    assert content(folder)["src/a.c.kept"] == b"a1, edited"


@pytest.mark.parametrize("damage", ["missing", "no json", "no list", "odd"])
def test_a_folder_without_a_list_is_kept_whole(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "p"
    replace_files(folder, FIRST)
    (folder / NAME).unlink()
    texts = {"no json": "{", "no list": "{}", "odd": '{"sources": {"src/a.c": 1}, "products": []}'}
    if damage in texts:
        (folder / NAME).write_text(texts[damage])
    assert replace_files(folder, SECOND) == [tmp_path / "p.kept"]
    assert content(tmp_path / "p.kept") == FIRST
    assert content(folder) == SECOND


def test_a_list_and_links_that_lead_elsewhere_delete_nothing_there(tmp_path: Path) -> None:
    folder, other = tmp_path / "p", tmp_path / "other"
    replace_files(folder, FIRST)
    (tmp_path / "secret").write_bytes(b"a1")
    stored = json.loads((folder / NAME).read_text())
    stored["sources"]["../secret"] = stored["sources"][str(tmp_path / "secret")] = stored["sources"]["src/a.c"]
    (folder / NAME).write_text(json.dumps(stored))
    shutil.move(folder / "src", other)
    (folder / "src").symlink_to(other)
    with pytest.raises(ArtefactError, match="leads out of"):
        replace_files(folder, SECOND)
    assert (tmp_path / "secret").read_bytes() == b"a1"
    assert content(other) == {"a.c": b"a1", "b.c": b"b1"}


def test_a_compile_that_was_killed_between_list_and_files_is_cleared(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    replace_files(folder, FIRST)
    (folder / "src" / "b.c").unlink()  # listed, never written
    assert replace_files(folder, SECOND) == []
    assert content(folder) == SECOND


def test_compile_keeps_notes_and_edits_and_trains_no_worse(tiny_host: Compiled, run_cli: Cli, tmp_path: Path) -> None:
    given = ("compile", tiny_host.folder.parent / "tiny.pt2", "--data", tiny_host.folder.parent / "data.npz")
    out = tmp_path / "out"
    (out).mkdir()
    (out / "model.json").write_text('{"name": "my own"}')
    refused = run_cli(*given, "-o", out)
    assert refused.code == 2 and "was not written by" in refused.err
    assert (out / "model.json").read_text() == '{"name": "my own"}'
    (out / "model.json").unlink()
    assert run_cli(*given, "-o", out).code == 0
    clean = set(content(out / "project"))
    assert any(name.startswith("build/host/") for name in clean)
    (out / "project" / "notes.txt").write_text("mine")
    with (out / "project" / "Makefile").open("a") as makefile:
        makefile.write("# mine\n")
    assert run_cli("run", out, "--data", given[3], "--rate", 0.01, "--epochs", 1, "--no-measure").code == 0
    learned = (out / "flash.bin").read_bytes()
    ended = run_cli(*given, "-o", out, "--ram", "24KiB", "--seed", 1)
    assert ended.code == 0
    assert (out / "flash.bin").read_bytes() == learned
    assert "flash.bin' holds generation 1 of another model" in ended.err
    assert f"has been kept as '{out}/project/Makefile.kept'" in ended.err
    assert set(content(out / "project")) == clean | {"notes.txt", "Makefile.kept"}
    assert (out / "project" / "Makefile.kept").read_text().endswith("# mine\n")
    assert not (out / "project" / "Makefile").read_text().endswith("# mine\n")
