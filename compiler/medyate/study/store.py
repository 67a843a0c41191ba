# SPDX-License-Identifier: Apache-2.0
"""Results of a study in one SQLite file: what is written is complete, so a killed study goes on where it was.

One process writes, under a lock that ends with it; a finished cell is one row, written in one transaction.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medyate import artefact, files
from medyate.errors import ArtefactError
from medyate.study.spec import Cell

VERSION = 1
TABLES = """
CREATE TABLE IF NOT EXISTS rankings (key TEXT PRIMARY KEY, ranking TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, cell TEXT NOT NULL, result TEXT, error TEXT, runs INTEGER NOT NULL DEFAULT 1);
"""


RESULT: artefact.Form = {"accuracy": float}
"""What every result holds; the rest depends on the engine and the strategy."""
STORE_MAX = 1 << 32
"""Bytes of a file."""
OTHER_DB = "Give another --db."


class Store:
    """The file."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Raises ArtefactError when it is missing, damaged or of another version."""
        self.path = path
        with self._sound():
            if create:
                path.parent.mkdir(parents=True, exist_ok=True)
            if not create or path.exists():
                files.check_regular(path, ArtefactError, STORE_MAX, "Run `medyate study run` first.")
            self._db = sqlite3.connect(path)
        try:
            with self._sound():
                self._open(create=create)
        except ArtefactError:
            self._db.close()
            raise

    def _open(self, *, create: bool) -> None:
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        found = {(kind, name) for kind, name in self._db.execute("SELECT type, name FROM sqlite_master")}
        own = {("table", "rankings"), ("table", "results")}
        if {(kind, name) for kind, name in found if kind != "index"} - own or version not in (0, VERSION):
            raise ArtefactError(f"'{self.path}' holds no results of this version.", OTHER_DB)
        if create:  # also what a process that was killed here has begun
            self._db.executescript(f"BEGIN; {TABLES} PRAGMA user_version = {VERSION}; COMMIT;")
        elif version != VERSION or not own <= found:
            raise ArtefactError(f"'{self.path}' holds no results of this version.", OTHER_DB)

    @contextmanager
    def _sound(self) -> Iterator[None]:
        """Where a damaged file, or a disk that refuses, becomes an ArtefactError."""
        try:
            with files.boundary(ArtefactError, f"'{self.path}' is no sound result file", OTHER_DB):
                yield
        except sqlite3.Error as error:
            raise ArtefactError(f"'{self.path}' is no readable result file: {error}.", OTHER_DB) from error

    def close(self) -> None:
        """Ends the use of the file."""
        self._db.close()

    def rankings(self) -> dict[str, dict[str, Any]]:
        """Stored rankings by key."""
        with self._sound():
            rows = self._db.execute("SELECT key, ranking FROM rankings").fetchall()
            return {key: self._read(content, dict) for key, content in rows}

    def add_ranking(self, key: str, ranking: Mapping[str, Any]) -> None:
        """Stores one."""
        with self._sound(), self._db:
            self._db.execute("INSERT INTO rankings VALUES (?, ?)", (key, json.dumps(ranking)))

    def done(self) -> set[str]:
        """Keys of the cells that have a result; made anew, as a fact that came since then has its default in them."""
        return {cell.key for cell, _ in self.results()}

    def add(self, cell: Cell, result: Mapping[str, Any] | None, error: str | None) -> None:
        """Stores what a cell gave. One that failed may be stored anew; `runs` counts how often that happened."""
        row = (cell.key, json.dumps(cell.to_json()), None if result is None else json.dumps(result), error)
        with self._sound(), self._db:
            self._db.execute(
                "INSERT INTO results (key, cell, result, error) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "result = excluded.result, error = excluded.error, runs = runs + 1",
                row,
            )

    def results(self) -> list[tuple[Cell, dict[str, Any]]]:
        """Every cell that has a result, in the order in which they came."""
        with self._sound():
            rows = self._db.execute("SELECT cell, result FROM results WHERE error IS NULL ORDER BY rowid").fetchall()
            return [(Cell.from_json(self._read(cell, dict)), self._read(result, RESULT)) for cell, result in rows]

    def failures(self) -> list[tuple[Cell, str]]:
        """Every cell that failed, with its reason."""
        with self._sound():
            rows = self._db.execute("SELECT cell, error FROM results WHERE error IS NOT NULL ORDER BY rowid").fetchall()
            return [(Cell.from_json(self._read(cell, dict)), str(error)) for cell, error in rows]

    def _read(self, text: str, form: artefact.Form) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(text)
        artefact.check_form(self.path, content, form)
        return content


@contextmanager
def writing(path: Path) -> Iterator[Store]:
    """The store for the one process that writes. Raises ArtefactError when another one does."""
    beside = path.with_name(f"{path.name}.lock")
    busy = ArtefactError(f"another study writes '{path}'.", "Wait for it, or give another --db.")
    with files.boundary(ArtefactError, f"'{beside}' cannot be written", OTHER_DB):
        path.parent.mkdir(parents=True, exist_ok=True)
        if beside.exists():
            files.check_regular(beside, ArtefactError)
    with artefact.lock(beside, busy):
        store = Store(path, create=True)
        try:
            yield store
        finally:
            store.close()
