# SPDX-License-Identifier: Apache-2.0
"""`mdy/setup.h`: the compiler's constants are those that Python makes, and the device computes none of them."""

from __future__ import annotations

import math
import random
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from medyate.arithmetic.scheme import mantissa15
from medyate.datasets import SCALINGS, Scaling
from medyate.emit.context import scaler
from medyate.ir import Quant
from medyate.plan.parameters import NORM_BITS
from medyate.recipe import CLIPS
from medyate.sample.policy import pack
from shared_files import ROOT

INCLUDE = ROOT / "runtime_c" / "include"
WARNINGS = tuple(f"-W{name}" for name in ("all", "extra", "pedantic", "conversion", "shadow", "error"))
COMPILERS = {
    "gcc": ("gcc", "-std=c11", "-xc"),
    "clang": ("clang", "-std=c11", "-xc"),
    "g++ 11": ("g++", "-std=c++11", "-xc++"),
    "g++ 17": ("g++", "-std=c++17", "-xc++"),
    "clang++": ("clang++", "-std=c++17", "-xc++"),
}


def drawn(seed: str, low: float, high: float, count: int = 60) -> list[float]:
    """Numbers as people write them, numbers of all lengths, and the edges between two results.

    Others for each seed: the macros are long, and a compiler takes its time for each.
    """
    chance = random.Random(seed)
    logs = [math.exp(chance.uniform(math.log(low), math.log(high))) for _ in range(count)]
    written = [float(f"{value:.{chance.randint(1, 3)}g}") for value in logs]
    mantissas = (16384, 16385, 32766, 32767, chance.randrange(16384, 32768))
    edges = [(m + 0.5) * 2.0 ** chance.randint(-44, -5) for m in mantissas for _ in range(4)]
    near = [math.nextafter(value, end) for value in edges for end in (0.0, math.inf)]
    powers = [2.0**e for e in chance.sample(range(-30, 11), 9)]
    return [value for value in (*logs, *written, *edges, *near, *powers) if low <= value <= high]


@pytest.fixture(params=COMPILERS)
def compiler(request: pytest.FixtureRequest) -> tuple[str, ...]:
    command = COMPILERS[request.param]
    if shutil.which(command[0]) is None:
        pytest.skip(f"no {command[0]}")
    return command


def test_rates_and_clips_are_those_of_python(compiler: tuple[str, ...], tmp_path: Path) -> None:
    lengths = [rate for rate in drawn(f"{compiler} rates", 2.0**-30, 1024.0) if rate < 1024.0]
    bounds = drawn(f"{compiler} clips", *CLIPS)
    bounds += [*CLIPS, *((n + 0.5) / 2**NORM_BITS for n in (300, 301, 2046, 2047, 99999))]
    assert min(len(lengths), len(bounds)) > 100
    rates = ",\n".join(f"{{MDY_RATE({rate!r})}}" for rate in lengths)
    norms = ",\n".join(f"MDY_CLIP({norm!r})" for norm in bounds)
    source = tmp_path / "program"
    source.write_text(
        f'#include <stdio.h>\n#include "mdy/mdy.h"\n'
        f"static const struct {{ uint32_t mult; int32_t exponent; }} rates[] = {{\n{rates}}};\n"
        f"static const uint16_t clips[] = {{\n{norms}}};\n"
        "int main(void) {\n"
        'for (unsigned i = 0; i < sizeof rates / sizeof *rates; i++) printf("%u %d\\n", (unsigned)rates[i].mult, '
        "(int)rates[i].exponent);\n"
        'for (unsigned i = 0; i < sizeof clips / sizeof *clips; i++) printf("%u\\n", (unsigned)clips[i]);\n'
        "return 0; }\n"
    )
    command = [*compiler, *WARNINGS, f"-I{INCLUDE}", str(source), "-o", str(tmp_path / "out")]
    subprocess.run(command, check=True)
    lines = subprocess.run([tmp_path / "out"], check=True, capture_output=True, text=True).stdout.splitlines()
    assert [tuple(map(int, line.split())) for line in lines[: len(lengths)]] == [mantissa15(rate) for rate in lengths]
    assert [int(line) for line in lines[len(lengths) :]] == [pack(round(norm * 2**NORM_BITS)) for norm in bounds]


