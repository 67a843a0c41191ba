# SPDX-License-Identifier: Apache-2.0
"""Groups that run row by row: a ring holds every row that is still read, an overlap spares every byte that is."""

from __future__ import annotations

import numpy as np

from medyate.ledger import align
from medyate.ops._spatial import window_rows
from medyate.plan.steps import Step, Use, covering, one_by_one
from medyate.plan.stream import walk


def random_group(random: np.random.Generator) -> tuple[list[Step], dict[str, int], dict[str, int]]:
    """(steps, bytes of a row, rows) of a chain of windows with branches, sums, changes in place and ways back."""
    height = int(random.integers(4, 20))
    heights, pace = {"x": height}, {"x": int(random.integers(1, 9)) * 4}
    steps: list[Step] = []
    last = "x"
    for number in range(int(random.integers(1, 7))):
        kernel, stride = int(random.integers(1, 6)), int(random.integers(1, 4))
        pad = int(random.integers(0, kernel))
        count = (heights[last] + 2 * pad - kernel) // stride + 1
        if count < 1:
            break
        name = f"v{number}"
        rows = window_rows(heights[last], count, kernel, stride, 1, pad)
        wider = (heights[last] - 1) * stride + kernel - 2 * pad
        if random.random() < 0.4 and wider > 0:  # as a gradient goes back: the rows whose windows cover it
            rows, count = covering(window_rows(wider, heights[last], kernel, stride, 1, pad), wider), wider
        heights[name], pace[name] = count, int(random.integers(1, 9)) * 4
        steps.append(Step("run", name, count, (Use(last, "read", rows), Use(name, "write", one_by_one(count)))))
        if random.random() < 0.3:
            steps.append(Step("mask", f"m{number}", count, (Use(name, "change", one_by_one(count)),)))
        if random.random() < 0.3:
            steps.append(Step("weights", f"w{number}", count, (Use(name, "read", one_by_one(count)),)))
        branches = [other for other in heights if heights[other] == count and other != name]
        if branches and random.random() < 0.6:
            other, total = str(random.choice(branches)), f"s{number}"
            heights[total], pace[total] = count, pace[name]
            uses = (*(Use(v, "read", one_by_one(count)) for v in (name, other)), Use(total, "write", one_by_one(count)))
            steps.append(Step("run", total, count, uses, in_place=True))
            name = total
        last = name
    if len(heights) > 2 and random.random() < 0.5:  # changed when all others have read it
        late = str(random.choice([name for name in heights if name not in ("x", last)]))
        steps.append(Step("mask", "late", heights[late], (Use(late, "change", one_by_one(heights[late])),)))
    return steps, pace, heights


def test_rings_hold_what_is_read_and_overlaps_spare_it() -> None:
    random = np.random.default_rng(11)
    small = shared = 0
    for _ in range(600):
        steps, pace, heights = random_group(random)
        if not steps:
            continue
        found = walk(steps, pace)
        assert sorted(found.order) == sorted(n for n, step in enumerate(steps) for _ in range(step.rows))
        for pair in [("", ""), *found.lags]:
            play(steps, pace, heights, found.order, dict(found.rings), pair, found.lags.get(pair, 0))
        small += sum(rows < heights[name] for name, rows in found.rings.items())
        shared += sum(align(lag, 4) < heights[made] * pace[made] for (made, _), lag in found.lags.items())
    assert small > 500 and shared > 500, "nothing was saved: the cases are too easy"


def play(
    steps: list[Step],
    pace: dict[str, int],
    heights: dict[str, int],
    order: bytes,
    rings: dict[str, int],
    pair: tuple[str, str],
    lag: int,
) -> None:
    """Runs the order; each held row knows which one it is. The made value of `pair` lies `lag` before the old one."""
    made, old = pair
    held: dict[str, dict[int, int]] = {"x": {row: row for row in range(heights["x"])}}
    start = {old: align(lag, 4), made: 0}
    owner = {start[old] + i: (old, i // pace[old]) for i in range(heights[old] * pace[old])} if old else {}
    changed: dict[tuple[str, int], int] = {}
    done = [0] * len(steps)
    for number in order:
        step, row = steps[number], done[number]
        for use in step.uses:
            assert use.rows is not None
            slots = heights[use.value] if use.value in (made, old, "x") else rings[use.value]
            changers = [
                n for n, s in enumerate(steps) if any(u.value == use.value and u.mode == "change" for u in s.uses)
            ]
            for wanted in range(*use.rows[row]):
                if use.mode == "write":
                    held.setdefault(use.value, {})[wanted % slots] = wanted
                    for i in range(pace[use.value]) if use.value == made else ():
                        owner[wanted * pace[made] + i] = (made, wanted)
                    continue
                assert held[use.value].get(wanted % slots) == wanted, f"{step.node} misses row {wanted} of {use.value}"
                if use.value in (made, old):
                    at = start[use.value] + wanted * pace[use.value]
                    whole = range(at, at + pace[use.value])
                    in_place = step.in_place and old in [u.value for u in step.uses] and pace[made] == pace[old]
                    assert in_place or all(owner[i] == (use.value, wanted) for i in whole), (
                        f"{use.value} was overwritten"
                    )
                if use.mode == "change":
                    changed[use.value, wanted] = changed.get((use.value, wanted), 0) + 1
                elif use.mode == "read":  # earlier readers see the row before, later ones after the change
                    before = sum(c < number for c in changers)
                    assert changed.get((use.value, wanted), 0) == before
        done[number] += 1
