# SPDX-License-Identifier: Apache-2.0
"""Whether a .pt2 file may be given to torch.export.load, which trusts what it finds.

It falls back to full unpickling where plain tensors fail, and loads shared objects that it meets.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from pathlib import Path

import torch

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


def check_archive(path: Path) -> None:
    """Raises ModelError unless the file holds tensors and a graph only.

    zipfile, json and torch raise their own errors for one that is damaged.
    """
    with zipfile.ZipFile(path) as archive:
        names = [member.filename.lower() for member in archive.infolist()]
        for member in archive.infolist():
            name = member.filename
            content = archive.read(member)
            if name.endswith(".pt") and content:
                torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
            pickled = name.endswith("_config.json") and any(
                entry.get("use_pickle", True) for entry in json.loads(content)["config"].values()
            )
            if pickled or names.count(name.lower()) > 1 or not PLAIN_MEMBER.fullmatch(name):
                raise ModelError(
                    f"'{path}' holds more than tensors and a graph ('{name}').",
                    "Save the plain module again with torch.export.save.",
                )
