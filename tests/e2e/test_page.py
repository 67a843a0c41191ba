# SPDX-License-Identifier: Apache-2.0
"""The page of a run: its figures are the log's, and it asks for nothing but itself."""

from __future__ import annotations

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_start import data_of

from conftest import Cli
from medyate.artefact import read_json, write_json
from medyate.run.train import Compiled


class Page(HTMLParser):
    """Every tag with its attributes, texts of those with an id, cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: dict[str, str] = {}
        self.tables: dict[str, list[list[str]]] = {}
        self._named = self._table = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.tags.append((tag, given))
        self._named = given.get("id", "") if tag == "b" else ""
        if tag == "table":
            self._table = given.get("id", "")
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = ""

    def handle_data(self, text: str) -> None:
        if self._named:
            self.texts[self._named] = text
            self._named = ""
        if self._table and self.tables[self._table] and self.tables[self._table][-1]:
            self.tables[self._table][-1][-1] += text.strip()


@pytest.fixture(scope="module")
def out(tiny_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of its own in which a run has left its log."""
    folder = tmp_path_factory.mktemp("page") / "out"
    shutil.copytree(tiny_host.folder, folder)
    (folder / "flash.bin").unlink(missing_ok=True)
    return folder


@pytest.fixture
def log(out: Path, tiny_host: Compiled, run_cli: Cli) -> dict[str, Any]:
    if not (out / "run.json").exists() or "test_predictions" not in read_json(out / "run.json"):
        given = ("--data", data_of(tiny_host), "--epochs", 3, "--rate", 0.3, "--fresh")
        ended = run_cli("run", out, *given)
        assert ended.code == 0, ended.err
        assert f"medyate report {out} --html" in ended.out
    return dict(read_json(out / "run.json"))


def page_of(out: Path, run_cli: Cli, *more: object) -> tuple[Page, str]:
    path = out / "report.html"
    ended = run_cli("report", out, "--html", *more)
    assert ended.code == 0, ended.err
    text = path.read_text()
    return Page(text), text


def test_its_figures_are_those_of_the_log(out: Path, log: dict[str, Any], tiny_host: Compiled, run_cli: Cli) -> None:
    page, text = page_of(out, run_cli, "--data", data_of(tiny_host))
    assert page.texts["before"] == f"{log['accuracy_before']:.4f}"
    assert page.texts["after"] == f"{log['accuracy_after']:.4f}"
    rows = page.tables["epochs"][1:]
    assert [row[:4] for row in rows] == [
        [str(h["epoch"]), f"{h['loss']:.4f}", f"{h['test_loss']:.4f}", f"{h['accuracy']:.4f}"] for h in log["history"]
    ]
    assert [row[4] for row in rows] == [str(len(h["selected"])) for h in log["history"]]
    labels, predictions = np.array(log["test_labels"]), np.array(log["test_predictions"])
    assert (labels == predictions).mean() == log["accuracy_after"]
    matrix = [[int(cell or 0) for cell in row[1:-1]] for row in page.tables["matrix"][1:]]
    for label, row in enumerate(matrix):
        assert row == [int(((labels == label) & (predictions == taken)).sum()) for taken in range(len(row))]
    pictures = [given for tag, given in page.tags if tag == "img"]
    assert len(pictures) == (labels != predictions).sum()
    assert log["digest"] in text


def test_it_makes_no_request(out: Path, log: dict[str, Any], tiny_host: Compiled, run_cli: Cli) -> None:
    page, text = page_of(out, run_cli, "--data", data_of(tiny_host))
    assert not {"script", "link", "iframe", "object", "embed", "form"} & {tag for tag, _ in page.tags}
    for _, given in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "action"):
            assert given.get(name, "#").startswith(("#", "data:image/png;base64,")), given
        assert not [name for name in given if name.startswith("on")]
    assert all(where.startswith("#") for where in re.findall(r"url\(([^)]*)\)", text))
    assert "default-src 'none'" in text
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(ids) == len(set(ids))


def test_each_value_of_the_plan_has_its_name(out: Path, log: dict[str, Any], run_cli: Cli) -> None:
    _, text = page_of(out, run_cli)
    values = [value for value in read_json(out / "05_plan.json")["values"] if value["bytes"] > 0]
    titles = re.findall(r"<title>([^<]*: [\d,]+ B)</title>", text)
    assert len(titles) == len(values)
    assert f"{values[0]['bytes']:,} B" in titles[0]


def test_names_from_outside_are_text(out: Path, log: dict[str, Any], tmp_path: Path, run_cli: Cli) -> None:
    """A class, a network or a warning may be called like a tag."""
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    evil = "<script>alert(1)</script>"
    model = dict(read_json(copy / "model.json"))
    write_json(copy / "model.json", {**model, "classes": [evil, *model["classes"][1:]]})
    write_json(copy / "run.json", {**log, "warnings": [{"key": "data", "text": evil}], "data": evil})
    ranking = dict(read_json(copy / "04_ranking.json"))
    page, text = page_of(copy, run_cli)
    assert evil not in text and "&lt;script&gt;" in text
    assert "script" not in {tag for tag, _ in page.tags}
    assert ranking["layers"]


def test_older_logs_have_no_matrix(out: Path, log: dict[str, Any], tmp_path: Path, run_cli: Cli) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    write_json(copy / "run.json", {key: log[key] for key in log if key not in ("test_labels", "test_predictions")})
    page, _ = page_of(copy, run_cli)
    assert "matrix" not in page.tables and page.texts["after"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (("--html", "-o", "x.pdf"), "no name of a page"),
        (("-o", "x.pdf"), "no name of a picture"),
        (("-o", "x.png", "--data", "digits"), "only a page"),
        (("--html", "--data", "digits"), "is not what the run was tested with"),
        (("--html", "-o", "/dev/null/all.html"), "/dev/null"),
    ],
)
def test_mistakes_are_named(
    out: Path,
    log: dict[str, Any],
    run_cli: Cli,
    wrong: tuple[str, ...],
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = run_cli("report", out, *wrong)
    assert ended.code == 2 and says in ended.err and "Traceback" not in ended.err, ended.err


@pytest.mark.parametrize(
    "changes", [{"test_predictions": [99] * 8}, {"test_predictions": "all"}, {"test_labels": [-1] * 8}, {"flash": 3}]
)
def test_damaged_logs_are_refused(
    out: Path, log: dict[str, Any], tmp_path: Path, run_cli: Cli, changes: dict[str, Any]
) -> None:
    copy = tmp_path / "out"
    shutil.copytree(out, copy)
    write_json(copy / "run.json", {**log, **changes})
    ended = run_cli("report", copy, "--html")
    assert ended.code == 2 and "Traceback" not in ended.err, (ended.out, ended.err)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [1280, 500])
def test_nothing_sticks_out(out: Path, log: dict[str, Any], tmp_path: Path, run_cli: Cli, width: int) -> None:
    """Rendered by a browser, no part is wider than the window; what is wide scrolls in its own box."""
    _, text = page_of(out, run_cli)
    probe = "<script>document.title = document.documentElement.scrollWidth + '/' + window.innerWidth</script></body>"
    opened = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text).replace("</body>", probe)
    (tmp_path / "page.html").write_text(opened)
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")
    command = ["chromium", *flags, f"--user-data-dir={tmp_path / 'own'}", f"--window-size={width},900", "--dump-dom"]
    ended = subprocess.run([*command, (tmp_path / "page.html").as_uri()], check=True, capture_output=True, timeout=60)
    found = re.search(rb"<title>(\d+)/(\d+)</title>", ended.stdout)
    assert found is not None and int(found.group(1)) <= int(found.group(2))
