# SPDX-License-Identifier: Apache-2.0
"""Packages that only some commands need: which extra brings which, and the sentence for those that are missing.

A command calls `require` before it begins. Modules that need a package import it as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.util import find_spec

from medyate.errors import ToolchainError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "torch": ("torch",),
    "onnx": ("onnx", "onnxruntime"),
    "tflite": ("tflite", "flatbuffers"),
    "report": ("matplotlib",),
    "study": ("matplotlib", "scipy"),
    "sweep": ("ray",),
    "digits": ("sklearn",),
}
"""Modules by extra, as pyproject.toml has them."""
PACKAGES: Mapping[str, str] = {"PIL": "pillow", "sklearn": "scikit-learn", "torch": "PyTorch", "serial": "pyserial"}
"""What a module's package is called, where that is another name."""


def require(what: str, *modules: str) -> None:
    """Raises ToolchainError unless all modules are installed; `what` needs them: "reading .onnx files"."""
    missing = [module for module in dict.fromkeys(modules) if not installed(module)]
    if missing:
        raise ToolchainError(f"{what} needs {_names(missing)}.", f"Install with: {install(missing)}")


def installed(module: str) -> bool:
    """Whether it is there, without loading it."""
    try:
        return find_spec(module) is not None
    except ImportError:
        return False


def install(modules: Iterable[str]) -> str:
    """The command that brings them: the smallest extras, or packages that belong to none."""
    extras, others = [], []
    for module in modules:
        holders = [name for name, held in EXTRAS.items() if module in held]
        if holders:
            extras.append(min(holders, key=lambda name: len(EXTRAS[name])))
        else:
            others.append(PACKAGES.get(module, module))
    wanted = [f"'medyate[{','.join(dict.fromkeys(extras))}]'"] if extras else []
    return " ".join(("pip install", *wanted, *dict.fromkeys(others)))


def told(error: ImportError) -> ToolchainError | None:
    """The error for an import that failed, of a package named above; None for any other module."""
    module = (error.name or "").partition(".")[0]
    if not any(module in held for held in (*EXTRAS.values(), PACKAGES)):
        return None
    if isinstance(error, ModuleNotFoundError):
        return ToolchainError(f"this needs {_names([module])}.", f"Install with: {install([module])}")
    reason = (str(error).splitlines() or ["no reason given"])[0]
    return ToolchainError(f"{_names([module])} is installed and does not load ({reason}).", "Install it again.")


def _names(modules: Iterable[str]) -> str:
    names = [PACKAGES.get(module, module) for module in dict.fromkeys(modules)]
    return " and ".join(", ".join(names).rsplit(", ", 1))
