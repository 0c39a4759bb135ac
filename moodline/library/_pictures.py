"""Makes arrays for the detector from what a program gives as a picture: arrays, files, encoded bytes and PIL images."""

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import numpy as np
import numpy.typing as npt

from moodline.errors import ClientError
from moodline.shared.errors import ImageError, SourceError
from moodline.shared.settings import Settings
from moodline.shared.streams import LIVE_SCHEMES, FailureReason

if TYPE_CHECKING:
    from moodline.services.ingest.media.frames import BgrImage

Picture: TypeAlias = "npt.NDArray[np.uint8] | str | os.PathLike[str] | bytes | Any"
"""uint8 (H, W, 3), (H, W) or (H, W, 1); a path; the bytes of a picture file, or an open one; or a `PIL.Image.Image`."""

COLORS: Final = ("bgr", "rgb")
_KINDS: Final = "a picture is an array, a path or a PIL image, or the bytes of a picture file"
_SHAPES: Final = "a picture has the shape (height, width, 3) or (height, width)"
_WAYS: Final[Mapping[str, str]] = {
    "f": "; where its values are 0 to 1, give (255 * image).round().astype('uint8')",
    "u": "; of 16 bits give (image >> 8).astype('uint8')",
    "i": "; where its values are 0 to 255, give image.astype('uint8')",
    "b": "; give 255 * image.astype('uint8')",
}
"""The way out for each kind of dtype that is not uint8."""


def color_of(color: object) -> str:
    """Return the order of the colours in arrays: `bgr` or `rgb`. Raises `ClientError` for anything else."""
    word = color.lower() if isinstance(color, str) else ""
    if word not in COLORS:
        raise ClientError(f"color is bgr or rgb, not {color!r}")
    return word


def pictures_of(given: Any) -> Iterator[Picture] | None:
    """Return the pictures where several are given: a list, a generator, an array of four dimensions. None: it is one picture."""
    if (
        isinstance(given, str | os.PathLike | bytes | bytearray | memoryview | Mapping)
        or _is_pil(given)
        or hasattr(given, "read")
    ):
        return None
    if hasattr(given, "__array__"):
        array = _array(given)
        return iter(array) if array.ndim == 4 else None
    return iter(given) if isinstance(given, Iterable) else None


@contextmanager
def named_in_errors(number: int) -> Iterator[None]:
    """Say which of several pictures an error is about; the first one has the number 0."""
    try:
        yield
    except SourceError as error:
        raise SourceError(error.reason, f"picture {number + 1}: {error}") from None
    except ImageError as error:
        raise ImageError(f"picture {number + 1}: {error}") from None


def as_bgr(picture: Picture, color: str, settings: Settings) -> "BgrImage":
    """Return a picture as uint8 (H, W, 3), blue-green-red, upright.

    Args:
        picture: See `Picture`.
        color: Order of the colours in an array: `bgr` or `rgb`.
        settings: For the most px that a picture may have.

    Raises:
        ImageError: it is no picture, or has too many px.
        SourceError: its file cannot be read.
    """
    if isinstance(picture, str | os.PathLike):
        return _of_path(os.fspath(picture), settings)
    if _is_pil(picture):
        return _of_pil(picture, settings)
    if hasattr(picture, "read"):
        picture = picture.read()
    if isinstance(picture, bytes | bytearray | memoryview):
        return _of_bytes(bytes(picture), settings)
    if not hasattr(picture, "__array__") or np.isscalar(picture):
        way = "; make an array of it: numpy.asarray(image, dtype='uint8')" if isinstance(picture, list | tuple) else ""
        raise ImageError(f"{_KINDS}, not {type(picture).__name__}{way}")
    return _of_array(_array(picture), color, settings)


def require_px(height: int, width: int, settings: Settings) -> None:
    """Raise `ImageError` where a picture has too many px."""
    limit = settings.ingest.max_pixels
    if height * width > limit:
        raise ImageError(f"a picture of {width} x {height} px is over the limit of {limit} px (MOODLINE_INGEST_MAX_PIXELS)")


def require_not_a_camera(word: str) -> None:
    """Raise `SourceError` where a camera or a page is named in place of a file. The message does not say the address."""
    scheme, is_url, _ = word.partition("://")
    if is_url and scheme.lower() in LIVE_SCHEMES:
        raise SourceError(
            FailureReason.FORBIDDEN_URL,
            f"{scheme}:// is not read as a file: a camera is read by moodline.stream(); what is a file there is downloaded first",
        )


