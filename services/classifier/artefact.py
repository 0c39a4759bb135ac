"""A model on disk: `model.json`, what it is and what it takes, and `weights.npz`, plain arrays.

Nothing in an artefact can run: the architecture is data that may name only the layers listed here, and arrays are read
without pickle. The manifest holds the weights' SHA-256, so a damaged or exchanged file is noticed; it does not prove who
made them.
"""

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from moodline.shared.emotions import CROP_SIDE_PX, EMOTIONS
from moodline.shared.errors import ModelError

FORMAT: Final = 1
MANIFEST, WEIGHTS = "model.json", "weights.npz"

_MANIFEST_MAX_BYTES: Final = 4 * 1024 * 1024
_WEIGHTS_MAX_BYTES: Final = 256 * 1024 * 1024
_MAX_INTEGER: Final = 8192
_MAX_DEPTH: Final = 24
_LAYERS: Final = frozenset({
    "Activation", "Add", "AveragePooling2D", "BatchNormalization", "Concatenate", "Conv2D", "Dense", "DepthwiseConv2D",
    "Dropout", "Flatten", "GlobalAveragePooling2D", "GlobalMaxPooling2D", "InputLayer", "LayerNormalization", "MaxPooling2D",
    "Multiply", "ReLU", "Rescaling", "Reshape", "SeparableConv2D", "Softmax", "ZeroPadding2D",
})  # fmt: skip
_CLASSES: Final = {
    "keras.layers": _LAYERS,
    "keras.initializers": frozenset({"GlorotUniform", "HeNormal", "Ones", "Zeros"}),
    "keras": frozenset({"DTypePolicy"}),
    None: frozenset({"__keras_tensor__"}),
}
_ACTIVATIONS: Final = frozenset({None, "linear", "relu", "relu6", "silu", "sigmoid", "softmax", "hard_swish"})
_DTYPES: Final = frozenset({None, "float32", "uint8"})


Views: TypeAlias = Literal["single", "mirror"]


class InputContract(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The input of the network. Only one kind is served; it is recorded so that another kind is refused."""

    dtype: str = "uint8"
    shape: tuple[int, ...] = (CROP_SIDE_PX, CROP_SIDE_PX)
    layout: str = "HW"
    colour: str = "grey"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `model.json`.

    Attributes:
        format: Version of this layout.
        name: Name in messages and timelines.
        weights_sha256: SHA-256 of `weights.npz`, hexadecimal.
        input: The input contract.
        classes: Output order; must be `EMOTIONS`.
        architecture: Configuration of a Keras functional model, as its `get_config` gives it.
        metrics: What was measured, and on what.
        training: How the weights came about.
        views: Of a face: `single`, or `mirror`, the mean of the answers for a face and its mirror image.
    """

    format: int
    name: str
    weights_sha256: str
    input: InputContract
    classes: tuple[str, ...]
    architecture: dict[str, Any]
    metrics: dict[str, Any]
    training: dict[str, Any]
    views: Views = "single"


@dataclass(frozen=True, slots=True)
class Artefact:
    """A checked artefact. Weights are float32, in the order of the Keras model's `weights`."""

    manifest: Manifest
    weights: tuple[npt.NDArray[np.float32], ...]


def load_artefact(folder: Path) -> Artefact:
    """Read and check an artefact; reads disk, runs nothing.

    Raises:
        ModelError: missing, damaged, altered, of another format or contract, or with an architecture that is not allowed.
    """
    manifest = load_manifest(folder)
    path = folder / WEIGHTS
    data = _read(path, _WEIGHTS_MAX_BYTES)
    if hashlib.sha256(data).hexdigest() != manifest.weights_sha256:
        raise ModelError(f"{path} is not the file that {MANIFEST} describes: its SHA-256 differs")
    check_architecture(manifest.architecture)
    return Artefact(manifest, _weights(path, data))


def load_manifest(folder: Path) -> Manifest:
    """Read and check what an artefact says of itself; its weights and its architecture are not looked at.

    Raises:
        ModelError: missing, damaged, or of another format or contract.
    """
    path = folder / MANIFEST
    data = _read(path, _MANIFEST_MAX_BYTES)
    try:
        version = msgspec.json.decode(data, type=dict[str, Any]).get("format")
        if version != FORMAT:
            raise ModelError(f"{path} has format {version!r}, this version reads {FORMAT}")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ModelError(f"{path} is not a model manifest: {error}") from None
    if not manifest.name or not manifest.name.replace("-", "").replace(".", "").replace("_", "").isalnum():
        raise ModelError(f"{path}: a model's name is made of letters, digits, '-', '.' and '_'")
    if manifest.classes != EMOTIONS:
        raise ModelError(f"{path}: the classes must be {', '.join(EMOTIONS)}, in this order")
    if manifest.input != InputContract():
        raise ModelError(f"{path}: the network must take uint8 grey crops of {CROP_SIDE_PX}x{CROP_SIDE_PX}")
    return manifest


def _read(path: Path, limit_bytes: int) -> bytes:
    try:
        size = path.stat().st_size
        if size > limit_bytes:
            raise ModelError(f"{path} has {size} bytes, more than the {limit_bytes} allowed")
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}") from None


def _weights(path: Path, data: bytes) -> tuple[npt.NDArray[np.float32], ...]:
    """Return the arrays in `data`, the very bytes whose hash was compared: the file may change meanwhile."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _WEIGHTS_MAX_BYTES:
            raise ModelError(f"{path} unpacks to {unpacked} bytes, more than the {_WEIGHTS_MAX_BYTES} allowed")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            values = [arrays[name] for name in sorted(arrays.files)]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path} does not hold plain arrays: {error}") from None
    for value in values:
        if value.dtype not in (np.float16, np.float32) or not np.isfinite(value).all():
            raise ModelError(f"{path}: weights must be finite numbers, float16 or float32")
    return tuple(value.astype(np.float32) for value in values)


def check_architecture(config: object, depth: int = 0, key: str = "") -> None:
    """Raise `ModelError` unless a Keras configuration names only allowed classes, activations and sizes.

    Keras imports whatever module and class a configuration names; so each pair is looked up here first.
    """
    if depth > _MAX_DEPTH:
        raise ModelError("the architecture is nested too deeply")
    if isinstance(config, dict):
        _check_class(config)
        for name, value in config.items():
            check_architecture(value, depth + 1, name)
    elif isinstance(config, list):
        for value in config:
            check_architecture(value, depth + 1, key)
    elif isinstance(config, int) and abs(config) > _MAX_INTEGER:
        raise ModelError(f"the architecture has a size of {config}, more than the {_MAX_INTEGER} allowed")
    if (key == "activation" and (isinstance(config, dict | list) or config not in _ACTIVATIONS)) or (
        key.endswith(("_regularizer", "_constraint")) and config is not None
    ):
        raise ModelError(f"the architecture has the {key} {config!r}, which is not allowed")
    if key == "dtype" and isinstance(config, str) and config not in _DTYPES:
        raise ModelError(f"the architecture computes in {config}, not in float32")


def _check_class(config: dict[str, Any]) -> None:
    if not {"class_name", "module", "registered_name"} & config.keys():
        return
    name, module = config.get("class_name"), config.get("module")
    allowed = _CLASSES.get(module, frozenset()) if module is None or isinstance(module, str) else frozenset()
    if not isinstance(name, str) or name not in allowed or config.get("registered_name") is not None:
        raise ModelError(f"the architecture names {module}.{name}, which is not among the layers allowed")
    if name == "DTypePolicy" and config.get("config") != {"name": "float32"}:
        raise ModelError("the architecture computes in another precision than float32")
