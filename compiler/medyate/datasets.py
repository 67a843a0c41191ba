# SPDX-License-Identifier: Apache-2.0
"""Samples for training and testing: class folders, npz files, built-in sets.

Images stay uint8 (H, W, C); a `Scaling` says what they mean to the network.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medyate import files, rng
from medyate.artefact import read_arrays
from medyate.errors import DataError
from medyate.extras import require
from medyate.ir import Quant, Shape, elements

CLASSES_MAX = 1 << 15
"""Labels travel in 16 bits, and a head of more classes fits no microcontroller."""
TARGET_MAX = 1 << 14
"""Targets and outputs are 32 bits in Q16 on the device, and so are their differences."""
PARTS = ("train", "test")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
IMAGE_FORMATS = ("JPEG", "PNG", "BMP")
"""What is tried on a file, whatever its name says."""
IMAGE_MAX = 1 << 24
"""Pixels of an image; more are not even unpacked."""
RESIZE = "Resize all images to the network's input."
NEARLY_ALL = 0.9
"""Share of the training samples that one class may have without a word."""
NAMED_MAX = 5
"""Classes that a warning lists."""


@dataclass(frozen=True)
class Scaling:
    """real = pixel * gain + offset, the same for every channel."""

    gain: float
    offset: float

    def real(self, samples: NDArray[Any]) -> NDArray[np.float32]:
        """Real values of raw samples."""
        return np.asarray(samples, np.float32) * np.float32(self.gain) + np.float32(self.offset)

    def int8(self, samples: NDArray[Any], quant: Quant) -> NDArray[np.int8]:
        """What the device is given: floor(real / scale + 1/2) + zero, saturated.

        Halves go up: pixels of a signed network lie on halves, and rounding them to even numbers would
        make one of every two neighbours.
        """
        steps = np.floor(self.real(samples).astype(np.float64) / quant.scale + 0.5) + quant.zero
        saturated: NDArray[np.int8] = np.clip(steps, -128, 127).astype(np.int8)
        return saturated


SCALINGS = {
    "signed": Scaling(1 / 127.5, -1.0),
    "unit": Scaling(1 / 255.0, 0.0),
    "raw": Scaling(1.0, 0.0),
}
"""signed: pixel / 127.5 - 1; unit: pixel / 255; raw: the values as they are."""
STORED, AUTO = "stored", "auto"
PIXELS = (AUTO, STORED, *SCALINGS)
"""stored: the samples are the integers of a quantised network's input, int8 or, 128 higher, uint8.
auto: stored for integer samples of a network that came quantised, raw for its real ones, else signed."""


def meaning_of(pixels: str, samples: NDArray[Any], quant: Quant | None) -> str:
    """The name of what samples mean to a network: 'auto' is decided."""
    if pixels != AUTO:
        return pixels
    return "signed" if quant is None else STORED if samples.dtype in (np.int8, np.uint8) else "raw"


def scaling(pixels: str, samples: NDArray[Any], quant: Quant | None) -> Scaling:
    """What samples mean to a network; `quant` is its input's if it came quantised. Raises DataError."""
    pixels = meaning_of(pixels, samples, quant)
    if pixels != STORED:
        check_pixels(samples, pixels)
        return SCALINGS[pixels]
    if quant is None or samples.dtype not in (np.int8, np.uint8):
        raise DataError(
            f"--pixels {STORED} is for int8 or uint8 samples of a network that came quantised.",
            f"Use one of {', '.join(SCALINGS)}.",
        )
    shift = 128 if samples.dtype == np.uint8 else 0
    return Scaling(quant.scale, -quant.scale * (quant.zero + shift))


def check_pixels(samples: NDArray[Any], pixels: str) -> None:
    """Raises DataError when samples do not look like the pixels that a scaling is for."""
    if pixels == "raw":
        return
    low, high = float(samples.min()), float(samples.max())
    if low < 0 or high > 255 or (samples.dtype.kind == "f" and high <= 1.0):
        raise DataError(
            f"the samples run from {low:g} to {high:g}; --pixels {pixels} is for pixels of 0 .. 255.",
            "Use --pixels raw for samples that are as the network wants them.",
        )


