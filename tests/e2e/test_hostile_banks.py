# SPDX-License-Identifier: Apache-2.0
"""Generations whose checksums fit and whose values do not, counts at their end, and what a reset leaves."""

from __future__ import annotations

import ctypes
import struct

import numpy as np
import pytest

from machine import AFTER, BEFORE, INSIDE, OK, Machine
from medyate.export.trained import read_compiled
from medyate.ledger import BANK_BODY_BYTES, BANK_HEADER_BYTES
from medyate.run.train import Compiled
from shared_files import Samples
from tiny import compile_tiny, samples_of

MOST = 2**32 - 1
GENERATION, EPOCHS, ERASES, OTHER_ERASES = 2, 6, 13, 14
"""Words of a header."""
STEPS, SEED, RATE, EXPONENT, COSINE, WARMUP, TOTAL, CLIP, FLAGS, SHIFT, SMOOTHING = range(11)
"""Words of the settings."""


def committed(machine: Machine, samples: Samples) -> Machine:
    """Generation 3 in bank 0 and generation 2 in bank 1; kept."""
    machine.format()
    machine.boot(fresh=True)
    for number in range(3):
        machine.train(samples, slice(4 * number, 4 * number + 4))
        assert machine.commit() == OK
    machine.boot()
    machine.lib.cut_probe_keep()
    return machine


@pytest.fixture(scope="module")
def samples(tiny_host: Compiled) -> Samples:
    return samples_of(tiny_host)


