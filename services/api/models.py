"""Request and answer bodies about streams: limits, meanings and examples."""

import re
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from moodline.services.api.given_time import GivenTime
from moodline.services.report.moments import Time
from moodline.services.report.stream_document import STREAM_EXAMPLE, StreamAnswer
from moodline.shared.camera_url import URL_LIMIT
from moodline.shared.printable import NAME_RULE, is_fit
from moodline.shared.streams import SAMPLE_FPS_MAX, STREAM_ID_PATTERN, Transport

LABELS_LIMIT: Final = 32
LABEL_VALUE_LIMIT: Final = 255
_LABEL_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,62}", re.ASCII)


def _rate_text(value: object) -> object:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value) if is_number else value


def _checked_labels(labels: dict[str, str]) -> dict[str, str]:
    if len(labels) > LABELS_LIMIT:
        raise ValueError(f"at most {LABELS_LIMIT} labels")
    for key, value in labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise ValueError("a label's key has 1 to 63 letters, digits, '.', '_', '/' or '-', and starts with a letter or digit")
        if len(value) > LABEL_VALUE_LIMIT or not is_fit(value):
            raise ValueError(f"a label's value has at most {LABEL_VALUE_LIMIT} characters, {NAME_RULE}")
    return labels


Rate = Annotated[
    str,
    BeforeValidator(_rate_text),
    Field(
        max_length=32,
        description=f"Frames per second of media time to analyse: a number above 0 and up to {SAMPLE_FPS_MAX}, also as a "
        "fraction, or `all`. Kept exactly as written.",
    ),
]
Side = Annotated[int, Field(ge=64, le=8192, description="Frames are reduced to at most this on the longer side, in px.")]
Labels = Annotated[
    dict[str, str],
    AfterValidator(_checked_labels),
    Field(
        description=f"Free key-value pairs, at most {LABELS_LIMIT}; keys of 1 to 63 letters, digits, `.`, `_`, `/` or `-`, "
        f"values of at most {LABEL_VALUE_LIMIT} characters."
    ),
]
Username = Annotated[
    SecretStr,
    Field(description="Of a camera, not encoded; instead of one in `url`. Kept sealed, never shown. Empty: no credentials."),
]
Password = Annotated[SecretStr, Field(description="Of a camera, not encoded; instead of one in `url`. Kept sealed, never shown.")]
Reached = Annotated[Transport, Field(description="How an RTSP camera sends: `tcp` or `udp`.")]
TlsVerify = Annotated[
    bool, Field(description="Whether the certificate of an `rtsps://` or `https://` camera must be valid for its name.")
]
_RECORDED_AT: Final = (
    "Time on the timeline of the file's first instant: ISO 8601 with an offset, seconds since 1970, or relative like now-5m"
)


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewStream(_Body):
    """A stream to register."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"id": "lobby", "url": "/srv/media/lobby.mp4"},
                {"id": "yard", "url": "rtsp://192.0.2.7/stream1", "transport": "udp"},
                {
                    "id": "lobby",
                    "url": "file:///srv/media/lobby.mp4",
                    "sample_fps": "30000/1001",
                    "max_side_px": 1280,
                    "recorded_at": "2026-05-01T12:00:00Z",
                    "labels": {"site": "berlin"},
                    "paused": True,
                },
            ]
        }
    )

    id: str = Field(pattern=f"^{STREAM_ID_PATTERN}$", description="Name of the stream, unique and unchangeable.")
    url: str = Field(
        min_length=1,
        max_length=URL_LIMIT,
        description="A path (a relative one counts from the media root), `file:///absolute/path`, `synthetic://name?options`, "
        "a camera: `rtsp://`, `rtsps://`, `http://`, `https://` or `device://0`; or `push://` for frames that are brought. "
        "Files must lie below the media root, also after links are resolved.",
    )
    username: Username | None = None
    password: Password | None = None
    transport: Reached | None = Field(None, description="Default: `tcp`.")
    tls_verify: TlsVerify | None = Field(None, description="Default: true.")
    sample_fps: Rate | None = Field(None, description="Default: MOODLINE_INGEST_SAMPLE_FPS.")
    max_side_px: Side | None = Field(None, description="Default: MOODLINE_INGEST_MAX_SIDE_PX.")
    recorded_at: GivenTime | None = Field(None, description=f"{_RECORDED_AT}; default: now, in whole seconds. Not for cameras.")
    labels: Labels = Field({}, description="Free key-value pairs.")
    paused: bool = Field(False, description="Register without reading anything yet.")
    preview: bool = Field(False, description="Let its newest analysed picture be seen; see `snapshot.jpg`.")


class StreamChange(_Body):
    """A change of a stream. A field that is left out or null stays as it is."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"labels": {"site": "berlin", "floor": "2"}, "revision": 1}]})

    url: str | None = Field(
        None,
        min_length=1,
        max_length=URL_LIMIT,
        description="Of a file: only before the first frame. A camera loses its credentials when scheme, host or port change.",
    )
    username: Username | None = Field(None, description="Empty removes the credentials.")
    password: Password | None = None
    transport: Reached | None = None
    tls_verify: TlsVerify | None = None
    sample_fps: Rate | None = Field(None, description="Of a file: only before the first frame.")
    max_side_px: Side | None = Field(None, description="Of a file: only before the first frame.")
    recorded_at: GivenTime | None = Field(None, description=f"{_RECORDED_AT}. Only before the first frame; not for cameras.")
    labels: Labels | None = Field(None, description="All labels; they replace the former ones.")
    paused: bool | None = Field(None, description="Stop or go on reading.")
    preview: bool | None = Field(None, description="Let its newest analysed picture be seen, or not any more.")
    revision: int | None = Field(None, ge=1, description="The revision that the change is based on; the same as `If-Match`.")