@pytest.mark.parametrize("number", ["MDY_RATE(0.0)", "MDY_RATE(-1.0)", "MDY_RATE(1024.0)", "MDY_RATE(1e-10)"])
def test_a_rate_that_trains_nothing_does_not_compile(number: str) -> None:
    text = f'#include "mdy/mdy.h"\nextern const mdy_schedule_t s;\nconst mdy_schedule_t s = {{{number}, 0, 0, 0, 0}};\n'
    for command in (COMPILERS["gcc"], COMPILERS["g++ 17"]):
        run = [*command[:2], *WARNINGS, f"-I{INCLUDE}", *command[2:], "-fsyntax-only", "-"]
        assert subprocess.run(run, input=text, text=True, capture_output=True, check=False).returncode != 0
        right = text.replace(number, "MDY_RATE(0.5)")
        assert subprocess.run(run, input=right, text=True, capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize("level", ["-O0", "-Os", "-O3"])
def test_the_device_computes_none_of_it(level: str, tmp_path: Path) -> None:
    source = tmp_path / "app.c"
    source.write_text(
        '#include "mdy/mdy.h"\nvoid fill(mdy_config_t *config);\nvoid fill(mdy_config_t *config)\n{\n'
        "    const mdy_schedule_t schedule = {MDY_RATE(0.02), 0, 0, 0, MDY_CLIP(0.3)};\n"
        "    config->schedule = schedule;\n    config->schedule.rate_mult = MDY_RATE_MULT(0.5);\n}\n"
    )
    flags = [level, "-std=c11", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=soft", *WARNINGS, f"-I{INCLUDE}"]
    subprocess.run(["arm-none-eabi-gcc", *flags, "-c", str(source), "-o", str(tmp_path / "app.o")], check=True)
    listed = ["arm-none-eabi-nm", "-u", str(tmp_path / "app.o")]
    undefined = subprocess.run(listed, check=True, capture_output=True, text=True).stdout
    assert not [name for name in undefined.split() if name.startswith("__aeabi")], undefined
    assert (tmp_path / "app.o").stat().st_size < 4096


SENSORS = {
    "pixels": (SCALINGS["signed"], Quant(0.00784, -1), 0.0, 255.0),
    "degrees": (Scaling(1.0, 0.0), Quant(0.25, 12), -40.0, 85.0),
    "tiny": (Scaling(1e-3, 0.0), Quant(4.0, -128), -30000.0, 30000.0),
    "fine": (Scaling(1.0, 0.5), Quant(2e-5, 0), -1.0, 1.0),
}


@pytest.mark.parametrize("name", SENSORS)
def test_values_of_a_sensor_become_what_a_run_feeds(name: str, tmp_path: Path) -> None:
    scaling, quant, low, high = SENSORS[name]
    values = np.random.default_rng(2).uniform(low, high, 4000)
    fixed = np.round(values * 65536).astype(np.int64)
    numbers = scaler(scaling, quant)
    assert numbers is not None
    bias, mult, shift = numbers
    source = tmp_path / "scale.c"
    source.write_text(
        '#include <stdio.h>\n#include "mdy/setup.h"\n'
        f"static const mdy_scaler_t s = {{INT64_C({bias}), {mult}, {shift}}};\n"
        "int main(void)\n{\n    long v;\n"
        '    while (scanf("%ld", &v) == 1) {\n        printf("%d\\n", mdy_scale(&s, (int32_t)v));\n    }\n'
        "    return 0;\n}\n"
    )
    subprocess.run(
        ["cc", "-std=c11", *WARNINGS, f"-I{INCLUDE}", str(source), "-o", str(tmp_path / "scale")], check=True
    )
    asked = "\n".join(map(str, fixed))
    done = subprocess.run([tmp_path / "scale"], input=asked, check=True, capture_output=True, text=True).stdout
    seen = np.array(done.split(), int)
    right = scaling.int8(fixed / 65536, quant).astype(int)
    assert np.abs(seen - right).max() <= 1
    assert (seen == right).mean() > 0.999
    assert len(np.unique(right)) > 10 or name == "tiny"