@pytest.fixture(scope="module")
def selecting(tiny_host: Compiled, samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    return committed(Machine(tiny_host, tmp_path_factory.mktemp("tiny")), samples)


@pytest.fixture(scope="module")
def biased(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """All channels, always, and biases."""
    folder = tmp_path_factory.mktemp("full")
    compiled = compile_tiny(folder, flash=None, strategy="full", head_start="keep")
    return committed(Machine(compiled, folder), samples)


def places(machine: Machine) -> dict[str, range]:
    """Bytes of each saved array in a payload."""
    state = read_compiled(machine.compiled)[2].state
    return {array.name: range(array.offset, array.offset + array.bytes) for array in state.arrays if array.saved}


def refused(machine: Machine, samples: Samples) -> bool:
    """Whether bank 0 is not used; what is used trains and commits."""
    assert machine.start_under() == OK
    states = [found.state for found in machine.found()]
    machine.train(samples, slice(0, 4))
    is_refused = machine.identity().generation == 2
    assert states == (["damaged", "usable"] if is_refused else ["usable", "usable"])
    assert machine.commit() == OK
    made = machine.identity()
    assert machine.boot() == made
    return is_refused


def test_other_checksums_alone_are_no_reason(selecting: Machine, samples: Samples) -> None:
    selecting.lib.cut_probe_restore()
    selecting.rewrite(0)
    assert not refused(selecting, samples)


@pytest.mark.parametrize(
    ("word", "value", "taken"),
    [
        *((EXPONENT, exponent % 2**32, abs(exponent) <= 64) for exponent in (-(2**31), -65, -64, 64, 65, 2**31 - 1)),
        *((RATE, mult, mult < 2**16) for mult in (1, 2**16 - 1, 2**16, MOST)),
        *((CLIP, clip, clip in (0x07FF, 0x2400)) for clip in (0x07FF, 0x2400, 0x0801, 0xB400, 0xFFFF, 0x12400, MOST)),
        *((FLAGS, flags, flags <= 3) for flags in (0, 1, 2, 3, 4, MOST)),
        *((COSINE, value, value <= 1) for value in (0, 1, 2, MOST)),
        *((SHIFT, pixels, pixels <= 31) for pixels in (0, 31, 32, 256, MOST)),
        *((SMOOTHING, share, share <= 128) for share in (0, 128, 129, 256, MOST)),
        *((word, value, True) for word in (STEPS, SEED, WARMUP, TOTAL) for value in (0, MOST)),
    ],
)
def test_settings_of_a_generation(selecting: Machine, samples: Samples, word: int, value: int, taken: bool) -> None:
    """A rate, a clip or flags that cannot be are damage; every seed and count can be."""
    selecting.lib.cut_probe_restore()
    selecting.rewrite(0, settings={word: value})
    assert refused(selecting, samples) != taken


@pytest.mark.parametrize(
    ("word", "taken"), [(EPOCHS, True), (ERASES, True), (OTHER_ERASES, True), *((word, False) for word in range(8, 13))]
)
def test_words_of_a_header(selecting: Machine, samples: Samples, word: int, taken: bool) -> None:
    for value in (1, MOST):
        selecting.lib.cut_probe_restore()
        selecting.rewrite(0, {word: value})
        assert refused(selecting, samples) != taken


@pytest.mark.parametrize("body_bytes", [32, 40, 48, 64])
def test_settings_of_another_length_are_read_and_written_again_as_this_runtime_has_them(
    selecting: Machine, samples: Samples, body_bytes: int
) -> None:
    """Those that are missing are 0; what follows them trains on as if nothing had been moved."""
    machine = selecting
    ended = []
    for length in (BANK_BODY_BYTES, body_bytes):
        machine.lib.cut_probe_restore()
        kept = dict.fromkeys(range(body_bytes // 4, BANK_BODY_BYTES // 4), 0)
        machine.rewrite(0, settings={} if length < BANK_BODY_BYTES else kept, body_bytes=length)
        assert machine.start_under() == OK
        assert [found.state for found in machine.found()] == ["usable", "usable"]
        started = machine.identity()
        for part in range(3):
            machine.train(samples, slice(4 * part, 4 * part + 4))
            assert machine.commit() == OK
        made = machine.identity()
        assert machine.boot() == made
        ended.append((started, made, machine.payload(machine.bank_in_use)))
    assert ended[0] == ended[1]


def test_a_setting_that_this_runtime_does_not_know_is_a_newer_format(selecting: Machine, samples: Samples) -> None:
    selecting.lib.cut_probe_restore()
    selecting.rewrite(0, settings={len(range(11)): 1}, body_bytes=BANK_BODY_BYTES + 4)
    assert selecting.start_under() == OK
    assert [found.state for found in selecting.found()] == ["other format", "usable"]
    assert selecting.identity().generation == 2


@pytest.mark.parametrize("body_bytes", [1, 42, 260, 2**31, MOST - 3])
def test_settings_of_an_impossible_length_are_damage(selecting: Machine, samples: Samples, body_bytes: int) -> None:
    selecting.lib.cut_probe_restore()
    rest = len(selecting.payload(0)) - BANK_BODY_BYTES
    selecting.rewrite(0, {7: body_bytes, 4: (rest + body_bytes) % 2**32})
    assert refused(selecting, samples)


@pytest.mark.parametrize(
    ("array", "patterns", "taken"),
    [
        ("head_weight", (b"\x00\x80", b"\xff\x7f"), True),
        ("head_bias", (b"\x00\x00\x00\x80", b"\xff\xff\xff\x7f"), True),
        ("slot_r", (b"\x00\x80", b"\xff\x7f", b"\x00\x00"), True),
        ("norms", (b"\x00\x00", b"\xff\xff", b"\x00\xb4", b"\x01\x08"), False),
    ],
)
def test_values_of_a_state(
    selecting: Machine, samples: Samples, array: str, patterns: tuple[bytes, ...], taken: bool
) -> None:
    """Kernels take any head and any exponents; norms are packed, and 0 only where a channel may never be drawn."""
    place = places(selecting)[array]
    for pattern in patterns:
        for content in (pattern * (len(place) // len(pattern)), pattern):
            selecting.lib.cut_probe_restore()
            selecting.rewrite(0, state={place.start: content})
            assert refused(selecting, samples) != taken, pattern


def test_weights_may_be_any(selecting: Machine, samples: Samples) -> None:
    for value in (0x80, 0x7F, 0xFF):
        selecting.lib.cut_probe_restore()
        start = read_compiled(selecting.compiled)[2].state.saved_bytes
        selecting.rewrite(0, state={start: bytes([value]) * (len(selecting.payload(0)) - BANK_BODY_BYTES - start)})
        assert not refused(selecting, samples)


def test_a_selection_is_within_the_budget_and_of_channels_that_there_are(selecting: Machine, samples: Samples) -> None:
    place = places(selecting)["selection"]
    plan = selecting.compiled.plan
    costs = [c["record_bytes"] for c in plan["candidates"] for _ in range(c["channels"])]
    assert sum(costs) > plan["epoch_bytes"]
    random = np.random.default_rng(2)
    for _ in range(60):
        chosen = random.random(8 * len(place)) < random.random()
        cost = sum(cost for cost, taken in zip(costs, chosen, strict=False) if taken)
        fits = cost <= plan["epoch_bytes"] and not chosen[len(costs) :].any()
        selecting.lib.cut_probe_restore()
        selecting.rewrite(0, state={place.start: np.packbits(chosen, bitorder="little").tobytes()})
        assert refused(selecting, samples) == (not fits)


def test_a_bias_is_within_its_bound(biased: Machine, samples: Samples) -> None:
    place = places(biased)["biases"]
    assert len(place) > 0
    for value in (-(2**31), -(2**31) + 1, 2**31 - 1):
        for at in range(place.start, place.stop, 4):
            biased.lib.cut_probe_restore()
            biased.rewrite(0, state={at: struct.pack("<i", value)})
            assert refused(biased, samples), (value, at)
    biased.lib.cut_probe_restore()
    biased.rewrite(0, state={place.start: struct.pack("<i", 5000)})
    assert not refused(biased, samples)


# Counts


def counted(machine: Machine) -> list[int]:
    words = (ctypes.c_uint32 * 6)()
    machine.lib.cut_probe_counted(words)
    return list(words)


def test_counts_stay_at_their_largest(selecting: Machine, samples: Samples) -> None:
    machine = selecting
    machine.lib.cut_probe_restore()
    machine.lib.cut_probe_count(*map(ctypes.c_uint32, (MOST - 1, MOST - 2, MOST - 1, 7, MOST - 1)))
    machine.train(samples, slice(0, 4))
    assert counted(machine) == [MOST - 1, MOST, MOST, 7, MOST - 1, MOST - 1]
    for generation in (8, 9, 10, 11):
        assert machine.commit() == OK
        assert counted(machine)[:4] == [MOST, MOST, 0, generation]
        made = machine.identity()
        assert machine.boot() == made
        machine.train(samples, slice(0, 1))
    assert counted(machine)[4:] == [MOST, MOST]


def test_in_batches_a_sample_keeps_its_place_in_one(samples: Samples, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("batch")
    machine = committed(Machine(compile_tiny(folder, batch=4), folder), samples)
    machine.lib.cut_probe_count(*map(ctypes.c_uint32, (1, 100, MOST - 2, 7, 1)))
    places = []
    for sample in range(9):
        places.append(counted(machine)[2] % 4)
        machine.train(samples, slice(sample, sample + 1))
    assert places == [1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert counted(machine)[2] > MOST - 4


def test_generations_are_in_order_across_the_largest_number(selecting: Machine, samples: Samples) -> None:
    machine = selecting
    machine.lib.cut_probe_restore()
    machine.rewrite(0, {GENERATION: MOST - 1})
    machine.rewrite(1, {GENERATION: MOST - 2})
    numbers = []
    for _ in range(5):
        machine.boot()
        numbers.append(machine.identity().generation)
        machine.train(samples, slice(0, 2))
        steps = machine.identity().steps
        assert machine.commit() == OK
        assert machine.boot().steps == steps
    assert numbers == [MOST - 1, MOST, 1, 2, 3]  # 0 is none


# Resets


def test_a_factory_reset_without_power_leaves_what_was_learned_or_nothing(selecting: Machine) -> None:
    machine = selecting
    for newest in (0, 1):
        machine.lib.cut_probe_restore()
        if newest == 1:
            machine.rewrite(1, {GENERATION: 9})
        learned = machine.boot()
        factory = machine.boot(fresh=True)
        stood = set()
        for wipe in (False, True):
            for at in range(1, 3 + 6 * wipe):
                for phase in (BEFORE, INSIDE, AFTER):
                    for seed in range(20 if phase == INSIDE else 1):
                        machine.lib.cut_probe_restore()
                        if newest == 1:
                            machine.rewrite(1, {GENERATION: 9})
                        machine.boot()
                        assert machine.reset(wipe=wipe, cut_at=at, cut_phase=phase, seed=seed) != OK
                        found = machine.boot()
                        stood.add(found.epochs)
                        assert found == learned or (found.epochs, found.state) == (0, factory.state), (at, phase, seed)
        assert stood == {0, learned.epochs}


def test_a_wipe_leaves_no_byte_of_what_was_learned(selecting: Machine) -> None:
    machine = selecting
    machine.lib.cut_probe_restore()
    size = machine.compiled.flash.size
    rest = machine.payload(0)[256 - BANK_HEADER_BYTES :]  # in the bank's second sector
    assert machine.reset() == OK
    assert rest in machine.read(0, size)
    assert machine.boot().epochs == 0
    machine.lib.cut_probe_restore()
    assert machine.reset(wipe=True) == OK
    assert set(machine.read(0, size)) == {0xFF}
    assert machine.boot().epochs == 0
    assert [found.state for found in machine.found()] == ["empty", "empty"]


def test_a_wipe_that_meets_a_dead_sector_names_it_and_erases_the_others(selecting: Machine) -> None:
    machine = selecting
    sizes = [size for count, size in machine.compiled.flash.runs for _ in range(count)]
    for sector in range(len(sizes)):
        machine.lib.cut_probe_restore()
        start = sum(sizes[:sector])
        assert machine.reset(wipe=True, dead_address=start, dead_bytes=1) != OK
        assert machine.fault == sector
        machine.arm()
        left = machine.read(0, sum(sizes))
        assert set(left[:start] + left[start + sizes[sector] :]) == {0xFF}
