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

from medyate import artefact
from medyate.errors import ArtefactError
from medyate.study.spec import Cell

VERSION = 1
TABLES = """
CREATE TABLE IF NOT EXISTS rankings (key TEXT PRIMARY KEY, ranking TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS results (
    key TEXT PRIMARY KEY, cell TEXT NOT NULL, result TEXT, error TEXT, runs INTEGER NOT NULL DEFAULT 1);
"""


class Store:
    """The file."""

    def __init__(self, path: Path, *, create: bool) -> None:
        """Raises ArtefactError when it is missing, damaged or of another version."""
        if not create and not path.exists():
            raise ArtefactError(f"'{path}' does not exist.", "Run `medyate study run` first.")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path)
            version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
            fresh = not self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if fresh and create:
                self._db.executescript(f"{TABLES} PRAGMA user_version = {VERSION};")
            elif version != VERSION:
                raise ArtefactError(f"'{path}' holds no results of this version.", "Give another --db.")
        except (OSError, sqlite3.Error) as error:
            raise ArtefactError(f"'{path}' is no readable result file: {error}.", "Give another --db.") from error

    def close(self) -> None:
        """Ends the use of the file."""
        self._db.close()

    def rankings(self) -> dict[str, dict[str, Any]]:
        """Stored rankings by key."""
        rows = self._db.execute("SELECT key, ranking FROM rankings")
        return {key: json.loads(content) for key, content in rows}

    def add_ranking(self, key: str, ranking: Mapping[str, Any]) -> None:
        """Stores one."""
        with self._db:
            self._db.execute("INSERT INTO rankings VALUES (?, ?)", (key, json.dumps(ranking)))

    def done(self) -> set[str]:
        """Keys of the cells that have a result; made anew, as a fact that came since then has its default in them."""
        return {cell.key for cell, _ in self.results()}

    def add(self, cell: Cell, result: Mapping[str, Any] | None, error: str | None) -> None:
        """Stores what a cell gave. One that failed may be stored anew; `runs` counts how often that happened."""
        row = (cell.key, json.dumps(cell.to_json()), None if result is None else json.dumps(result), error)
        with self._db:
            self._db.execute(
                "INSERT INTO results (key, cell, result, error) VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE SET "
                "result = excluded.result, error = excluded.error, runs = runs + 1",
                row,
            )

    def results(self) -> list[tuple[Cell, dict[str, Any]]]:
        """Every cell that has a result, in the order in which they came."""
        rows = self._db.execute("SELECT cell, result FROM results WHERE error IS NULL ORDER BY rowid")
        return [(Cell.from_json(json.loads(cell)), json.loads(result)) for cell, result in rows]

    def failures(self) -> list[tuple[Cell, str]]:
        """Every cell that failed, with its reason."""
        rows = self._db.execute("SELECT cell, error FROM results WHERE error IS NOT NULL ORDER BY rowid")
        return [(Cell.from_json(json.loads(cell)), error) for cell, error in rows]


@contextmanager
def writing(path: Path) -> Iterator[Store]:
    """The store for the one process that writes. Raises ArtefactError when another one does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    busy = ArtefactError(f"another study writes '{path}'.", "Wait for it, or give another --db.")
    with artefact.lock(path.with_name(f"{path.name}.lock"), busy):
        store = Store(path, create=True)
        try:
            yield store
        finally:
            store.close()
