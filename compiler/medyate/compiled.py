# SPDX-License-Identifier: Apache-2.0
"""What a compiled model's folder says of itself, read by those who did not make it: model.json and 05_plan.json."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from medyate import artefact
from medyate.errors import ArtefactError
from medyate.plan.budget import WEIGHTS
from medyate.plan.selecting import POLICIES

COMPILE = "Run `medyate compile` again."


def check_own(path: Path) -> None:
    """Raises ArtefactError where a model.json would be replaced that `compile` did not write."""
    try:
        own = not path.exists() or {"digest", "image", "network"} <= artefact.read_json(path).keys()
    except ArtefactError:
        own = False
    if not own:
        raise ArtefactError(f"'{path}' was not written by `medyate compile`.", "Move it away, or give another --out.")


def _positive(value: Any) -> bool:
    return artefact.count(value) and value > 0


def _pair(first: artefact.Form, second: artefact.Form) -> artefact.Form:
    return lambda value: (
        isinstance(value, list)
        and len(value) == 2
        and artefact.fits(value[0], first)
        and artefact.fits(value[1], second)
    )


def _sectors(value: Any) -> bool:
    """(count, bytes) of runs of sectors that some part could have."""
    whole = artefact.fits(value, [_pair(_positive, _positive)])
    return whole and sum(count * size for count, size in value) <= FLASH_MAX


def _shape(value: Any) -> bool:
    """(height, width, channels)."""
    return artefact.fits(value, [_positive]) and len(value) == 3 and math.prod(value) <= SAMPLE_MAX


def _candidate(value: Any) -> bool:
    if not artefact.fits(value, dict.fromkeys(("bank_offset", "worst", "channels"), artefact.count) | {"layer": str}):
        return False
    return bool(value["worst"] <= value["channels"] <= CHANNELS_MAX and value["channels"] > 0)


FLASH_MAX = 1 << 28
"""Bytes of the flash for the banks, which a run has in memory."""
SAMPLE_MAX = 1 << 28
"""Values of one sample."""
OUTPUTS_MAX = 1 << 20
"""Classes, or values of a target."""
CHANNELS_MAX = (1 << 16) - 1
"""Input channels of a layer."""
MODEL: artefact.Form = {
    "network": str,
    "digest": artefact.count,
    "target": str,
    "image": str,
    "stack_bound_bytes": (None, artefact.count),
    "flash_runs": _sectors,
    "flash_unit_bytes": (1, 2, 4, 8, 16, 32).__contains__,
    "pixels": _pair(float, float),
    "split": lambda value: artefact.fits(value, float) and 0.0 < value < 1.0,
    "input": _pair(lambda value: artefact.fits(value, float) and value > 0.0, range(-128, 128).__contains__),
    "input_shape": _shape,
    "classes": [str],
    "outputs": lambda value: _positive(value) and value <= OUTPUTS_MAX,
    "data": str,
}
"""model.json, as far as it is read."""
PLAN: artefact.Form = {
    "network": str,
    "classes": artefact.count,
    "weights": WEIGHTS.__contains__,
    "selection": POLICIES.__contains__,
    "batch": _positive,
    "head_columns": artefact.count,
    "gradient_slots": artefact.count,
    "ram_limit_bytes": artefact.count,
    "b_mem_bytes": artefact.count,
    "b_mem_elements": artefact.count,
    "planned_bytes": artefact.count,
    "planned_lower_bound_bytes": artefact.count,
    "workspace_bytes": artefact.count,
    "epoch_bytes": artefact.count,
    "state_bytes": artefact.count,
    "arena_bytes": artefact.count,
    "arena_planned_bytes": artefact.count,
    "total_layers": artefact.count,
    "candidates": [_candidate],
    "biases": [{"layer": str, "first": artefact.count, "count": artefact.count}],
    "groups": [{"phase": str, "bytes": artefact.count}],
    "values": [
        {
            "name": str,
            "kind": str,
            "bytes": artefact.count,
            "first": artefact.count,
            "last": artefact.count,
            "offset": artefact.count,
        }
    ],
}
"""05_plan.json, likewise."""


def load_compiled(out: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """(model.json, 05_plan.json) of a compiled model. Raises ArtefactError when something is missing or damaged."""
    model = artefact.read_json(out / "model.json")
    image = model.get("image")
    if not isinstance(image, str) or not _is_inside(out, image):
        raise ArtefactError(f"'{out}' holds no built image.", COMPILE)
    if "flash_runs" not in model:
        raise ArtefactError(f"'{out}' was compiled by an older version.", COMPILE)
    artefact.check_form(out / "model.json", model, MODEL)
    plan = artefact.read_json(out / "05_plan.json", PLAN)
    outputs = len(model["classes"]) or model["outputs"]
    if (plan["network"], plan["classes"], outputs) != (model["network"], model["outputs"], model["outputs"]):
        raise ArtefactError(f"'{out}' holds model.json and 05_plan.json of two models.", COMPILE)
    return model, plan


def _is_inside(out: Path, image: str) -> bool:
    """Whether a program lies where `compile` puts it: below the folder, whatever links say."""
    try:
        path = (out / image).resolve()
        return path.is_relative_to(out.resolve()) and path.is_file()
    except (OSError, ValueError, RuntimeError):  # a name too long, with a zero byte, a loop of links
        return False
