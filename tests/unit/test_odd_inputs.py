# SPDX-License-Identifier: Apache-2.0
"""Inputs that are legal somewhere else and must end in a clear sentence, or in sound C, here."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from medyate.datasets import check_pixels
from medyate.emit.filters import c_comment, c_ident, c_string, derived, unique_idents
from medyate.errors import BudgetError, DataError, UnsupportedOpError
from medyate.frontends.builder import GraphBuilder
from medyate.ops.average_pool import AveragePool
from medyate.passes.pipeline import normalise
from medyate.plan.budget import Limits, choose
from medyate.plan.plan import classes_loss
from medyate.quantize.apply import quantize
from medyate.rank.collect import GradientNorms
from medyate.rank.lara import channel_costs, rank


def builder() -> GraphBuilder:
    return GraphBuilder("net", "x", (4, 4, 3), ("conv",))


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    "name", ['we ird-"name', "back\\slash", "two\nlines", "näme", "*/ x /*", "??/", "", "nul\0", "\ud800"]
)
def test_any_name_is_sound_c(name: str, tmp_path: Path) -> None:
    source = tmp_path / "name.c"
    source.write_text(f"/* {c_comment(name)} */\nconst char {c_ident(name)}[] = {c_string(name)};\n")
    subprocess.run(
        ["cc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-c", str(source), "-o", str(tmp_path / "o")], check=True
    )


def test_layer_names_that_collide_get_their_own_identifiers() -> None:
    names = [
        "a.b",
        "a_b",
        "a-b",
        "head",
        "forward",
        "while",
        "x_w",
        "x__w",
        "x",
        "x_2",
        "X",
        "mdy_model",
        "1st",
        "",
        "_",
    ]
    idents = unique_idents(names).values()
    made = {*idents, *(derived(ident, what) for ident in idents for what in ("w", "bias", "p", "y", "again2_y"))}
    assert len(made) == 6 * len(names)
    assert all(name.startswith("n_") for name in made)


@pytest.mark.parametrize("samples", [np.linspace(0, 1, 9), np.array([-1.0, 200.0]), np.array([0, 25500])])
def test_samples_that_are_no_pixels_are_refused_unless_raw(samples: np.ndarray) -> None:
    with pytest.raises(DataError, match="--pixels raw"):
        check_pixels(samples, "signed")
    check_pixels(samples, "raw")
    check_pixels(np.array([0, 255], np.uint8), "unit")


@pytest.mark.parametrize(("stride", "bias"), [((0, 1), None), ((1, 1), np.ones(3, np.float32))])
def test_a_convolution_that_cannot_be_is_refused_by_name(stride: tuple[int, int], bias: np.ndarray | None) -> None:
    with pytest.raises(UnsupportedOpError, match="conv1"):
        builder().convolution("conv1", "x", "y", ones(2, 1, 1, 3), bias, stride)


def test_a_lone_window_of_a_pool_overlaps_none() -> None:
    b = builder()
    b.average_pool("pool", "x", "p", (4, 3), (2, 1))
    b.linear("fc", "p", "y", ones(2, 6), None)
    assert b.finish("y").graph.nodes[0].attrs == AveragePool((4, 3), (4, 1))


def test_where_alpha_and_not_memory_is_the_limit_the_remedy_says_so() -> None:
    b = builder()
    b.convolution("conv", "x", "c", ones(2, 1, 1, 3), None)
    b.average_pool("pool", "c", "p", (0, 0), (0, 0))
    b.linear("fc", "p", "y", ones(2, 2), None)
    normal = normalise(b.finish("y"))
    qgraph, weights = quantize(
        normal.graph, normal.weights, np.random.default_rng(0).normal(size=(4, 4, 4, 3)).astype(np.float32)
    )
    ranking = rank(qgraph.graph, "t", {n: GradientNorms(1.0, 1.0) for n in channel_costs(qgraph.graph)})
    with pytest.raises(BudgetError, match="Raise --alpha to"):
        choose(qgraph, weights, ranking, classes_loss(2), Limits(1 << 20, min_elements=100, alpha=0.01))
    least, _ = choose(qgraph, weights, ranking, classes_loss(2), Limits(1 << 20, alpha=0.01))
    assert least.b_mem_bytes == ranking.scores[0].cost.record_bytes, "one channel, however small its share"
