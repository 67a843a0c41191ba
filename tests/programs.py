# SPDX-License-Identifier: Apache-2.0
"""Programs that tests start, found where `make setup` puts them: pip's beside this Python, apt's on PATH."""

from __future__ import annotations

import os
import shutil
import sysconfig


def program(name: str) -> str:
    """Its path."""
    found = shutil.which(name, path=os.pathsep.join((sysconfig.get_path("scripts"), os.environ.get("PATH", ""))))
    assert found is not None, f"'{name}' is neither beside this Python nor on PATH: run `make setup`"
    return found
