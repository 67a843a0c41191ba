# SPDX-License-Identifier: Apache-2.0
"""Plan to C sources: rendering is pure, the same plan gives the same bytes."""

from __future__ import annotations

from medyate import __version__
from medyate.emit.calls import Calls
from medyate.emit.context import Context
from medyate.emit.filters import c_array, c_comment, c_string
from medyate.plan.plan import Plan

ABI = 6
"""MDY_ABI of the runtime that the emitted tables are for."""

FILES = ("mdy_model.h", "mdy_model.c", "mdy_memory.c", "mdy_weights.h", "mdy_weights.c")


def emit(plan: Plan) -> dict[str, str]:
    """Generated files by name."""
    environment = environment_for("emit/templates")
    context = Context(plan)
    calls = Calls(context)
    values = {**context.values(), **calls.values(), "version": __version__, "abi": ABI}
    return {name: environment.get_template(f"{name}.j2").render(values) for name in FILES}


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
