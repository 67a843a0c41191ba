# SPDX-License-Identifier: Apache-2.0
"""Three commits of a small network, cut at every operation: training goes on and ends as if nothing had happened."""

from __future__ import annotations

import os
from dataclasses import dataclass

import pytest

from machine import AFTER, BEFORE, INSIDE, Identity, Machine
from medyate.datasets import epoch_order
from medyate.run.train import Compiled
from shared_files import Samples
from tiny import WIDE, compile_tiny, samples_of

EPOCHS = 3
EPOCH_SAMPLES = 8
SEEDS = 100 if os.environ.get("MEDYATE_LONG") == "1" else 10
"""Ways in which an operation happens in part."""


@dataclass(frozen=True)
class Stands:
    """A generation: what a boot makes of it, and its bytes in flash."""

    identity: Identity
    payload: bytes


def epoch(machine: Machine, samples: Samples, number: int) -> None:
    """Trains one epoch; what it sees follows from its number."""
    machine.train(samples, [int(i) for i in epoch_order(2, number, len(samples.x))[:EPOCH_SAMPLES]])


def stands(machine: Machine) -> Stands:
    """After a boot."""
    identity = machine.boot()
    return Stands(identity, machine.payload(machine.bank_in_use))


@pytest.fixture(scope="module", params=["units of 4", "units of 32"])
def machine(request: pytest.FixtureRequest, tiny_host: Compiled, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    folder = tmp_path_factory.mktemp("tiny")
    return Machine(tiny_host if request.param == "units of 4" else compile_tiny(folder, flash=WIDE), folder)


def test_every_cut_leaves_a_generation_from_which_training_goes_on(machine: Machine) -> None:
    samples = samples_of(machine.compiled)
    machine.format()
    machine.boot(fresh=True)
    generations = [Stands(machine.boot(), b"")]
    operations = []
    for number in range(EPOCHS):
        epoch(machine, samples, number)
        committed, begun = machine.end_epoch()
        assert committed
        operations.append(begun)
        generations.append(stands(machine))
    assert len({g.identity.state for g in generations}) == len({g.identity.weights for g in generations}) == EPOCHS + 1
    assert all(begun > 10 for begun in operations)

    machine.format()
    machine.boot(fresh=True)
    for number, begun in enumerate(operations):
        machine.boot()
        epoch(machine, samples, number)
        machine.lib.cut_probe_keep()
        old, new = generations[number], generations[number + 1]
        for at in range(1, begun + 1):
            for phase, seed in [(BEFORE, 0), *((INSIDE, seed) for seed in range(SEEDS)), (AFTER, 0)]:
                machine.lib.cut_probe_restore()
                assert machine.end_epoch(at, phase, seed) == (False, at)
                identity = machine.boot()
                where = f"commit {number + 1}, operation {at} of {begun}, phase {phase}, seed {seed}"
                last = {BEFORE: [old], INSIDE: [old, new], AFTER: [new]}[phase] if at == begun else [old]
                found = Stands(identity, machine.payload(machine.bank_in_use) if identity.generation else b"")
                assert found in last, where
                for later in range(identity.epochs, EPOCHS):
                    epoch(machine, samples, later)
                    assert machine.end_epoch()[0], where
                    assert machine.identity() == generations[later + 1].identity, where
                assert stands(machine) == generations[-1], where
        machine.lib.cut_probe_restore()
        assert machine.end_epoch()[0]
