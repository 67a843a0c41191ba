# SPDX-License-Identifier: Apache-2.0
"""How PlatformIO gets SCons without its registry.

PlatformIO Core drives SCons through a package `tool-scons` in its core directory and would fetch
it over the network. The same SCons is on PyPI, so the package is laid out from the installed
`scons` distribution instead. Its version follows PlatformIO's scheme, which packs the upstream
version into the middle number: SCons 4.11.1 is 4.41101.0, major, then two digits each.
"""

import importlib.metadata
import json
import shutil
import tempfile
from pathlib import Path

_PACKAGE = "tool-scons"
_LAUNCHER = """\
import runpy

runpy.run_module("SCons", run_name="__main__", alter_sys=True)
"""


def lay_out_scons(core_dir: Path) -> None:
    """Put the package `tool-scons` into the PlatformIO core directory `core_dir`.

    `core_dir` should belong to the caller and be passed to PlatformIO as PLATFORMIO_CORE_DIR. It
    is made if missing. A package of the right version is left alone, one of another version
    replaced; several processes may do this at once, since the package appears by a rename.

    Raises importlib.metadata.PackageNotFoundError if the distribution `scons` is not installed,
    and OSError if `core_dir` cannot be written.
    """
    scons = importlib.metadata.distribution("scons")
    version = _package_version(scons.version)
    package_dir = core_dir / "packages" / _PACKAGE
    if _installed_version(package_dir) == version:
        return
    package_dir.parent.mkdir(parents=True, exist_ok=True)
    # PlatformIO passes over directories of this prefix when it lists packages, so one that a
    # killed process leaves behind does no harm.
    with tempfile.TemporaryDirectory(prefix="_tmp_installing", dir=package_dir.parent) as scratch:
        built_dir = Path(scratch) / "new"
        _build(built_dir, scons, version)
        _swap_in(built_dir, package_dir, Path(scratch) / "old")


def _package_version(scons_version: str) -> str:
    """Return PlatformIO's version of the package for an upstream version such as `4.11.1`."""
    major, minor, patch = (*(int(part) for part in scons_version.split(".")[:3]), 0, 0)[:3]
    return f"{major}.{major}{minor:02}{patch:02}.0"


def _installed_version(package_dir: Path) -> str | None:
    """Return the version of a laid-out package, None if there is none that can be read."""
    try:
        metadata = json.loads((package_dir / ".piopm").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    version = metadata.get("version") if isinstance(metadata, dict) else None
    return version if isinstance(version, str) else None


def _build(built_dir: Path, scons: importlib.metadata.Distribution, version: str) -> None:
    """Write the package's files into `built_dir`."""
    shutil.copytree(
        Path(str(scons.locate_file("SCons"))),
        built_dir / "SCons",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (built_dir / "scons.py").write_text(_LAUNCHER, encoding="utf-8")
    manifest = {
        "name": _PACKAGE,
        "version": version,
        "description": "SCons software construction tool",
    }
    # Without an owner in .piopm, PlatformIO does not take the package for its own.
    spec = {"owner": "platformio", "id": None, "name": _PACKAGE, "requirements": None, "uri": None}
    metadata = {"type": "tool", "name": _PACKAGE, "version": version, "spec": spec}
    (built_dir / "package.json").write_text(json.dumps(manifest), encoding="utf-8")
    (built_dir / ".piopm").write_text(json.dumps(metadata), encoding="utf-8")


def _swap_in(built_dir: Path, package_dir: Path, old_dir: Path) -> None:
    """Rename `built_dir` to `package_dir`; what stood there is moved to `old_dir`."""
    if package_dir.exists():
        package_dir.rename(old_dir)
    try:
        built_dir.rename(package_dir)
    except OSError:
        # Another process was faster; its package is the same, made from the same distribution.
        if not (package_dir / ".piopm").is_file():
            raise