@dataclass(frozen=True)
class Dataset:
    """A task: samples with labels 0 .. classes - 1, or with target vectors (n, k), classes then empty.

    Targets of no columns stand for the samples themselves: reconstruction.
    """

    name: str
    classes: tuple[str, ...]
    x_train: NDArray[Any]
    y_train: NDArray[Any]
    x_test: NDArray[Any]
    y_test: NDArray[Any]

    @property
    def regression(self) -> bool:
        """Whether vectors are to be hit, not classes."""
        return self.y_train.ndim == 2

    @property
    def outputs(self) -> int:
        """Classes, or the length of a target."""
        return int(self.y_train.shape[1]) if self.regression else len(self.classes)

    def with_targets(self, meaning: Scaling) -> Dataset:
        """The set with its targets filled in where they are the samples."""
        if not self.regression or self.outputs > 0:
            return self
        own = (meaning.real(x).reshape(len(x), -1) for x in (self.x_train, self.x_test))
        return replace(self, y_train=next(own), y_test=next(own))

    def fit(self, shape: Shape) -> Dataset:
        """The set as the network takes it: vectors and series get their axes, channels come last, colour becomes grey.

        Raises DataError when samples and network do not fit.
        """
        fitted = replace(self, x_train=fit_samples(self.x_train, shape), x_test=fit_samples(self.x_test, shape))
        for samples in (fitted.x_train, fitted.x_test):
            if samples.shape[1:] != tuple(shape):
                raise DataError(
                    f"the samples of '{self.name}' are {samples.shape[1:]}, the network takes {tuple(shape)}: "
                    f"{_differing(samples.shape[1:], shape)}.",
                    "Resize the images, or export the network for their size.",
                )
            if not len(samples):
                raise DataError(f"'{self.name}' has no samples to train or to test.", "Add samples or change --split.")
        _check_finite(self.name, fitted.x_train, fitted.x_test)
        return fitted

    def warnings(self) -> tuple[str, ...]:
        """What is likely to be a mistake, though it can be trained: a sentence each, without its full stop."""
        return (*_about_classes(self), *_about_samples(self))

    def first(self, train: int, test: int) -> Dataset:
        """As many training and test samples, the first ones of a seeded order; 0: all."""
        chosen = {
            part: epoch_order(0, 0, len(getattr(self, f"x_{part}")))[: count or None]
            for part, count in zip(PARTS, (train, test), strict=True)
        }
        arrays = {f"{role}_{part}": getattr(self, f"{role}_{part}")[chosen[part]] for part in PARTS for role in "xy"}
        return replace(self, **arrays)

    def resized(self, shape: Shape) -> Dataset:
        """Images (N, H, W, C) in the size of a network's input, bilinear; grey ones three times for one of colour.

        Maps of other numbers become images whose 0 and 255 are the least and the largest of the training part. Raises
        DataError where the samples are neither.
        """
        x_train, x_test = self.x_train, self.x_test
        _check_finite(self.name, x_train, x_test)
        if x_train.ndim in (3, 4) and x_train.dtype != np.uint8:
            low, high = float(x_train.min()), float(x_train.max())
            gain = 255.0 / (high - low) if high > low else 0.0
            x_train, x_test = (
                np.rint(np.clip((np.asarray(x, np.float32) - low) * gain, 0, 255)).astype(np.uint8)
                for x in (x_train, x_test)
            )
        return replace(self, x_train=_resize(x_train, shape), x_test=_resize(x_test, shape))

    def check(self, shape: Shape) -> Dataset:
        """The fitted set. Raises DataError also where it cannot be learned from."""
        fitted = self.fit(shape)
        if self.regression:
            return fitted
        missing = sorted(set(self.y_test.tolist()) - set(self.y_train.tolist()))
        if missing:
            names = ", ".join(self.classes[label] for label in missing)
            raise DataError(
                f"'{self.name}' has test samples of classes without training samples: {names}.",
                "Add training samples of these classes or remove them from the test part.",
            )
        if len(self.classes) < 2:
            raise DataError(f"'{self.name}' has fewer than two classes.", "Give at least two.")
        return fitted


def _check_finite(name: str, *parts: NDArray[Any]) -> None:
    largest = float(np.finfo(np.float32).max)
    for samples in parts:
        if samples.size and not -largest <= float(samples.min()) <= float(samples.max()) <= largest:
            raise DataError(f"'{name}' holds NaN or infinite samples.", "Clean the samples.")


def _about_classes(dataset: Dataset) -> tuple[str, ...]:
    """Classes that nothing is learned of, and one that is nearly all there is."""
    if dataset.regression:
        return ()
    counts = np.bincount(dataset.y_train, minlength=len(dataset.classes))
    found = []
    missing = [f"'{dataset.classes[label]}'" for label in np.flatnonzero(counts == 0)]
    if missing:
        more = f" and {len(missing) - NAMED_MAX} more" if len(missing) > NAMED_MAX else ""
        what = "the class" if len(missing) == 1 else "the classes"
        found.append(
            f"'{dataset.name}' has no training samples of {what} {', '.join(missing[:NAMED_MAX])}{more}: "
            "each still takes an output, and nothing trains it to be right"
        )
    most = int(counts.argmax())
    if counts[most] >= NEARLY_ALL * counts.sum():
        found.append(
            f"{counts[most]:,} of the {counts.sum():,} training samples of '{dataset.name}' are of the class "
            f"'{dataset.classes[most]}': a network that always answers this class is right as often"
        )
    return tuple(found)