_TEST_EXAMPLE: Final[dict[str, Any]] = {
    "url": "rtsp://192.0.2.7/stream1",
    "hint": "",
    "works": False,
    "steps": [
        {"name": "resolve and connect", "good": True, "found": "0.01 s", "cure": ""},
        {
            "name": "log in and describe",
            "good": False,
            "found": "the camera wants a user name and a password",
            "cure": "give the camera's own user and password",
        },
    ],
}


class NewCameraTest(_Body):
    """A camera to try, without registering it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"url": "rtsp://192.0.2.7/stream1", "tls_verify": False},
                {"stream": "yard", "transport": "udp"},
            ]
        }
    )

    url: str | None = Field(
        None,
        min_length=1,
        max_length=URL_LIMIT,
        description="As for a new stream: `rtsp://`, `rtsps://`, `http://`, `https://` or `device://0`. "
        "Required, unless `stream` is given.",
    )
    stream: str | None = Field(
        None,
        pattern=f"^{STREAM_ID_PATTERN}$",
        description="A registered camera: what is not given here is taken from it, also its password, as a change of it would.",
    )
    username: Username | None = None
    password: Password | None = None
    transport: Reached | None = None
    tls_verify: TlsVerify | None = None


class CameraTestStep(BaseModel):
    """One step of a camera's test."""

    model_config = ConfigDict(json_schema_extra={"examples": _TEST_EXAMPLE["steps"]})

    name: str = Field(description="Of the step.")
    good: bool = Field(description="It went well, and nothing needs to change.")
    found: str = Field(description="What was found, for people.")
    cure: str = Field(description="What to change, for people; empty when nothing.")


class CameraTestAnswer(BaseModel):
    """Findings about a camera: what works, and what to change."""

    model_config = ConfigDict(json_schema_extra={"examples": [_TEST_EXAMPLE]})

    url: str = Field(description="What was tried, without credentials, and `***` for what may be a secret.")
    hint: str = Field(description="What was corrected in the `url` that was given; empty when nothing.")
    works: bool = Field(description="Every step was good.")
    steps: list[CameraTestStep] = Field(description="In order; ends with the step that failed.")


class StreamPage(BaseModel):
    """Some of the streams, ordered by id."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"streams": [STREAM_EXAMPLE], "next_cursor": None}]})

    streams: list[StreamAnswer]
    next_cursor: str | None = Field(None, description="Send it as `cursor` to get the next page; null on the last.")


_MODEL_EXAMPLE: Final[dict[str, Any]] = {
    "name": "fer-seed",
    "active": True,
    "parameters": 602535,
    "accuracy": 0.6498,
    "measured_on": "FER-2013 PublicTest, 3589 images",
    "sha256": "5e0c2f0b",
    "source": "/srv/moodline/models/fer-seed",
    "problem": "",
}


class ModelAnswer(BaseModel):
    """An installed model."""

    model_config = ConfigDict(json_schema_extra={"examples": [_MODEL_EXAMPLE]})

    name: str = Field(description="As points of timelines name it.")
    active: bool = Field(description="Classifiers use it, or will within seconds.")
    parameters: int = Field(description="How many weights it has.")
    accuracy: float | None = Field(description="Share of right answers on `measured_on`, 0 to 1; null where not measured.")
    measured_on: str = Field(description="What its accuracy was measured on.")
    sha256: str = Field(description="Of its weights.")
    source: str = Field(description="The folder that it was read from.")
    problem: str = Field(description="Why it cannot be used; empty where it can.")


class RefusalAnswer(BaseModel):
    """A classifier could not load the active model, and goes on with the one that it had."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"name": "mine", "reason": "there is no model 'mine'; installed: fer-seed", "at": "2026-05-01T12:00:00Z"}
            ]
        }
    )

    name: str = Field(description="Of the model.")
    reason: str = Field(description="Why, for people.")
    at: Time = Field(description="When it was last refused.")


class ModelPage(BaseModel):
    """The models that are installed where the API runs, ordered by name."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"active": "fer-seed", "chosen": None, "refused": None, "models": [_MODEL_EXAMPLE]}]}
    )

    active: str = Field(description="Name of the model that classifiers are to use.")
    chosen: Time | None = Field(description="When it was chosen; null where it is that of the settings.")
    refused: RefusalAnswer | None = Field(description="What a classifier said that could not load it; null where none did.")
    models: list[ModelAnswer]


class ModelChange(_Body):
    """The request to activate a model."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "fer-seed"}]})

    name: str = Field(min_length=1, max_length=255, description="Of an installed model.")
