"""A training run's configuration: one TOML file, everything in it optional, unknown names refused."""

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from moodline.shared.errors import SettingsError

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class ModelConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The network.

    Attributes:
        kind: `tiny`, `baseline`, `shipped`, `large` (see `moodline.training.architecture`), or `transfer`.
        base: The network of `keras.applications` below a transfer network's head.
        dropout: Share of the features that are left out before the last layer; 0 turns all dropout off.
        precision: Of the convolutions in training; weights and measurements are float32 in any case.
        start: Folder of a finished or unfinished run of the same network: its best weights are where this one begins.
    """

    kind: Literal["tiny", "baseline", "shipped", "large", "transfer"] = "shipped"
    base: str = "mobilenet_v2"
    dropout: Share = 0.3
    precision: Literal["float32", "mixed_bfloat16"] = "mixed_bfloat16"
    start: str = ""


class DataConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The training images.

    Attributes:
        path: A folder of `<split>/<class>/` images, or fer2013.csv; `--data` goes before it.
        clean: Leave out of training what cannot teach: blank images, copies, copies whose labels disagree, and what the
            validation part holds too.
        votes: A FER+ votes CSV, or nothing.
        votes_weight: How much of a target comes from the votes, the rest from the label.
        doubt_weight: How much an image counts in which people see contempt, nothing they know or no face rather than one of the
            seven classes.
        limit: Use only so many training images, evenly from all; 0: all.
    """

    path: str = ""
    clean: bool = True
    votes: str = ""
    votes_weight: Share = 1.0
    doubt_weight: Share = 0.1
    limit: Annotated[int, msgspec.Meta(ge=0)] = 0


class ScheduleConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The schedule of a run.

    Attributes:
        epochs: Rounds over the training part.
        batch: Images a step.
        learning_rate: Its peak; it rises over the share `warm_up` of the run and falls along a cosine to zero.
        momentum: Nesterov's.
        weight_decay: Of kernels, as PyTorch counts it: added to their gradient, times the kernel.
        average_decay: Of the moving average of weights, which is what is measured and kept (EMA).
        seed: Of everything random.
        threads: Of the torch backend; 0: as many as it likes.
    """

    epochs: Positive = 160
    batch: Positive = 128
    learning_rate: NotNegative = 0.06
    warm_up: Share = 0.03
    momentum: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.9
    weight_decay: NotNegative = 5e-4
    average_decay: Share = 0.999
    seed: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] = 7
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0


class LossConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The loss.

    Attributes:
        label_smoothing: Share of a target that is spread over all classes.
        balance: A class weighs as the power `-balance` of its size: at 0 a rare class is never worth answering.
        mixup: Share of steps in which images are mixed in pairs, and their targets with them.
        mixup_alpha: Both parameters of the Beta distribution of the mixing.
        mixup_until: Share of the run after which none are mixed.
    """

    label_smoothing: Share = 0.1
    balance: Share = 0.2
    mixup: Share = 0.5
    mixup_alpha: Annotated[float, msgspec.Meta(gt=0)] = 0.2
    mixup_until: Share = 0.9


class DistilConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Learning from other models.

    Attributes:
        teachers: Folders of runs, or served models; they answer the very images that the network sees, and are averaged.
        soft_labels: An .npz with `probabilities` (N, 7), one row for each training image as read, before cleaning.
        weight: How much of a target comes from them; the rest is the label's.
        temperature: Above 1 their answers are softened.
    """

    teachers: tuple[str, ...] = ()
    soft_labels: str = ""
    weight: Share = 0.7
    temperature: Annotated[float, msgspec.Meta(gt=0)] = 1.0


class AugmentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The random changes to training images. Shares are of images, except `noise`: of batches.

    Attributes:
        shift: Up to so much of the side, in both directions (a detector's box is no steadier).
        scale_min, scale_max: Size of what is cut out, as a factor.
        stretch: Width against height, up to so much.
        rotation_deg: Standard deviation.
        flip: Share that is mirrored.
        gamma: Exponent from `exp(-gamma)` to `exp(gamma)`.
        contrast_min, contrast_max: Factor around the middle grey.
        brightness: Added, up to so much of half the range.
        low_resolution: Share that is shrunk to 18 to 33 px and enlarged again.
        jpeg: Share that is compressed at quality 40 to 89.
        noise: Share of batches with Gaussian noise, each image with its own strength up to `noise_strength`.
        erasing: Share that loses a rectangle of 6 to 19 px a side (Zhong et al., "Random erasing", 2017).
    """

    enabled: bool = True
    shift: Share = 0.11
    scale_min: Annotated[float, msgspec.Meta(gt=0)] = 0.8
    scale_max: Annotated[float, msgspec.Meta(gt=0)] = 1.18
    stretch: Share = 0.07
    rotation_deg: NotNegative = 9.0
    flip: Share = 0.5
    gamma: NotNegative = 0.45
    contrast_min: NotNegative = 0.45
    contrast_max: NotNegative = 1.35
    brightness: NotNegative = 0.3
    low_resolution: Share = 0.12
    jpeg: Share = 0.15
    noise: Share = 0.3
    noise_strength: NotNegative = 0.12
    erasing: Share = 0.35


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A whole configuration."""

    name: str = "run"
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    loss: LossConfig = LossConfig()
    distil: DistilConfig = DistilConfig()
    augment: AugmentConfig = AugmentConfig()


_Config = TypeVar("_Config", bound=msgspec.Struct)


def load_config(path: Path) -> TrainConfig:
    """Read a classifier's configuration. Raises as `read_toml`."""
    return read_toml(path, TrainConfig)


def read_toml(path: Path, kind: type[_Config]) -> _Config:
    """Read a configuration of a kind.

    Raises:
        SettingsError: there is none, or something in it is unknown or out of range.
    """
    try:
        return msgspec.toml.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise SettingsError(f"{path} cannot be read: {error.strerror}") from None
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: {error}") from None


def config_dict(config: TrainConfig) -> dict[str, Any]:
    """Return a configuration as plain values."""
    values: dict[str, Any] = msgspec.to_builtins(config)
    return values