def _about_samples(dataset: Dataset) -> tuple[str, ...]:
    """Samples that say nothing."""
    found = []
    for part in PARTS:
        samples, labels = getattr(dataset, f"x_{part}"), getattr(dataset, f"y_{part}")
        flat = samples.reshape(len(samples), -1)
        if len(flat) == 0 or flat.shape[1] < 2:
            continue
        same = np.flatnonzero(flat.min(axis=1) == flat.max(axis=1))
        if len(same):
            of = "" if labels.ndim == 2 else f" of the class '{dataset.classes[labels[same[0]]]}'"
            found.append(
                f"{len(same):,} of the {len(flat):,} {part} samples of '{dataset.name}' hold one value everywhere; "
                f"the first is number {same[0]}{of}"
            )
        elif len(flat) > 1 and all((sample == flat[0]).all() for sample in flat):
            found.append(f"all {len(flat):,} {part} samples of '{dataset.name}' are the same")
    return tuple(found)


def _differing(found: tuple[int, ...], shape: Shape) -> str:
    """Which axes of samples are not the network's."""
    if len(found) != len(shape):
        return f"{len(found)} axes instead of height, width and channels"
    axes = zip(("height", "width", "channels"), found, shape, strict=True)
    return ", ".join(f"{axis} {own} instead of {wanted}" for axis, own, wanted in axes if own != wanted)


def _resize(samples: NDArray[Any], shape: Shape) -> NDArray[Any]:
    images = samples[..., None] if samples.ndim == 3 else samples
    if images.ndim != 4 or images.dtype != np.uint8:
        raise DataError(
            f"samples {samples.shape} of {samples.dtype} cannot be resized.", "Images are (n, h, w, channels)."
        )
    if images.shape[3] == 1 and shape[2] == 3:
        images = images.repeat(3, axis=3)
    if images.shape[1:3] == tuple(shape[:2]):
        return images
    from PIL import Image

    height, width = shape[:2]
    found = np.empty((len(images), height, width, images.shape[3]), np.uint8)
    for sample, own in zip(images, found, strict=True):
        for c in range(own.shape[2]):
            own[..., c] = np.asarray(Image.fromarray(sample[..., c]).resize((width, height), Image.Resampling.BILINEAR))
    return found


