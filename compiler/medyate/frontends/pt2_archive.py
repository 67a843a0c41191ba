# SPDX-License-Identifier: Apache-2.0
"""Whether a .pt2 file may be given to torch.export.load, which trusts what it finds.

It falls back to full unpickling where plain tensors fail, loads shared objects that it meets, has sympy evaluate the
text of sizes, and makes tensors as large as a file says.
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from medyate import files
from medyate.errors import ModelError

PLAIN_MEMBER = re.compile(
    r"(?:[^/]+/)?(?:"
    r"archive_format|archive_version|byteorder|version|\.data/\w+"
    r"|data/weights/(?:weight_\d+|\w+_weights_config\.json)"
    r"|data/constants/(?:tensor_\d+|\w+_constants_config\.json)"
    r"|data/sample_inputs/\w+\.pt|models/\w+\.json|serialized_\w+\.(?:json|pt)"
    r")"
)
"""What an archive of tensors and one graph consists of; compiled code and objects are other files."""


EXPRESSION_MAX = 1000
"""Characters of a size that is computed."""
TOKEN = re.compile(r"\s+|\d+(?:\.\d+)?|'[A-Za-z]\w*'|[-+*/%(),<>=&|~]|([A-Za-z]\w*)")
"""What such a size consists of; names are sizes, functions and facts about sizes."""
NAMES = (
    *("Symbol", "Integer", "Rational", "Add", "Mul", "FloorDiv", "CeilDiv", "IntTrueDiv", "FloatTrueDiv", "CleanDiv"),
    *("Mod", "PythonMod", "ModularIndexing", "Max", "Min", "Where", "Eq", "Ne", "Ge", "Gt", "Le", "Lt", "Identity"),
    *("Equality", "Unequality", "GreaterThan", "StrictGreaterThan", "LessThan", "StrictLessThan", "And", "Or", "Not"),
    *("CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat", "Float", "precision", "positive", "integer"),
    *("nonnegative", "negative", "real", "zero", "nonzero", "finite", "true", "false", "True", "False", "None"),
)
SIZE = re.compile(r"[su]\d+")
ENDLESS = ("**", "<<", ">>")
"""Operators that make numbers too long from short texts."""


def check_archive(path: Path) -> None:
    """Raises ModelError unless the file holds tensors and a graph only, of bounded size.

    Raises one of files.DAMAGE, or torch's own errors, for one that is damaged.
    """
    with files.archive(path) as archive:
        members = archive.infolist()
        names = Counter(member.filename.lower() for member in members)
        for member in members:
            name = member.filename
            if names[name.lower()] > 1 or not PLAIN_MEMBER.fullmatch(name):
                raise _refusal(path, name)
        declared = 0
        for member in members:
            if not member.filename.endswith((".pt", ".json")):
                continue
            if member.file_size > TEXT_MAX and member.filename.endswith(".json"):
                raise ModelError(f"the graph of '{path}' takes more than {TEXT_MAX:,} B.", SMALLER)
            content = files.unpack(archive, member)
            if member.filename.endswith(".json"):
                declared += _check_text(path, member.filename, json.loads(content))
            elif content:
                _check_tensors(content)
            if declared > files.FILE_MAX:
                raise ModelError(f"the tensors of '{path}' are larger than {files.FILE_MAX:,} B.", SMALLER)


TEXT_MAX = 1 << 24
SMALLER = "No microcontroller takes such a network."


def _refusal(path: Path, name: str) -> ModelError:
    return ModelError(
        f"'{path}' holds more than tensors and a graph ('{name}').",
        "Save the plain module again with torch.export.save.",
    )


def _check_tensors(content: bytearray) -> None:
    """Raises an error for a file of torch.save that holds more than tensors, or too many."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        files.check_archive(content)
    torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)


def _check_text(path: Path, name: str, content: Any) -> int:
    """Bytes of the tensors that a JSON file declares. Raises ModelError where it holds what torch would run."""
    if name.endswith("_config.json"):
        entries = content["config"].values()
        if any(entry.get("use_pickle", True) for entry in entries):
            raise _refusal(path, name)
        shapes = ([int(size["as_int"]) for size in entry["tensor_meta"]["sizes"]] for entry in entries)
        return sum(REAL_BYTES * math.prod(shape) for shape in shapes)
    waiting = [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            if not all(_is_size(text) for key, text in value.items() if key == "expr_str"):
                raise _refusal(path, name)
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
    return 0


REAL_BYTES = 4
"""Of a tensor's element, as it is imported."""


def _is_size(text: Any) -> bool:
    """Whether a text is arithmetic over sizes; torch has sympy evaluate it as a program."""
    if not isinstance(text, str) or len(text) > EXPRESSION_MAX or any(sign in text for sign in ENDLESS):
        return False
    place = 0
    while place < len(text):
        found = TOKEN.match(text, place)
        if found is None or (found[1] is not None and found[1] not in NAMES and not SIZE.fullmatch(found[1])):
            return False
        place = found.end()
    return True
