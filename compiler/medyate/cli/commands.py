# SPDX-License-Identifier: Apache-2.0
"""The command line: every command, and how mistakes end.

Exit codes: 0 done, 1 a check failed, 2 the input or the machine is at fault. With --json a command prints one JSON
object on standard output and nothing else there; progress and messages go to standard error.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn

import typer

from medyate import extras
from medyate.cli.bench import bench
from medyate.cli.compile import compile
from medyate.cli.doctor import boards, doctor, version
from medyate.cli.flash import flash
from medyate.cli.network import inspect, verify
from medyate.cli.package import package
from medyate.cli.plan import plan
from medyate.cli.rank import rank
from medyate.cli.run import reset, run
from medyate.cli.selftest import selftest
from medyate.cli.strategies import strategies
from medyate.cli.study import app as study
from medyate.cli.trained import export, report
from medyate.errors import MedyateError
from medyate.terminal import errors

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
COMMANDS = (
    strategies,
    run,
    reset,
    doctor,
    boards,
    inspect,
    export,
    verify,
    rank,
    plan,
    compile,
    package,
    flash,
    selftest,
    bench,
    report,
    version,
)
for command in COMMANDS:
    app.command()(command)
app.add_typer(study, name="study")


def _print_version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def medyate(
    version_: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version of medyate.")
    ] = False,
) -> None:
    """Fine-tune a pretrained network on the microcontroller itself."""


def _refuse(error: MedyateError) -> NoReturn:
    errors.print(f"medyate: {error.what}")
    errors.print(f"  {error.remedy}")
    sys.exit(2)


def main() -> None:
    """Runs the command line; the user's mistakes end in two sentences and exit code 2."""
    # Worker threads that spin while they wait starve everything else on a small machine.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        app()
    except MedyateError as error:
        _refuse(error)
    except ImportError as error:
        missing = extras.told(error)
        if missing is None:
            raise
        _refuse(missing)
    except KeyboardInterrupt:
        errors.print("medyate: stopped.")
        sys.exit(130)
