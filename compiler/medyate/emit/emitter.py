# SPDX-License-Identifier: Apache-2.0
"""Plan to C sources: rendering is pure, the same plan gives the same bytes."""

from __future__ import annotations

import re

from medyate.emit.calls import Calls
from medyate.emit.context import Context, Data, input_values
from medyate.emit.filters import c_array, c_comment, c_string
from medyate.errors import DataError
from medyate.plan.plan import Plan
from medyate.version import VERSION

ABI = 9
"""MDY_ABI of the runtime that the emitted tables are for."""

FILES = ("model.h", "model.c", "memory.c", "weights.h")
PREFIX = "mdy"
"""In front of every file, external symbol and macro of a model, where no other is given."""
PREFIX_FORM = re.compile(r"[a-z](?:_?[a-z0-9]){0,31}")


def check_prefix(prefix: str) -> str:
    """The prefix. Raises DataError where C, make or the runtime could take it for something else."""
    if not PREFIX_FORM.fullmatch(prefix) or prefix.startswith("mdy_"):
        raise DataError(
            f"the name '{prefix}' cannot begin what C programs call by it.",
            "Give up to 32 small letters and digits, single underscores between them, a letter first, and not mdy_.",
        )
    return prefix


def emit(plan: Plan, prefix: str = PREFIX, data: Data | None = None) -> dict[str, str]:
    """Generated files by name. Two models with different prefixes can be parts of one program. Raises DataError.

    `data`: which the model is compiled with; without it the header says nothing of classes and samples.
    """
    environment = environment_for("emit/templates")
    context = Context(plan)
    calls = Calls(context)
    values = {**context.values(), **calls.values(), **input_values(plan, data), "version": VERSION, "abi": ABI}
    values |= {"prefix": check_prefix(prefix), "macro": prefix.upper()}
    return {f"{prefix}_{name}": environment.get_template(f"{name}.j2").render(values) for name in FILES}


def environment_for(folder: str):  # type: ignore[no-untyped-def]
    """A strict Jinja2 environment over one folder of the package."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medyate", folder),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters.update(
        c_array=c_array,
        c_string=c_string,
        c_comment=c_comment,
        c_float=lambda x: f"{x:.9g}f",
        ljust=lambda s, n: s.ljust(n),
    )
    return environment
