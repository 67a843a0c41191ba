# SPDX-License-Identifier: Apache-2.0
"""Samples as the network takes them."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from medyate.datasets import SCALINGS, Dataset, epoch_order, load
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


def labelled(y: list[int], x: np.ndarray | None = None) -> dict[str, np.ndarray]:
    labels = np.array(y)
    samples = np.random.default_rng(0).integers(0, 255, (len(y), 8, 8, 1)).astype(np.uint8) if x is None else x
    return {"x_train": samples, "y_train": labels, "x_test": samples, "y_test": labels}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (labelled([0, 1, 2, 7] * 5), ("'3', '4', '5', '6'",)),
        (labelled([1, 2, 3] * 5), ("'0'",)),
        (labelled([0] * 19 + [1]), ("19 of the 20 training samples", "'0'")),
        (labelled([0, 1] * 5, np.full((10, 8, 8, 1), 7, np.uint8)), ("10 of the 10 train samples", "one value")),
        (labelled([0, 1] * 5, np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1).repeat(10, 0)), ("are the same",)),
        (labelled([0, 500]), ("and 494 more",)),
    ],
    ids=["gaps", "from one", "one class", "constant", "equal", "many"],
)
def test_likely_mistakes_are_named(parts: dict[str, np.ndarray], words: tuple[str, ...], tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **parts)
    said = " ".join(load(str(tmp_path / "set.npz")).warnings())
    assert all(word in said for word in words), said


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    folder = colour_folder(tmp_path)
    assert load(str(folder)).warnings() == ()
    (folder / "train" / "nobody").mkdir()
    assert "'nobody'" in load(str(folder)).warnings()[0]


def test_a_sound_set_is_not_warned_of() -> None:
    assert load("digits").warnings() == ()


@pytest.mark.parametrize(
    ("given", "shape", "order"),
    [
        ((5, 8, 6), (8, 6, 1), (0, 1, 2)),
        ((5, 1, 8, 6), (8, 6, 1), (0, 2, 3, 1)),
        ((5, 3, 8, 6), (8, 6, 3), (0, 2, 3, 1)),
        ((5, 8, 6, 3), (8, 6, 3), (0, 1, 2, 3)),
        ((5, 3, 3, 3), (3, 3, 3), (0, 1, 2, 3)),
        ((5, 40, 3), (40, 1, 3), (0, 1, 2)),
        ((5, 3, 40), (40, 1, 3), (0, 2, 1)),
        ((5, 16, 1), (1, 1, 16), (0, 2, 1)),
        ((5, 1, 16), (1, 1, 16), (0, 1, 2)),
        ((5, 192), (8, 8, 3), (0, 1)),
    ],
)
def test_axes_are_found_where_only_one_order_fits(
    given: tuple[int, ...], shape: tuple[int, int, int], order: tuple[int, ...]
) -> None:
    samples = np.random.default_rng(0).integers(0, 255, given).astype(np.uint8)
    fitted = Dataset("any", ("a",), samples, np.zeros(5, np.int64), samples, np.zeros(5, np.int64)).fit(shape)
    assert np.array_equal(fitted.x_train, samples.transpose(order).reshape(5, *shape))


def test_colour_with_channels_first_becomes_grey() -> None:
    last = np.random.default_rng(0).integers(0, 255, (5, 8, 6, 3)).astype(np.uint8)
    whole = Dataset("any", ("a",), last, np.zeros(5, np.int64), last.transpose(0, 3, 1, 2), np.zeros(5, np.int64))
    fitted = whole.fit((8, 6, 1))
    assert np.array_equal(fitted.x_train, fitted.x_test)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((5, 9, 6, 3), "height 9 instead of 8$"),
        ((5, 8, 6, 4), "channels 4 instead of 3$"),
        ((5, 8, 7, 1), "width 7 instead of 6, channels 1 instead of 3$"),
        ((5, 8, 6), "channels 1 instead of 3$"),
        ((5, 77), "1 axes instead of height, width and channels$"),
    ],
)
def test_an_axis_that_does_not_fit_is_named(given: tuple[int, ...], words: str) -> None:
    samples = np.zeros(given, np.uint8)
    with pytest.raises(DataError) as refused:
        Dataset("any", ("a",), samples, np.zeros(5, np.int64), samples, np.zeros(5, np.int64)).fit((8, 6, 3))
    assert re.search(words, refused.value.what.rstrip(".")), refused.value.what
