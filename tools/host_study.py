# SPDX-License-Identifier: Apache-2.0
"""What is left where a host's program is killed, a target is reset, or two hosts meet at one target.

    python tools/host_study.py [--trials 20] [--seed 1]

Each trial does the work under one disturbance at a random instant, then again or to its end, and compares what came of
it with undisturbed work: state and flash of a run, artefacts and program of a compile, rows of a study. Exit code 1
where something differs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from line import Line
from medyate import datasets
from medyate.build.manifest import NAME as MANIFEST
from medyate.errors import LinkError
from medyate.run.link import Link
from medyate.run.session import Session, Training
from medyate.run.train import Compiled, RunOptions, run
from medyate.run.transport import SerialPort

DIGITNET = Path(__file__).resolve().parent.parent / "models" / "digitnet" / "digitnet.onnx"
EPOCHS, SAMPLES = 12, 80
STUDY = """
name = "kills"
epochs = 2
[grid]
network = ["{network}"]
data = ["{data}"]
strategy = ["medyate", "trady", "head"]
budget = [2000]
seed = [0, 1]
rate = [0.02]
"""


def medyate(*arguments: object) -> list[str]:
    """A command line of this Python's medyate."""
    return [sys.executable, "-m", "medyate.cli", *map(str, arguments)]


def finish(command: list[str]) -> subprocess.CompletedProcess[str]:
    """The command, left alone."""
    return subprocess.run(command, capture_output=True, text=True, check=False)


def kill(command: list[str], seconds: float) -> bool:
    """Runs the command and kills it with its children after so many seconds; whether it was still there."""
    silent = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=silent, stderr=silent, start_new_session=True) as program:
        try:
            program.wait(seconds)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            return True
        return False


def seconds_of(command: list[str]) -> float:
    """How long it takes when it is left alone. Raises CalledProcessError where it fails."""
    start = time.monotonic()
    finish(command).check_returncode()
    return time.monotonic() - start


@dataclass(frozen=True)
class Work:
    """One kind of work, and what has to come of it."""

    folder: Path
    data: Path
    compiled: Compiled

    @staticmethod
    def begin(folder: Path) -> Work:
        """The small digitnet on some digits, compiled for the host."""
        some = datasets.load("digits").first(SAMPLES, SAMPLES)
        given = folder / "digits.npz"
        parts = {name: getattr(some, name) for name in ("x_train", "y_train", "x_test", "y_test")}
        np.savez(given, **parts)
        work = Work(folder, given, Compiled(folder / "out", {}, {}))
        finish(work.compile(folder / "out")).check_returncode()
        return Work(folder, given, Compiled.read(folder / "out"))

    def compile(self, out: Path) -> list[str]:
        """The command."""
        options = ("--pixels", "unit", "--ram", "64KiB", "--target", "host")
        return medyate("compile", DIGITNET, "--data", self.data, *options, "-o", out)

    def train(self, name: str, *more: object) -> list[str]:
        """The command of a run with files of its own."""
        files = ("--flash", self.folder / f"{name}.bin", "--log", self.folder / f"{name}.json")
        given = ("--data", self.data, "--rate", 0.05, "--epochs", EPOCHS, "--no-measure", "--json")
        return medyate("run", self.compiled.folder, *given, *files, *more)

    def learned(self, name: str) -> tuple[Any, ...]:
        """State, flash and history of a run that ended; the other digests begin anew with the program.

        An epoch that was committed when the kill came stays without an evaluation.
        """
        log = json.loads((self.folder / f"{name}.json").read_text())
        history = [
            {key: entry[key] for key in ("epoch", "loss", "train_accuracy", "selected")} for entry in log["history"]
        ]
        return log["digest"].split("-")[3:], history, (self.folder / f"{name}.bin").read_bytes()

    def forget(self, name: str) -> None:
        """Removes the files of a run."""
        for kind in ("bin", "json"):
            (self.folder / f"{name}.{kind}").unlink(missing_ok=True)


def killed_runs(work: Work, random: np.random.Generator, trials: int) -> list[str]:
    """`medyate run`, killed once or several times, then resumed to its end."""
    seconds, right, faults = seconds_of(work.train("whole")), work.learned("whole"), []
    for trial in range(trials):
        work.forget("killed")
        more: tuple[str, ...] = ()
        for _ in range(1 + trial % 3):
            kill(work.train("killed", *more), float(random.uniform(0.2, 1.0)) * seconds)
            more = ("--resume",) if _holds(work, "killed") else ("--fresh",)
        ended = finish(work.train("killed", *more))
        done = "all 12 epochs are done already" in ended.stderr
        if not (ended.returncode == 0 or done) or work.learned("killed") != right:
            faults.append(f"exit code {ended.returncode}: {ended.stderr.strip()[-200:]}")
    return faults


def _holds(work: Work, name: str) -> bool:
    """Whether a killed run has committed something."""
    log = work.folder / f"{name}.json"
    return log.exists() and json.loads(log.read_text())["committed_epochs"] > 0


