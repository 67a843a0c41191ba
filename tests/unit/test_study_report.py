# SPDX-License-Identifier: Apache-2.0
"""What a report says of made-up results that were worked out by hand. Costs 4 s."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from conftest import REPOSITORY, Cli
from medyate.study import paired, spec, tables
from medyate.study.document import write
from medyate.study.rows import Row, groups, swept
from medyate.study.spec import Cell, Fixed
from medyate.study.store import Store, writing

STABLE = [None, 0.001, 0.5]


def row(strategy: str, data: str, seed: int, accuracy: float, budget: int = 1000, **settings: Any) -> Row:
    cell = Cell(
        "net.onnx", data, strategy, tuple(settings.items()), budget, seed, 0.01, Fixed(epochs=3, stability=True)
    )
    trained = strategy != "head"
    result = {
        "network": "net",
        "data": data,
        "accuracy": accuracy / 100,
        "accuracies": [0.1, 0.2, accuracy / 100],
        "losses": [2.0, 1.0, 0.5],
        "weights": [512 * trained, 256 * trained, 384 * trained],
        "activations": [640 * trained] * 3,
        "macs": [100 * trained, 300 * trained, 200 * trained],
        "deepest": [3, 1, 2],
        "p": STABLE,
        "k": 5 * trained,
        "total_weights": 3840,
        "total_activations": 6400,
        "total_macs": 4000,
    }
    return Row(cell, result)


ROWS = [
    *(row("medyate", "flowers", seed, value) for seed, value in enumerate((80.0, 82.0, 84.0))),
    *(row("medyate", "birds", seed, value) for seed, value in enumerate((60.0, 61.0, 62.0))),
    *(row("trady", "flowers", seed, value) for seed, value in enumerate((79.0, 80.0, 84.0))),
    *(row("trady", "birds", seed, value) for seed, value in enumerate((58.0, 60.0, 62.0))),
    *(row("head", "flowers", seed, 70.0, 0) for seed in range(3)),
    *(row("head", "birds", seed, 50.0, 0) for seed in range(3)),
]


def cells(text: str, first: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {first} |"))
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def test_accuracy_is_mean_and_deviation_and_the_average_sums_squares() -> None:
    """sqrt(2^2 + 1^2) = 2.24."""
    (group,) = groups(ROWS)
    text = tables.accuracy(group)
    assert cells(text, "medyate") == ["82.00 ± 2.00", "61.00 ± 1.00", "71.50 ± 2.24", "3"]
    assert cells(text, "head") == ["70.00 ± 0.00", "50.00 ± 0.00", "60.00 ± 0.00", "3"]
    assert [line.split(" | ")[0] for line in text.splitlines()[2:]] == ["| medyate", "| trady", "| head"]


def test_footprints_are_shares_of_the_whole_network() -> None:
    """384 of 3840 weights, 640 of 6400 map elements, 200 of 4000 multiply-adds; 11.5 points for 1 KiB."""
    (group,) = groups(ROWS)
    expected = ["5", "1,024", "90.00", "90.00", "95.00", "1", "11.50"]
    assert cells(tables.footprints(group), "medyate") == expected


def test_a_paired_t_test_is_students() -> None:
    """Differences 1 2 0 2 1 0: mean 1, s = sqrt(4 / 5), t = 1 / (s / sqrt(6)) = 2.7386; p of 5 degrees: 0.0409."""
    test = paired.compare(ROWS, "medyate", "trady")
    assert test is not None
    assert (test.difference, test.pairs) == (pytest.approx(1.0), 6)
    assert test.p == pytest.approx(0.0409, abs=1e-4)
    head = paired.compare(ROWS, "medyate", "head")
    assert head is not None
    assert (head.difference, head.pairs) == (pytest.approx(11.5), 6)  # one without a budget goes with any
    assert paired.compare(ROWS[:3], "medyate", "trady") is None
    assert paired.order(ROWS) == ("medyate", "trady", "head")


def test_holm_multiplies_the_smallest_p_most() -> None:
    """0.01 * 3, 0.03 * 2, and 0.04 * 1 is not below what came before; 0.6 * 2 is at most 1."""
    assert paired.holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert paired.holm([0.9, 0.6]) == [1.0, 1.0]
    assert paired.holm([]) == []


def test_contrasts_are_corrected_for_their_number() -> None:
    """The p above, 0.0409: alone, doubled, and the larger of two."""
    alone = paired.asked(ROWS, [("medyate", "trady")])
    assert cells(alone, "medyate - trady") == ["+1.00", "0.0409", "0.0409", "6"]
    two = paired.asked(ROWS, [("medyate", "trady"), ("trady", "medyate")])
    assert cells(two, "medyate - trady") == ["+1.00", "0.0409", "0.0817", "6"]
    assert cells(paired.against(ROWS, "medyate"), "trady") == ["-1.00", "0.0409", "0.0409", "6"]


def test_a_report_answers_what_the_study_asks(tmp_path: Path) -> None:
    other = [replace(r, result={**r.result, "network": "other"}) for r in ROWS]
    results = [(r.cell, r.result) for r in (*ROWS, *other)]
    write("made up", results, [], [], tmp_path, ".png", [("medyate", "trady")])
    text = (tmp_path / "report.md").read_text()
    assert cells(text, "medyate - trady")[-1] == "12"
    assert text.index("What the study asks") < text.index("net alone") < text.index("other alone")


def test_the_stored_results_say_what_the_page_says() -> None:
    """docs/RESULTS.md quotes the five contrasts, and the largest budget on one network."""
    page = (REPOSITORY / "docs" / "RESULTS.md").read_text()
    asked = spec.read(REPOSITORY / "tools" / "studies" / "results.toml").contrasts
    assert paired.asked(stored("results"), asked) in page
    own = [row for row in stored("large") if row.result["network"] == "mbv2-w0.35"]
    test = paired.compare(own, "su", "medyate")
    assert test is not None and test.p is not None
    assert f"{test.difference:+.2f} (p = {test.p:.2f}" in page


def stored(name: str) -> list[Row]:
    store = Store(REPOSITORY / "docs" / "studies" / f"{name}.sqlite", create=False)
    try:
        return [Row(cell, result) for cell, result in store.results()]
    finally:
        store.close()


def test_every_pair_is_tested() -> None:
    text = paired.matrix(ROWS)
    head = text.splitlines()[0]
    assert cells(text, "trady")[cells(head.replace("points (p)", "x"), "x").index("medyate")].startswith("-1.00 (")
    assert cells(text, "medyate")[0] == ""


def test_budgets_are_groups_that_share_what_needs_none() -> None:
    more = [*ROWS, row("medyate", "flowers", 0, 90.0, 2000)]
    small, large = groups(more)
    assert (small.budget, len(small.rows)) == (1000, 18)
    assert (large.budget, len(large.rows)) == (2000, 7)
    test = paired.compare(more, "medyate", "head")
    assert test is not None
    assert test.pairs == 7


def test_a_sweep_is_found_where_one_strategy_has_several_values() -> None:
    several = [row("medyate", "flowers", seed, 80.0 + k + seed, k=k) for k in (2, 4) for seed in (0, 2)]
    assert swept([*ROWS, *several], "k") == (2, 4)
    assert swept(ROWS, "k") == swept(ROWS, "alpha") == swept(ROWS, "budget") == ()
    text = tables.sweep(several, "k", (2, 4))
    assert cells(text, "2") == ["83.00 ± 1.41"]
    assert cells(text, "4") == ["85.00 ± 1.41"]


def test_engines_are_compared_cell_by_cell() -> None:
    def engine(made: Row, name: str, points: float) -> Row:
        cell = replace(made.cell, fixed=replace(made.cell.fixed, cost="device"), varied=(("engine", name),))
        return Row(cell, {**made.result, "accuracy": made.result["accuracy"] + points / 100})

    rows = [engine(row, "float", 0.0) for row in ROWS] + [engine(row, "device", 1.0) for row in ROWS[:6]]
    text = tables.engines(rows)
    assert cells(text, "net flowers medyate") == ["82.00", "83.00", "+1.00", "3"]
    assert cells(text, "average") == ["71.50", "72.50", "+1.00", "6"]
    assert "trady" not in text
    assert tables.engines(ROWS) == ""
    assert cells(tables.footprints(groups(rows)[0]), "medyate (engine=float)")[-1] != ""


def test_stability_is_the_mean_by_epoch() -> None:
    assert cells(tables.stability(ROWS), "trady on birds") == ["0.001", "0.500"]


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_report_has_its_pictures(suffix: str, tmp_path: Path) -> None:
    several = [row("medyate", "flowers", seed, 80.0 + k + seed, k=k) for k in (2, 4) for seed in (0, 2)]
    ranking = {
        "network": "net",
        "task": "flowers",
        "layers": [{"layer": n, "lara": i, "trady": -i} for i, n in enumerate("abc")],
    }
    results = [(r.cell, r.result) for r in (*ROWS, *several)]
    content = write("made up", results, [(ROWS[0].cell, "no memory")], [ranking, ranking], tmp_path, suffix)
    text = (tmp_path / "report.md").read_text()
    for heading in ("Paired t-tests", "Sweep of k", "Stability of the norms", "Spearman's correlation", "Failed:"):
        assert heading in text
    for picture in map(Path, content["pictures"]):
        assert f"({picture.name})" in text
        if suffix == ".png":
            with Image.open(picture) as drawn:
                assert len(drawn.convert("RGB").getcolors(1 << 24)) > 20
        else:
            assert picture.read_text().startswith("<?xml")
    assert {Path(name).stem for name in content["pictures"]} == {
        "curves1",
        "tests1",
        "sweep_k",
        "stability",
        "rankings1",
    }
    assert content["failed"] == 1


def test_a_report_of_nothing_is_refused(tmp_path: Path, run_cli: Cli) -> None:
    missing = run_cli("study", "report", tmp_path / "none.sqlite")
    assert (missing.code, "does not exist" in missing.err) == (2, True)
    with writing(tmp_path / "r.sqlite") as store:
        store.add(ROWS[0].cell, None, "no memory")
    empty = run_cli("study", "report", tmp_path / "r.sqlite")
    assert (empty.code, "no cell of 'r' has a result" in empty.err) == (2, True)
    assert run_cli("study", "report", tmp_path / "r.sqlite", "--format", "gif").code == 2
