# SPDX-License-Identifier: Apache-2.0
"""The applications without a host: they learn on an emulated Cortex-M7, keep it, and commit at the right time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from apps import (
    COMMITTED,
    INFERRED,
    NO_LABEL,
    REFUSED,
    TRAINED,
    Shown,
    Turn,
    in_qemu,
    looked_at,
    on_host,
    right,
    taught,
)
from medyate.build.compile import build
from medyate.build.project import APPS, write_project
from medyate.errors import LinkError
from medyate.plan.budget import Limits
from medyate.plan.plan import Plan
from medyate.run.train import Compiled, connect, int8_samples
from medyate.stages import Options, compile_model
from shared_files import ROOT, field_digits
from tiny import compile_tiny, samples_of

DIGITNET = ROOT / "models" / "digitnet" / "digitnet.onnx"
RATE = "-O3 -funroll-loops -DAPP_RATE=0.05"
"""0.05: digitnet is shallow."""
PRESSES, LOOKS, COMMIT_STEPS, IDLE = 400, 100, 32, 64
ARGUMENT, FLASH = -1, -4


@dataclass(frozen=True)
class Field:
    """digitnet as pretrained, planned for a Cortex-M7, and the digits that the changed installation sees."""

    folder: Path
    plan: Plan
    x_train: NDArray[np.int8]
    y_train: NDArray[np.int64]
    x_test: NDArray[np.int8]
    y_test: NDArray[np.int64]

    def program(self, app: str, folder: Path, edit: Callable[[Path], None] = lambda _: None) -> Path:
        """The image with an application, after `edit` of its folder."""
        write_project(self.plan, folder, app=app, board_ram_bytes=64 << 10)
        edit(folder / "app")
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("ARM_CFLAGS", RATE)
            return build(self.plan, folder, "qemu-m7", "make").path


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    folder, data = tmp_path_factory.mktemp("field"), field_digits()
    options = Options("qemu-m7", Limits(32 << 10), head="keep", rank_epochs=1, builder="make", app="learn_by_button")
    plan, _ = compile_model(DIGITNET, data, options, folder)
    x_train, x_test = int8_samples(Compiled.read(folder), data)
    return Field(folder, plan, x_train, data.y_train, x_test, data.y_test)


def early(events: Sequence[Shown]) -> int:
    """Commits that did not wait for the button to be up: a sample with a button down does not end in one."""
    pairs = itertools.pairwise(events)
    return sum(then.event == COMMITTED and event.event == TRAINED for event, then in pairs)


def test_it_learns_by_button_and_a_reset_forgets_nothing(field: Field, tmp_path: Path) -> None:
    image = field.program("learn_by_button", tmp_path / "project")
    look, y = looked_at(field.x_test[:LOOKS]), field.y_test[:LOOKS].tolist()
    teach = taught(field.x_train[:PRESSES], field.y_train[:PRESSES].tolist())
    events = in_qemu(image, "qemu-m7", tmp_path / "run", [*look, *teach, *look])
    inferred = [event for event in events if event.event == INFERRED]
    before, after = inferred[:LOOKS], inferred[-LOOKS:]
    assert right(before, y) < 0.2
    assert right(after, y) > 0.8
    kinds = [event.event for event in events]
    assert kinds.count(TRAINED) == PRESSES
    assert kinds.count(COMMITTED) == PRESSES // COMMIT_STEPS + 1  # the rest when the user has gone
    assert kinds.count(REFUSED) == 0
    assert early(events) == 0
    again = in_qemu(image, "qemu-m7", tmp_path / "run", look)
    assert [e.prediction for e in again if e.event == INFERRED] == [e.prediction for e in after]
    assert COMMITTED not in {event.event for event in again}  # nothing was learned since


def test_a_commit_while_the_button_is_down_would_be_seen(field: Field, tmp_path: Path) -> None:
    def careless(app: Path) -> None:
        source = app / "commits.c"
        source.write_text(source.read_text().replace("if (is_down || ", "if ("))

    image = field.program("learn_by_button", tmp_path / "project", careless)
    teach = taught(field.x_train[:40], field.y_train[:40].tolist(), burst=40)
    assert early(in_qemu(image, "qemu-m7", tmp_path / "run", teach)) > 0


def forgotten(field: Field, image: Path, folder: Path, age: int) -> tuple[float, float]:
    """Accuracy on the digits 0 to 4 after they were taught, and after 5 to 9 were; labels come `age` samples late."""
    y = field.y_train
    turns: list[Turn] = []
    for first in (0, 5):
        chosen = [i for i in range(len(y)) if first <= y[i] < first + 5][:150]
        for at, index in enumerate(chosen):
            late = chosen[at - age] if at >= age else None
            label = NO_LABEL if late is None else int(y[late])
            turns.append(Turn(field.x_train[index], label, age if late is not None else 0))
        turns += looked_at(field.x_test[field.y_test < 5][:LOOKS])
    inferred = [e for e in in_qemu(image, "qemu-m7", folder, turns) if e.event == INFERRED]
    labels = field.y_test[field.y_test < 5][:LOOKS].tolist()
    per_turn = len(inferred) == len(turns)  # replay infers each sample, the other those without a label
    first = len(turns) // 2 - LOOKS if per_turn else 0
    return right(inferred[first : first + LOOKS], labels), right(inferred[-LOOKS:], labels)


def test_rehearsal_keeps_old_classes_though_labels_come_late(field: Field, tmp_path: Path) -> None:
    plain = field.program("learn_by_button", tmp_path / "plain")
    replay = field.program("replay", tmp_path / "replay")
    learned, kept = forgotten(field, plain, tmp_path / "run-plain", 0)
    learned_late, kept_late = forgotten(field, replay, tmp_path / "run-replay", 3)
    assert min(learned, learned_late) > 0.8
    assert kept_late > kept + 0.2


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Compiled]:
    """A small network with an application, for this machine."""

    def made(app: str, **limits: int) -> Compiled:
        return compile_tiny(tmp_path_factory.mktemp(app), app=app, **limits)

    return made


def test_no_commit_cuts_a_batch_in_two_but_when_the_user_has_gone(
    tiny: Callable[..., Compiled], tmp_path: Path
) -> None:
    compiled = tiny("learn_by_button", batch=4)
    samples = samples_of(compiled)
    x, y = np.concatenate([samples.x] * 3), np.concatenate([samples.y] * 3)[:90]
    turns = [*taught(x[:90], y.tolist(), burst=3, pause=1), *looked_at(x[:IDLE])]
    events = [event.event for event in on_host(compiled.image, tmp_path, turns)]
    epochs = "".join("LTCR"[event] for event in events).replace("L", "").split("C")
    assert [len(epoch) for epoch in epochs] == [36, 36, 18, 0]


def test_what_cannot_be_learned_is_refused_and_the_rest_goes_on(tiny: Callable[..., Compiled], tmp_path: Path) -> None:
    compiled = tiny("learn_by_button")
    samples = samples_of(compiled)
    x, y = samples.x, samples.y.tolist()
    wrong = [Turn(x[0], 4), Turn(x[0], y[0], age=1)]
    events = on_host(compiled.image, tmp_path, [*wrong, *taught(x[:8], y[:8])])
    assert [(e.event, e.status) for e in events[:3]] == [(REFUSED, ARGUMENT), (REFUSED, ARGUMENT), (TRAINED, 0)]


def test_a_flash_that_refuses_is_asked_again_after_as_many_steps(tiny: Callable[..., Compiled], tmp_path: Path) -> None:
    compiled = tiny("learn_by_button")
    samples = samples_of(compiled)
    x, y = np.concatenate([samples.x] * 3), np.concatenate([samples.y] * 3).tolist()
    events = on_host(compiled.image, tmp_path, taught(x, y), MDY_FLASH_FAIL="1:4")
    steps = "".join("LTCR"[event.event] for event in events).replace("L", "")
    assert steps == ("T" * COMMIT_STEPS + "R") * 2 + "T" * COMMIT_STEPS + "C"  # an operation is tried twice
    assert {event.status for event in events if event.event == REFUSED} == {FLASH}


def test_a_label_of_a_sample_that_is_gone_is_refused(tiny: Callable[..., Compiled], tmp_path: Path) -> None:
    """32 slots, of which 8 for samples without a label: while nothing has one, all of them wait."""
    compiled = tiny("replay")
    samples = samples_of(compiled)
    x, y = np.concatenate([samples.x] * 4), np.concatenate([samples.y] * 4).tolist()
    turns = looked_at(x[:40])
    turns += [Turn(x[40], y[40 - 31], age=31), Turn(x[41], y[10], age=31), Turn(x[42], y[0], age=42)]
    events = on_host(compiled.image, tmp_path, turns)[40:]
    assert [e.event for e in events] == [INFERRED, TRAINED, INFERRED, REFUSED, INFERRED, REFUSED]


@pytest.mark.parametrize("app", [name for name in APPS if name != "serial_trainer"])
def test_run_says_that_an_application_speaks_to_no_host(
    app: str, tiny: Callable[..., Compiled], tmp_path: Path
) -> None:
    with (
        pytest.raises(LinkError, match=f"{app}, which speaks to no host"),
        connect(tiny(app), "host", tmp_path / "flash.bin"),
    ):
        pass
