"""FER-2013 as arrays: image folders or the original CSV, in its official parts.

`train` is fitted, `validation` chooses and calibrates, `test` is for others to measure. Random new splits would leak,
because the set holds byte-identical copies.
"""

import csv
import hashlib
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import DataError, ImageError

TRAIN, VALIDATION, TEST = SPLITS = ("train", "validation", "test")
_SPLIT_NAMES: Final = {
    "train": TRAIN, "training": TRAIN,
    "validation": VALIDATION, "val": VALIDATION, "publictest": VALIDATION,
    "test": TEST, "privatetest": TEST,
}  # fmt: skip
_PREFIXES: Final = {"training_": TRAIN, "publictest_": VALIDATION, "privatetest_": TEST}
_CLASSES: Final = {name: index for index, name in enumerate(EMOTIONS)} | {str(index): index for index in range(len(EMOTIONS))}
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png"})
_COLUMNS: Final = ("emotion", "pixels", "usage")


@dataclass(frozen=True, slots=True)
class Split:
    """Images uint8 (N, 48, 48), grey, labels int64 (N,), indices into `EMOTIONS`, and the images' names, if known."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: npt.NDArray[np.intp]) -> "Split":
        """Return the rows of `index`."""
        return Split(self.images[index], self.labels[index], tuple(self.names[i] for i in index) if self.names else ())


@dataclass(frozen=True, slots=True)
class Dataset:
    """The parts that a source holds, by `SPLITS`; where it was read from."""

    parts: dict[str, Split]
    source: Path = field(default_factory=Path)

    def part(self, name: str) -> Split:
        """Return a part.

        Raises:
            DataError: the data have none of this name.
        """
        if name not in self.parts:
            raise DataError(f"{self.source} has no part {name!r}; it has {', '.join(self.parts)}")
        return self.parts[name]


def load_data(path: Path) -> Dataset:
    """Read an image folder or a CSV; both in a fixed order.

    A folder holds `<split>/<class>/*.jpg|png`, or `<class>/*` with files named like `Training_123.jpg`. Splits are called
    train or Training, validation, val or PublicTest, test or PrivateTest; where a file's name has such a prefix, it
    decides. Classes are the names of `EMOTIONS` or their numbers. A CSV has the columns emotion, pixels and Usage.

    Raises:
        DataError: nothing there, or a name, a label or a pixel that cannot be understood.
        ImageError: an image cannot be decoded, or is not 48x48 px.
    """
    if path.is_file():
        return load_csv(path)
    if not path.is_dir():
        raise DataError(f"{path}: there is no such folder or CSV file")
    folders = _folders(path)
    splits = {folder: _SPLIT_NAMES[folder.name.lower()] for folder in folders if folder.name.lower() in _SPLIT_NAMES}
    if not splits:
        return _dataset(path, [(file, label, _prefix(file)) for file, label in _labelled(path)])
    unknown = [folder.name for folder in folders if folder not in splits]
    if unknown:
        raise DataError(f"{path}: {unknown[0]!r} is no split; these are: {', '.join(sorted(_SPLIT_NAMES))}")
    files = [(file, label, _prefix(file) or split) for folder, split in splits.items() for file, label in _labelled(folder)]
    return _dataset(path, files)


def load_split(folder: Path) -> Split:
    """Read `folder/<class>/*.jpg|png`, every class of which must be there, in a fixed order.

    Raises:
        DataError: a class is missing or unknown.
        ImageError: an image cannot be decoded, or is not 48x48 px.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    files = list(_labelled(folder))
    present = {label for _, label in files}
    for label, name in enumerate(EMOTIONS):
        if label not in present:
            raise DataError(f"no images of class {name} in {folder}")
    return _read(files)


def load_csv(path: Path) -> Dataset:
    """Read `fer2013.csv`: emotion 0 to 6, 2,304 pixels 0 to 255 with blanks between them, and Usage.

    Images are named by their row, see `row_name`.

    Raises:
        DataError: a column is missing, or a row cannot be understood; its line is named.
    """
    images: dict[str, list[npt.NDArray[np.uint8]]] = defaultdict(list)
    labels: dict[str, list[int]] = defaultdict(list)
    names: dict[str, list[str]] = defaultdict(list)
    with open_csv(path) as rows:
        for index, row in enumerate(rows.named(_COLUMNS)):
            where = f"{path}, line {index + 2}"
            split = _SPLIT_NAMES.get(row[2].strip().lower())
            if split is None:
                raise DataError(f"{where}: the Usage {row[2]!r} is none of Training, PublicTest, PrivateTest")
            if row[0].strip() not in _CLASSES or not row[0].strip().isdigit():
                raise DataError(f"{where}: the emotion {row[0]!r} is not a number from 0 to {len(EMOTIONS) - 1}")
            images[split].append(_pixels(row[1], where))
            labels[split].append(int(row[0]))
            names[split].append(row_name(index))
    if not images:
        raise DataError(f"{path} holds no images")
    parts = {
        name: Split(np.stack(images[name]), np.array(labels[name], np.int64), tuple(names[name]))
        for name in SPLITS
        if name in images
    }
    return Dataset(parts, path)