def _is_pil(picture: Any) -> bool:
    return hasattr(picture, "convert") and hasattr(picture, "getexif")


def _array(picture: Any) -> npt.NDArray[Any]:
    try:
        return np.asarray(picture)
    except (TypeError, ValueError, RuntimeError) as error:  # such as a tensor on a GPU
        raise ImageError(f"{type(picture).__name__} is no array that NumPy takes: {error}") from None


def _of_array(picture: npt.NDArray[Any], color: str, settings: Settings) -> "BgrImage":
    if picture.dtype != np.uint8:
        way = _WAYS.get(picture.dtype.kind, "")
        raise ImageError(f"a picture is an array of uint8, 0 to 255, not of {picture.dtype}{way}")
    if picture.ndim == 2:
        picture = picture[:, :, None]
    if picture.ndim != 3 or picture.shape[2] not in (1, 3) or 0 in picture.shape:
        raise ImageError(f"{_SHAPES}, not {picture.shape}{_way_out(picture.shape)}")
    require_px(picture.shape[0], picture.shape[1], settings)
    if picture.shape[2] == 1:
        return np.repeat(picture, 3, axis=2)
    return np.ascontiguousarray(picture[:, :, ::-1] if color == "rgb" else picture)


def _way_out(shape: tuple[int, ...]) -> str:
    if len(shape) != 3 or 0 in shape:
        return ""
    if shape[2] == 4:
        return "; without transparency it is image[:, :, :3]"
    return "; with the colours first, give image.transpose(1, 2, 0)" if shape[0] == 3 else ""


def _of_pil(picture: Any, settings: Settings) -> "BgrImage":
    from PIL import ImageOps

    require_px(picture.height, picture.width, settings)
    mode = str(picture.mode)
    if mode in ("I", "F"):  # 32 bits, and nothing says which value is white
        raise ImageError(f"a PIL image of mode {mode} does not say which value is white; give one of mode L or RGB")
    try:
        upright = ImageOps.exif_transpose(picture) or picture
        if mode.startswith("I;16"):
            grey = np.asarray(upright).astype(np.uint16, copy=False) >> 8
            return _of_array(grey.astype(np.uint8), "bgr", settings)
        return _of_array(np.asarray(upright.convert("RGB"), np.uint8), "rgb", settings)
    except (OSError, ValueError, SyntaxError) as error:  # closed, cut off, damaged
        raise ImageError(f"the PIL image cannot be read: {error}") from None


def _of_bytes(content: bytes, settings: Settings) -> "BgrImage":
    """Read the content of a file through the same code as a file."""
    with tempfile.TemporaryDirectory(prefix="moodline-") as folder:
        path = Path(folder, "picture")
        path.write_bytes(content)
        try:
            return _read(path, settings)
        except SourceError as error:
            raise ImageError(f"the bytes are no picture: {error}") from None


def _of_path(word: str, settings: Settings) -> "BgrImage":
    from moodline.services.report.outputs import shown

    path = _path_of(word)
    try:
        return _read(path, settings)
    except SourceError as error:
        raise SourceError(error.reason, f"{shown(word)}: {error}") from None
    except ImageError as error:
        raise ImageError(f"{shown(word)}: {error}") from None


def _path_of(word: str) -> Path:
    if not word:
        raise SourceError(FailureReason.NOT_FOUND, "an empty text names no picture")
    require_not_a_camera(word)
    if word.startswith("file:"):
        return Path(unquote(urlsplit(word).path, errors="surrogateescape"))
    try:
        return Path(word).expanduser()
    except RuntimeError:  # ~ of a user whom nobody knows
        return Path(word)


def _read(path: Path, settings: Settings) -> "BgrImage":
    from moodline.services.ingest.file.open import open_source

    try:
        resolved = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a NUL in it, or links that go round
        raise SourceError(FailureReason.NOT_FOUND, f"this is no path: {error}") from None
    ingest = settings.ingest.model_copy(update={"media_root": resolved.parent})
    with closing(open_source(resolved.as_uri(), ingest)) as source:
        for frame in source.frames():
            return frame.to_bgr()
    raise ImageError("there is no picture in the file")