def _artefacts(out: Path) -> dict[str, str]:
    """Digests of what a compile writes, but for the build's own files and the list of what is medyate's."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and "build" not in path.relative_to(out).parts]
    files = [path for path in files if path.name != MANIFEST]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def killed_compiles(work: Work, random: np.random.Generator, trials: int) -> list[str]:
    """`medyate compile`, killed; `run` on what is left must refuse it or train as always, the next compile be whole."""
    out, faults = work.folder / "cut", []
    seconds = seconds_of(work.compile(out))
    right = _artefacts(out)
    for trial in range(trials):
        if trial % 2:
            shutil.rmtree(out)
        kill(work.compile(out), float(random.uniform(0.1, 1.0)) * seconds)
        used = finish(
            medyate("run", out, "--data", work.data, "--rate", 0.05, "--epochs", 1, "--fresh", "--no-measure")
        )
        if used.returncode not in (0, 2) or "Traceback" in used.stderr:
            faults.append(f"run on what is left: exit code {used.returncode}: {used.stderr.strip()[-200:]}")
        for file in ("flash.bin", "run.json"):
            (out / file).unlink(missing_ok=True)
        ended = finish(work.compile(out))
        if ended.returncode != 0 or _artefacts(out) != right:
            differ = sorted(set(_artefacts(out).items()) ^ set(right.items()))
            faults.append(f"exit code {ended.returncode}: {ended.stderr.strip()[-200:]} {differ[:3]}")
    return faults


def _rows(db: Path) -> dict[str, Any]:
    """Results by key."""
    with contextlib.closing(sqlite3.connect(db)) as connection:
        return dict(connection.execute("SELECT key, result FROM results").fetchall())


def killed_studies(work: Work, random: np.random.Generator, trials: int) -> list[str]:
    """`medyate study`, killed with its workers, then run again."""
    spec, faults = work.folder / "kills.toml", []
    spec.write_text(STUDY.format(network=DIGITNET, data=work.data))
    seconds = seconds_of(medyate("study", spec, "--db", work.folder / "whole.sqlite"))
    right = _rows(work.folder / "whole.sqlite")
    for trial in range(trials):
        db = work.folder / f"killed{trial}.sqlite"
        kill(medyate("study", spec, "--db", db), float(random.uniform(0.1, 1.0)) * seconds)
        ended = finish(medyate("study", spec, "--db", db))
        if ended.returncode != 0 or _accuracies(_rows(db)) != _accuracies(right):
            faults.append(f"exit code {ended.returncode}: {ended.stderr.strip()[-200:]}")
    return faults


def _accuracies(rows: dict[str, Any]) -> dict[str, Any]:
    return {key: json.loads(row)["accuracies"] for key, row in rows.items()}


def _serial(work: Work, line: Line, name: str) -> dict[str, Any]:
    """A run over a line."""
    dataset = datasets.load(str(work.data))
    training = Training(0.05, 3, SAMPLES, seed=4)
    flash = work.folder / f"{name}.bin"
    told = RunOptions(line.port, training, flash, evaluate_each=False, measure=False)
    return run(work.compiled, dataset, told, lambda _: None)


def resets(work: Work, random: np.random.Generator, trials: int) -> list[str]:
    """Targets that restart once or twice in a training over a line; the run goes on by itself."""
    faults = []
    with Line(work.compiled.image, work.folder / "line.bin") as line:
        right, carried = _serial(work, line, "line"), line.carried
    for trial in range(trials):
        flash = work.folder / f"reset{trial}.bin"
        places = tuple(sorted(int(place) for place in random.uniform(0.02, 0.98, 1 + trial % 2) * carried))
        with Line(work.compiled.image, flash, restarts=places, banner=b"boot: board 1.2\r\n") as line:
            try:
                ended = _serial(work, line, f"reset{trial}")
            except LinkError as error:
                faults.append(f"{places}: {error}")
                continue
        if ended["digest"].split("-")[3:] != right["digest"].split("-")[3:] or ended["history"] != right["history"]:
            faults.append(f"{places}: another end")
    return faults


def two_hosts(work: Work, random: np.random.Generator, trials: int) -> list[str]:
    """A second host on the line in the middle of a training, and a second run in one folder."""
    faults = []
    dataset = datasets.load(str(work.data))
    sample = np.zeros(int(np.prod(work.compiled.model["input_shape"])), np.int8)
    for trial in range(trials):
        with (
            Line(work.compiled.image, work.folder / f"two{trial}.bin") as line,
            SerialPort(line.name) as port,
        ):
            first = Session(Link(port))
            first.begin(Training(0.05, 1, SAMPLES))
            for _ in range(int(random.integers(1, 10))):
                first.train(sample, int(dataset.y_train[0]))
            second = Session(Link(port))
            second.begin(Training(0.05, 1, SAMPLES))
            try:
                first.train(sample, 0)
                faults.append("the first host was served in the second's session")
            except LinkError as error:
                if "another host" not in str(error):
                    faults.append(str(error))
            second.train(sample, 0)
        work.forget("first")
        command = work.train("first")
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as program:
            while not (work.folder / "first.json").exists():
                time.sleep(0.01)
            late = finish(work.train("second"))
            if program.poll() is None and (late.returncode != 2 or "another run uses" not in late.stderr):
                faults.append(f"a second run in one folder: exit code {late.returncode}")
            program.wait()
        if work.learned("first") != work.learned("whole"):
            faults.append("a second run in one folder changed the first one's end")
        work.forget("second")
    return faults


KINDS: dict[str, Callable[[Work, np.random.Generator, int], list[str]]] = {
    "`run` killed one to three times, resumed": killed_runs,
    "`compile` killed, done again": killed_compiles,
    "`study` killed with its workers, run again": killed_studies,
    "target restarts once or twice in a training": resets,
    "two hosts at one target, two runs in one folder": two_hosts,
}


def main() -> int:
    """Prints a row for each kind of disturbance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    failed = 0
    print("| disturbance | tried | same end | different |\n| --- | --: | --: | --: |")
    with tempfile.TemporaryDirectory(prefix="medyate-") as name:
        work = Work.begin(Path(name))
        for number, (kind, tried) in enumerate(KINDS.items()):
            faults = tried(work, np.random.default_rng((given.seed, number)), given.trials)
            print(f"| {kind} | {given.trials} | {given.trials - len(faults)} | {len(faults)} |", flush=True)
            for fault in faults[:5]:
                print(f"{kind}: {fault}", file=sys.stderr, flush=True)
            failed += len(faults)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
