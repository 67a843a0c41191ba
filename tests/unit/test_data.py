# SPDX-License-Identifier: Apache-2.0
"""Samples as the network takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medyate.data import SCALINGS, Dataset, epoch_order, load
from medyate.errors import DataError
from medyate.ir import Quant


def colour_folder(path: Path) -> Path:
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("left", "right"):
            (path / part / name).mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (8, 6, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(path / part / name / f"{number}.png")
    return path


def test_colour_images_become_grey_for_a_network_of_one_channel(tmp_path: Path) -> None:
    colour = load(str(colour_folder(tmp_path)))
    grey = colour.check((8, 6, 1))
    assert np.array_equal(colour.check((8, 6, 3)).x_train, colour.x_train)
    assert grey.x_train.shape == (6, 8, 6, 1)
    with Image.open(tmp_path / "train" / "left" / "0.png") as image:
        luma = np.asarray(image.convert("L"), np.int64)
    assert np.abs(grey.x_train[0, :, :, 0] - luma).max() <= 1


def test_images_are_brought_to_the_size_of_a_network(tmp_path: Path) -> None:
    flat = np.full((3, 8, 8), 77, np.uint8)
    grey = Dataset("grey", ("a", "b"), flat, np.zeros(3, np.int64), flat[:1], np.ones(1, np.int64)).resized((16, 12, 3))
    assert grey.x_train.shape == (3, 16, 12, 3)
    assert np.unique(grey.x_train).tolist() == [77]
    ramp = np.linspace(-3.0, 5.0, 8 * 8 * 3, dtype=np.float32).reshape(1, 8, 8, 3)
    maps = replace(grey, x_train=ramp, x_test=2 * ramp).resized((8, 8, 3))
    assert (maps.x_train.min(), maps.x_train.max(), maps.x_train.dtype) == (0, 255, np.uint8)
    assert (maps.x_test.min(), maps.x_test.max()) == (0, 255)  # beyond the training part's range
    assert np.array_equal(replace(maps).resized((8, 8, 3)).x_train, maps.x_train)
    with pytest.raises(DataError, match="NaN"):
        replace(grey, x_train=np.full((3, 8, 8), np.nan)).resized((8, 8, 3))
    with pytest.raises(DataError, match="cannot be resized"):
        replace(grey, x_train=np.zeros((3, 5)), x_test=np.zeros((3, 5))).resized((8, 8, 3))
    (tmp_path / "birds").mkdir()
    np.savez(tmp_path / "birds" / "data.npz", x=flat, y=np.array([0, 1, 1]))
    assert load(str(tmp_path / "birds" / "data.npz"), 0.5).name == "birds"


def test_the_first_samples_are_those_of_a_seeded_order() -> None:
    whole = load("digits")
    some = whole.first(30, 0)
    order = epoch_order(0, 0, len(whole.x_train))[:30]
    assert np.array_equal(some.x_train, whole.x_train[order])
    assert np.array_equal(some.y_train, whole.y_train[order])
    assert len(some.x_test) == len(some.y_test) == len(whole.y_test)
    assert len(whole.first(10**6, 7).x_train) == len(whole.x_train)


def test_the_epoch_order_is_a_permutation_that_depends_on_seed_and_epoch() -> None:
    first = epoch_order(1, 0, 100)
    assert sorted(first) == list(range(100))
    assert np.array_equal(first, epoch_order(1, 0, 100))
    assert not np.array_equal(first, epoch_order(1, 1, 100))
    assert not np.array_equal(first, epoch_order(2, 0, 100))


def test_int8_samples_are_the_nearest_steps_of_the_real_ones() -> None:
    pixels = np.arange(256, dtype=np.uint8)
    quant = Quant(1 / 127.5, 0)
    steps = SCALINGS["signed"].int8(pixels, quant)
    assert np.abs((steps.astype(np.float64) - quant.zero) * quant.scale - SCALINGS["signed"].real(pixels)).max() < 0.008
    assert steps.min() == -128 or steps.min() == -127
    assert steps.max() == 127