def row_name(index: int) -> str:
    """Return what the image in row `index`, from 0, of `fer2013.csv` is called."""
    return f"row {index}"


class open_csv:  # noqa: N801  # used like the function `open`
    """A CSV with a header, whose columns are asked for by name, whatever their case and order.

    Raises:
        DataError: it cannot be read, is no text, or lacks a column.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> "open_csv":
        try:
            self._file = self._path.open(newline="", encoding="utf-8-sig")
        except OSError as error:
            raise DataError(f"{self._path} cannot be read: {error.strerror}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def named(self, columns: Sequence[str]) -> Iterator[list[str]]:
        """Yield the values of `columns` (lower case) of each row that is not empty."""
        try:
            reader = csv.reader(self._file)
            header = [name.strip().lower() for name in next(reader, [])]
            missing = [name for name in columns if name not in header]
            if missing:
                raise DataError(f"{self._path} has no column {missing[0]!r}; it needs {', '.join(columns)}")
            places = [header.index(name) for name in columns]
            for row in reader:
                if row:
                    if len(row) < len(header):
                        raise DataError(f"{self._path}, line {reader.line_num}: {len(row)} values, not {len(header)}")
                    yield [row[place] for place in places]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{self._path} is not a CSV file: {error}") from None


def cleaned(train: Split, *held_out: Split) -> Split:
    """Return the training images that can teach something.

    Dropped: images without contrast, all but one of identical images, all of identical images whose labels disagree, and
    images that a part held out has too.
    """
    return train.subset(cleaned_index(train, *held_out))


def cleaned_index(train: Split, *held_out: Split) -> npt.NDArray[np.intp]:
    """Return which rows `cleaned` keeps, ascending."""
    forbidden = {digest for split in held_out for digest in digests(split)}
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(digests(train)):
        groups[digest].append(index)
    kept = [
        members[0]
        for digest, members in groups.items()
        if digest not in forbidden and len(set(train.labels[members].tolist())) == 1 and np.ptp(train.images[members[0]]) > 0
    ]
    return np.array(sorted(kept), np.intp)


def digests(split: Split) -> list[bytes]:
    """Return the SHA-256 of each image's pixels."""
    return [hashlib.sha256(image.tobytes()).digest() for image in split.images]


def _folders(path: Path) -> list[Path]:
    return sorted(folder for folder in path.iterdir() if folder.is_dir() and not folder.name.startswith("."))


def _labelled(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield images with their labels, class by class in the order of `EMOTIONS`, by name within a class."""
    classes = []
    for inner in _folders(folder):
        if inner.name.lower() not in _CLASSES:
            raise DataError(f"{folder}: {inner.name!r} is no class; these are: {', '.join(EMOTIONS)}, or 0 to 6")
        classes.append((_CLASSES[inner.name.lower()], inner))
    if not classes:
        raise DataError(f"{folder} holds no folders of classes ({', '.join(EMOTIONS)})")
    for label, inner in sorted(classes):
        for path in sorted(inner.iterdir()):
            if path.suffix.lower() in _SUFFIXES:
                yield path, label


def _prefix(path: Path) -> str:
    name = path.name.lower()
    return next((split for prefix, split in _PREFIXES.items() if name.startswith(prefix)), "")


def _dataset(path: Path, files: list[tuple[Path, int, str]]) -> Dataset:
    lost = next((file for file, _, split in files if not split), None)
    if lost is not None:
        raise DataError(f"{lost} belongs to no split: put it into train/, validation/ or test/, or call it Training_… or so")
    parts = {name: [(file, label) for file, label, split in files if split == name] for name in SPLITS}
    found = {name: _read(members) for name, members in parts.items() if members}
    if not found:
        raise DataError(f"{path} holds no images")
    return Dataset(found, path)


def _read(files: list[tuple[Path, int]]) -> Split:
    images = np.empty((len(files), CROP_SIDE_PX, CROP_SIDE_PX), np.uint8)
    for index, (path, _) in enumerate(files):
        images[index] = _image(path)
    return Split(images, np.array([label for _, label in files], np.int64), tuple(path.name for path, _ in files))


def _image(path: Path) -> npt.NDArray[np.uint8]:
    try:
        with Image.open(path) as image:
            if image.size != (CROP_SIDE_PX, CROP_SIDE_PX):  # before decoding: a huge one costs nothing
                width, height = image.size
                raise ImageError(f"{path} is {width}x{height} px, not {CROP_SIDE_PX}x{CROP_SIDE_PX}")
            return np.asarray(image.convert("L"))
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{path} cannot be decoded: {type(error).__name__}") from None


def _pixels(text: str, where: str) -> npt.NDArray[np.uint8]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns of what is no number
            values = np.fromstring(text, np.int64, sep=" ")
    except (DeprecationWarning, ValueError, OverflowError):
        raise DataError(f"{where}: a pixel is not a whole number") from None
    if values.size != CROP_SIDE_PX**2:
        raise DataError(f"{where}: {values.size} pixels, not {CROP_SIDE_PX}x{CROP_SIDE_PX}")
    if values.min() < 0 or values.max() > 255:
        raise DataError(f"{where}: a pixel is not from 0 to 255")
    return values.astype(np.uint8).reshape(CROP_SIDE_PX, CROP_SIDE_PX)
