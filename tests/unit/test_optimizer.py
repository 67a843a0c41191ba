# SPDX-License-Identifier: Apache-2.0
"""The seam of the optimiser: another one is a record and a C file, and sampler, store and plan serve it as they are."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from medyate.emit.emitter import emit
from medyate.optimizer import Optimizer
from medyate.plan.budget import Limits
from medyate.plan.plan import Plan
from medyate.stages import Options, gather, silent
from probe import Probe
from shared_files import ROOT, field_digits

DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"
SIGN = Optimizer("sign_descent", "sign.h", single_bytes=1, batch_bytes=1)
SOURCES = Path(__file__).parent.parent / "c" / "sign"


@pytest.fixture(scope="module")
def plans() -> tuple[Plan, Plan]:
    """One network, by SGD and by the other."""
    limits = Limits(24 << 10)
    made = gather(DIGITNET, field_digits(), Options("host", limits, rank_epochs=1), silent)
    return made.plan(limits), made.plan(replace(limits, optimizer=SIGN))


def test_what_an_optimiser_keeps_is_in_every_record(plans: tuple[Plan, Plan]) -> None:
    sgd, sign = ({c.layer: c.cost for c in plan.candidates} for plan in plans)
    for layer in sgd.keys() & sign.keys():
        kept = sign[layer].record_bytes - sgd[layer].record_bytes
        assert kept == -(-sign[layer].weights // 4) * 4
    assert "&sign_descent" in emit(plans[1])["mdy_model.c"]


def test_another_optimiser_trains_is_committed_and_resampled(plans: tuple[Plan, Plan], tmp_path: Path) -> None:
    probe = Probe(plans[1], tmp_path, record=False, more=(SOURCES / "sign.c",))
    probe.init(seed=1, rate_mult=20000, rate_exponent=-16)
    net = ctypes.c_void_p(ctypes.addressof(ctypes.c_uint8.in_dll(probe.lib, "probe_net")))
    counts = (ctypes.c_uint32 * 3)()
    dataset = field_digits()
    samples = np.clip(dataset.x_train[:12].astype(np.int16) - 128, -128, 127).astype(np.int8)
    digests = [probe.digests()]
    for _ in range(2):
        for sample, label in zip(samples, dataset.y_train[:12], strict=True):
            probe.step(sample, int(label))
        probe.lib.sign_counts(net, counts)
        assert counts[0] > 0 and counts[1] == 0 and counts[2] > 100
        digests.append(probe.digests())
        probe.end_epoch()
        probe.lib.sign_counts(net, counts)
        assert counts[0] > 0 and counts[2] == 0  # cleared with the records
    selections = {digest[1] for digest in digests}
    assert len({digest[3] for digest in digests}) == len(digests) and len(selections) > 1
