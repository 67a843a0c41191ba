# SPDX-License-Identifier: Apache-2.0
"""Makes the model's package again when the network, its data or the options have changed.

    [env:...]
    extra_scripts = pre:lib/medyate/regenerate.py
    custom_medyate_model = net.onnx           ; relative to the project, like the next one
    custom_medyate_data = photos
    custom_medyate_ram = 64KiB
    custom_medyate_name = mdy                 ; what generated files, symbols and macros begin with
    custom_medyate_options = --head keep      ; further options of `medyate compile`
    custom_medyate_kernels = ref              ; --kernels of `medyate package`

The package is written beside this library. It needs `medyate` in PlatformIO's own Python, or where
custom_medyate_python says, and the host's C compiler and make.
"""

import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path

Import("env")  # type: ignore[name-defined]  # noqa: F821
ENV = env  # type: ignore[name-defined]  # noqa: F821
LIBRARY = Path(sys._getframe().f_code.co_filename).resolve().parent
PROJECT = Path(ENV.subst("$PROJECT_DIR"))


def option(name, default=None):
    """A custom_medyate_ option of the environment."""
    value = ENV.GetProjectOption(f"custom_medyate_{name}", default)
    if value is None:
        sys.stderr.write(f"medyate: platformio.ini lacks custom_medyate_{name}\n")
        ENV.Exit(1)
    return value


def contents(path):
    """What tells whether a file, or a folder of samples, has changed."""
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    found = sorted(file for file in path.rglob("*") if file.is_file())
    return [[str(file.relative_to(path)), file.stat().st_size, file.stat().st_mtime_ns] for file in found]


def run(*arguments):
    """A command of medyate; ends the build where it fails."""
    python = ENV.GetProjectOption("custom_medyate_python", ENV.subst("$PYTHONEXE"))
    if subprocess.call([python, "-m", "medyate.cli", *map(str, arguments)], cwd=PROJECT):
        ENV.Exit(1)


def regenerate():
    """Compiles and packs the model unless both are of what lies there now."""
    name, model, data = option("name", "mdy"), option("model"), option("data")
    choices = ["--name", name, "--ram", option("ram"), *shlex.split(option("options", ""))]
    kernels = option("kernels", "ref")
    work = Path(ENV.subst("$PROJECT_WORKSPACE_DIR")) / "medyate" / name
    paths = [PROJECT / model, PROJECT / data]
    wanted = [model, data, choices, kernels, [contents(path) for path in paths if path.exists()]]
    stamp = work / "made_from.json"
    made = (LIBRARY.parent / f"{name}_model" / "library.json").exists() and stamp.exists()
    if made and json.loads(stamp.read_text()) == wanted:
        return
    print(f"medyate: compiling {model} for {option('ram')} of RAM")
    run("compile", model, "--data", data, *choices, "--target", "host", "-o", work)
    run("package", work, "--for", "platformio", "--kernels", kernels, "-o", LIBRARY.parent)
    stamp.write_text(json.dumps(wanted))


if not ENV.IsIntegrationDump() and not ENV.IsCleanTarget():
    regenerate()