def fit_samples(samples: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Samples with the axes (n, height, width, channels) in whichever of the usual orders they fit; RGB as grey.

    The documented order comes first: (n, L, C) for series, (n, h, w, C) for images.
    """
    if samples.ndim == 2 and samples.shape[1] == elements(shape):
        return samples.reshape(-1, *shape)
    readings = [samples]
    if samples.ndim == 3:  # series, grey images, series with channels first
        readings = [samples[:, :, None], samples[..., None], samples.transpose(0, 2, 1)[:, :, None]]
    elif samples.ndim == 4:  # images, the same with channels first
        readings = [samples, samples.transpose(0, 2, 3, 1)]
    for reading in readings:
        if reading.shape[1:] == tuple(shape):
            return reading
    for reading in readings:
        if shape[2] == 1 and reading.shape[1:] == (*shape[:2], 3):
            return _grey(reading)
    return readings[0] if samples.ndim != 3 or shape[1] == 1 else readings[1]


def _grey(samples: NDArray[Any]) -> NDArray[Any]:
    """Luma (N, H, W, 1) of RGB samples (N, H, W, 3), ITU-R BT.601."""
    luma = samples.astype(np.float64) @ np.array([0.299, 0.587, 0.114])
    grey: NDArray[Any] = np.rint(luma).astype(samples.dtype)[..., None]
    return grey


def epoch_order(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """The order of the samples in an epoch: a pure function, so that training can resume."""
    keys = np.array([rng.draw(rng.key(seed, rng.ORDER, epoch, 0), i) for i in range(count)], np.uint64)
    return np.argsort(keys, kind="stable").astype(np.int64)


def check(source: str) -> None:
    """Raises ToolchainError when a package is missing that reads a data set, DataError for an impossible name."""
    if source == "digits":
        require("the built-in set 'digits'", "sklearn")
        return
    with files.boundary(DataError, f"'{source[:80]}' cannot be read", "Check the path."):
        is_folder = Path(source).is_dir()
    if is_folder:
        require("reading images", "PIL")


def check_split(split: float) -> None:
    """Raises DataError for a share that leaves one of the parts nothing."""
    if not 0.0 < split < 1.0:
        raise DataError(f"--split {split:g} leaves no samples to train or to test.", "Give a share like 0.25.")


def load(source: str, split: float = 0.25, seed: int = 0) -> Dataset:
    """Reads a built-in name, an npz file or a folder. Raises DataError, and what `check` raises."""
    check(source)
    check_split(split)
    if source == "digits":
        return _digits(split, seed)
    path = Path(source)
    with files.boundary(DataError, f"'{source[:80]}' cannot be read", "Check the path."):
        if path.is_dir():
            return _folder(path, split, seed)
    if path.suffix == ".npz":
        return _npz(path, split, seed)
    raise DataError(
        f"'{source}' is no folder, no .npz file and no built-in set.",
        "Give a folder of class folders, an .npz with x_train, y_train, x_test, y_test, or 'digits'.",
    )


def _folder(path: Path, split: float, seed: int) -> Dataset:
    if (path / "train").is_dir() and (path / "test").is_dir():
        train, classes = _class_folders(path / "train")
        test, test_classes = _class_folders(path / "test")
        names = tuple(sorted(set(classes) | set(test_classes)))
        x, y = _read([*train, *test], names)
        count = len(train)
        return Dataset(path.name, names, x[:count], y[:count], x[count:], y[count:])
    images, names = _class_folders(path)
    x, y = _read(images, names)
    return _split(path.name, names, x, y, split, seed)


def _class_folders(path: Path) -> tuple[list[tuple[Path, str]], tuple[str, ...]]:
    classes = sorted(entry.name for entry in path.iterdir() if entry.is_dir())
    images = [
        (file, name)
        for name in classes
        for file in sorted((path / name).iterdir())
        if file.suffix.lower() in IMAGE_SUFFIXES
    ]
    if not images:
        raise DataError(
            f"'{path}' holds no images in class folders.",
            f"Put images ({', '.join(IMAGE_SUFFIXES)}) into one folder per class.",
        )
    return images, tuple(classes)


def _read(paths: Sequence[tuple[Path, str]], names: tuple[str, ...]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Images (n, h, w, 3) of one size, and the number of each one's class. Sizes come before pixels."""
    labels = np.array([names.index(name) for _, name in paths], np.int64)
    images = np.empty((0, 0, 0, 3), np.uint8)
    for number, (path, _) in enumerate(paths):
        files.check_regular(path, DataError)
        with _opened(path) as image:
            width, height = image.size
            if number == 0:
                total = len(paths) * height * width * 3
                if height * width > IMAGE_MAX or total > files.FILE_MAX:
                    many = f"{len(paths):,} images of {width:,} x {height:,} pixels, like '{path}', take {total:,} B"
                    raise DataError(f"{many}; too many to be read.", RESIZE)
                images = np.empty((len(paths), height, width, 3), np.uint8)
            elif (height, width) != images.shape[1:3]:
                raise DataError(
                    f"'{path}' is {width} x {height} pixels, others are {images.shape[2]} x {images.shape[1]}.",
                    RESIZE,
                )
            images[number] = image.convert("RGB")
    return images, labels


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """An image whose size is known and whose pixels are not read yet."""
    from PIL import Image as pillow  # noqa: N813

    try:
        with warnings.catch_warnings():  # sizes are looked at here
            warnings.simplefilter("ignore")
            with pillow.open(path, formats=IMAGE_FORMATS) as image:
                yield image
    except pillow.DecompressionBombError as error:
        raise DataError(f"'{path}' has too many pixels ({files.reason(error)}).", RESIZE) from error
    except files.DAMAGE as error:  # an unidentified image, too
        raise DataError(f"'{path}' is no readable image.", "Replace or remove the file.") from error


def _npz(path: Path, split: float, seed: int) -> Dataset:
    arrays = read_arrays(path, DataError, "Save it with numpy.savez, without objects.")
    return of_arrays(_name(path), arrays, split, seed, str(path))


def of_arrays(
    name: str, arrays: Mapping[str, NDArray[Any]], split: float = 0.25, seed: int = 0, source: str = ""
) -> Dataset:
    """The set of arrays named as in an npz: x_train, y_train, x_test, y_test, or x, y; classes. `source`: for messages.

    Raises DataError where they are no samples with labels or targets; without any y they are to be reconstructed.
    """
    source = source or name
    names = arrays.get("classes", arrays.get("class_names"))
    if "x" in arrays and "x_train" not in arrays:  # no split of its own
        whole = {f"{k}_{part}": arrays[k] for k in ("x", "y") if k in arrays for part in ("train", "test")}
        checked = _parts(name, whole, names, source)
        return _split(name, checked.classes, checked.x_train, checked.y_train, split, seed)
    return _parts(name, arrays, names, source)


def _name(path: Path) -> str:
    """Of an npz: its own, or its folder's where it has none to speak of."""
    return path.parent.name if path.stem == "data" and path.parent.name else path.stem


def _parts(name: str, arrays: Mapping[str, NDArray[Any]], given: NDArray[Any] | None, source: str) -> Dataset:
    wanted = ("x_train", "y_train", "x_test", "y_test")
    if {"x_train", "x_test"} <= set(arrays) and not {"y_train", "y_test"} & set(arrays):  # reconstruction
        empty = {f"y_{part}": np.zeros((*arrays[f"x_{part}"].shape[:1], 0), np.float32) for part in PARTS}
        arrays = {**arrays, **empty}
    missing = [name for name in wanted if name not in arrays]
    if missing:
        raise DataError(f"'{source}' lacks {', '.join(missing)}.", f"It needs {', '.join(wanted)}.")
    for part in ("train", "test"):
        x, y = arrays[f"x_{part}"], arrays[f"y_{part}"]
        if not 2 <= x.ndim <= 4 or y.ndim not in (1, 2) or len(x) != len(y) or x.size == 0:
            raise DataError(
                f"'{source}': x_{part} is {x.shape} and y_{part} {y.shape}.",
                "Samples are (n, height, width, channels), (n, length, channels) or (n, k), labels (n,) or targets "
                "(n, m), n above 0.",
            )
        if not (np.issubdtype(x.dtype, np.number) or x.dtype == bool) or np.iscomplexobj(x):
            raise DataError(f"'{source}': x_{part} holds no real numbers but {x.dtype}.", "Samples are uint8 or float.")
        if y.dtype.kind == "f" and y.ndim == 2:
            if not np.isfinite(y).all() or np.abs(y).max(initial=0.0) >= TARGET_MAX:
                raise DataError(f"'{source}': y_{part} holds values above {TARGET_MAX:,} or NaN.", "Scale the targets.")
        elif y.ndim == 2 or not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= CLASSES_MAX:
            raise DataError(
                f"'{source}': y_{part} holds no class numbers.",
                f"Labels are 0, 1, 2 ... below {CLASSES_MAX:,}; real targets are (n, m).",
            )
    if any(arrays[f"y_{part}"].ndim == 2 for part in PARTS):
        targets = [arrays[f"y_{part}"].astype(np.float32) for part in PARTS]
        if targets[0].shape[1:] != targets[1].shape[1:]:
            raise DataError(f"'{source}': targets of {targets[0].shape} and {targets[1].shape}.", "Give one length.")
        return Dataset(name, (), arrays["x_train"], targets[0], arrays["x_test"], targets[1])
    count = int(max(arrays["y_train"].max(), arrays["y_test"].max())) + 1
    listed = np.arange(count) if given is None else np.ravel(given)
    if not count <= len(listed) <= CLASSES_MAX:
        raise DataError(f"'{source}' names {len(listed):,} classes, its labels reach {count - 1}.", "Name every class.")
    names = tuple(map(str, listed))
    y_train, y_test = arrays["y_train"].astype(np.int64), arrays["y_test"].astype(np.int64)
    return Dataset(name, names, arrays["x_train"], y_train, arrays["x_test"], y_test)


def _digits(split: float, seed: int) -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    x = np.asarray(digits.images * 255 / 16, np.uint8)
    x = x.repeat(2, axis=1).repeat(2, axis=2)[..., None]
    names = tuple(str(name) for name in digits.target_names)
    return _split("digits", names, x, digits.target.astype(np.int64), split, seed)


def _split(name: str, names: tuple[str, ...], x: NDArray[Any], y: NDArray[Any], split: float, seed: int) -> Dataset:
    """A stratified split: of each class, the first `split` share of a seeded order is for testing."""
    test = np.zeros(len(y), bool)
    if y.ndim == 2:
        test[epoch_order(seed, 0, len(y))[: round(split * len(y))]] = True
    for label in range(len(names)):
        members = np.flatnonzero(y == label)
        order = members[epoch_order(seed, label, len(members))]
        test[order[: round(split * len(members))]] = True
    return Dataset(name, names, x[~test], y[~test], x[test], y[test])
