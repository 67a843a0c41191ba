"""The two data sets of the demonstration, both made from scikit-learn's `load_digits`.

`load_digits` holds 1797 scanned digits of 8x8 pixels in 16 grey levels. They are split
once, seeded and stratified by class, into three disjoint parts:

* `pretrain` (497 images): the only images the network is pretrained on, as scanned;
* `adapt` (800 images): what the device sees in the field and trains on;
* `test` (500 images): held out, never trained on in either condition.

The two conditions:

* normal: the image as scanned, bright ink on black, enlarged to 16x16;
* field: the camera has been remounted upside down, the digits are now printed dark on bright
  paper, a lamp lights them from one side and the optics are dirty: see `field_condition`.

Upside down, a 6 is seen as a 9 was before and the other way round: the device has to unlearn.

The writers of the digits are not recorded in the data set, so the parts share writers.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Images = NDArray[np.uint8]
Labels = NDArray[np.int64]

TEST_SIZE = 500
ADAPT_SIZE = 800
SPLIT_SEED = 1998
DIRT_SEED = 7
DIRT_SPOTS = 4
NOISE = 0.02  # standard deviation, of a full scale of 1
SIZE = 16


class Split(NamedTuple):
    """Images (N, 16, 16, 1) of 0..255 with their labels, for training and for testing."""

    x_train: Images
    y_train: Labels
    x_test: Images
    y_test: Labels


def enlarge(images: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return images (N, 8, 8) at twice the size, interpolated linearly."""
    for axis in (1, 2):
        n = images.shape[axis]
        at = np.clip((np.arange(2 * n) + 0.5) / 2 - 0.5, 0, n - 1)
        low = np.minimum(at.astype(int), n - 2)
        shape = [1, 1, 1]
        shape[axis] = 2 * n
        part = (at - low).reshape(shape)
        images = images.take(low, axis) * (1 - part) + images.take(low + 1, axis) * part
    return images


def to_pixels(images: NDArray[np.float64]) -> Images:
    """Return images (N, 16, 16) of 0..1 as uint8 (N, 16, 16, 1)."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)[..., None]


def field_condition(images: NDArray[np.float64], indices: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return images (N, 16, 16) of 0..1 as the changed installation sees them.

    A half turn (mounting), inverted contrast (dark digits on bright paper), a gain that falls
    off to one side (lamp) and in soft spots (dirt), the same in every image, and sensor noise
    that depends on nothing but the image's index.
    """
    rng = np.random.default_rng(DIRT_SEED)
    yy, xx = np.mgrid[0:SIZE, 0:SIZE]
    gain = 1.0 - 0.2 * (xx / (SIZE - 1))
    for _ in range(DIRT_SPOTS):
        cy, cx = rng.uniform(1, SIZE - 2, 2)
        radius = rng.uniform(1.0, 2.2)
        depth = rng.uniform(0.2, 0.5)
        gain *= 1 - depth * np.exp(-((yy - cy) ** 2 + (xx - cx) ** 2) / (2 * radius**2))
    noise = [np.random.default_rng((DIRT_SEED, int(i))).normal(0, NOISE, (SIZE, SIZE)) for i in indices]
    seen: NDArray[np.float64] = (1.0 - 0.9 * images[:, ::-1, ::-1]) * gain + np.stack(noise)
    return seen


def parts() -> dict[str, NDArray[np.int64]]:
    """Return the indices of the parts `pretrain`, `adapt` and `test` in `load_digits`."""
    labels = load_digits().target
    rest, test = train_test_split(np.arange(len(labels)), test_size=TEST_SIZE, random_state=SPLIT_SEED, stratify=labels)
    pretrain, adapt = train_test_split(rest, test_size=ADAPT_SIZE, random_state=SPLIT_SEED, stratify=labels[rest])
    return {"pretrain": pretrain, "adapt": adapt, "test": test}


def load_part(part: str, field: bool) -> tuple[Images, Labels]:
    """Return images and labels of one part, in the field condition or in the normal one."""
    digits = load_digits()
    indices = parts()[part]
    images = enlarge(digits.images[indices] / 16.0)
    if field:
        images = field_condition(images, indices)
    return to_pixels(images), digits.target[indices].astype(np.int64)


def load_pretraining() -> Split:
    """Return the pretraining task: the normal condition."""
    return Split(*load_part("pretrain", False), *load_part("test", False))


def load_adaptation() -> Split:
    """Return the adaptation task: the field condition."""
    return Split(*load_part("adapt", True), *load_part("test", True))
