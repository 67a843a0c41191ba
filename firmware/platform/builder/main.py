# SPDX-License-Identifier: Apache-2.0
"""Builds a medyate project for QEMU or a board with the arm-none-eabi-gcc found on PATH.

PlatformIO runs this file inside SCons; nothing is downloaded. The linker script is the board's
`build.ldscript`, or what the project sets with `board_build.ldscript`.
"""

import subprocess
import sys
from pathlib import Path

from SCons.Script import AlwaysBuild, Default, DefaultEnvironment

env = DefaultEnvironment()
board = env.BoardConfig()

TOOL_PREFIX = "arm-none-eabi-"
TARGET_FLAGS = ["-mcpu=" + board.get("build.cpu"), "-mthumb", "-mfloat-abi=" + board.get("build.float_abi")]
TARGET_FLAGS += board.get("build.extra_flags", "").split()

env.Replace(
    AR=TOOL_PREFIX + "gcc-ar",
    AS=TOOL_PREFIX + "gcc",
    CC=TOOL_PREFIX + "gcc",
    CXX=TOOL_PREFIX + "g++",
    GDB=TOOL_PREFIX + "gdb",
    LINK=TOOL_PREFIX + "gcc",
    OBJCOPY=TOOL_PREFIX + "objcopy",
    RANLIB=TOOL_PREFIX + "gcc-ranlib",
    SIZETOOL=TOOL_PREFIX + "size",
    ARFLAGS=["rcs"],
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    # What `pio run` prints as RAM: everything the linker puts there, the reserved stack included.
    SIZEPROGREGEXP=r"^(?:\.text|\.ARM\.exidx|\.data)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.stack|\.data|\.bss|\.area\d+)\s+(\d+).*",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
    SIZEPRINTCMD="$SIZETOOL -A -d $SOURCES",
)
env.Append(
    CFLAGS=["-std=c11"],
    CCFLAGS=[
        *TARGET_FLAGS,
        "-O3",
        "-funroll-loops",
        "-ffunction-sections",
        "-fcallgraph-info=su",  # with its frames: what the stack is bounded by
        "-g1",  # line numbers, which nothing on the board holds: `medyate bench` tells layers by them
        "-fdata-sections",
        "-Wall",
        "-Wextra",
        "-Wconversion",
        "-Wshadow",
    ],
    LINKFLAGS=[
        *TARGET_FLAGS,
        "-O3",
        "-nostartfiles",
        "--specs=nano.specs",
        "-Wl,--gc-sections",
        "-Wl,-Map=$BUILD_DIR/firmware.map",
        # The machines have their memories at different addresses; the linker script asks for them.
        *(f"-Wl,--defsym={name}={at}" for name, at in sorted(board.get("build.symbols", {}).items())),
    ],
)


def strict(own, node):
    """Warnings are errors in what medyate wrote, and in nobody else's."""
    path = Path(node.srcnode().get_abspath())
    written = [Path(own.subst("$PROJECT_SRC_DIR")) / folder for folder in ("src", "runtime", "boards")]
    return own.Object(node, CCFLAGS=[*own["CCFLAGS"], "-Werror"]) if any(map(path.is_relative_to, written)) else node


env.AddBuildMiddleware(strict)

program = env.BuildProgram()
# SCons does not see the script behind -T, and a RAM that shrank must be linked against again.
env.Depends(program, env.File("$PROJECT_DIR/" + board.get("build.ldscript")))


def write_images(target, source, env):  # noqa: ARG001  SCons calls it by these names
    """What flashing tools take, beside the ELF."""
    elf = target[0].get_abspath()
    stem = elf.removesuffix(".elf")
    commands = [
        [env["OBJCOPY"], "-O", kind, elf, stem + suffix] for kind, suffix in (("binary", ".bin"), ("ihex", ".hex"))
    ]
    family = board.get("build.uf2_family", "")
    if family:
        script = str(Path(env.PioPlatform().get_dir()) / "uf2.py")
        commands.append(
            [sys.executable, script, stem + ".bin", stem + ".uf2", board.get("build.flash_address"), family]
        )
    return next((code for command in commands if (code := subprocess.call(command))), 0)


if board.get("build.flash_address", ""):
    env.AddPostAction(program, write_images)
AlwaysBuild(env.Alias("size", program, env.VerboseAction("$SIZEPRINTCMD", "Size of $SOURCE")))
Default(program)
