"""The route that classifies pictures at once: one as the body, or several as files of a form."""

from collections.abc import AsyncGenerator
from typing import Any, Final

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from moodline.services.api import PREFIX
from moodline.services.api.access import Viewer
from moodline.services.api.bodies import whole_body
from moodline.services.api.context import Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.report.document import ByEmotion, by_emotion
from moodline.shared.classify import ClassifiedPicture, PictureClassifier, PictureFace
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import InvalidImageError, NotReadyError, ParameterError, PicturesTooLargeError
from moodline.shared.settings import ClassifySettings

router = APIRouter(prefix=PREFIX, tags=["pictures"])

_SEVEN: Final = {**dict.fromkeys(EMOTIONS, 0.0), "happy": 0.9, "neutral": 0.1}
_FACE: Final[dict[str, Any]] = {
    "box": [312.5, 80.25, 401.0, 198.5],
    "score": 0.98,
    "quality": 0.8,
    "dominant": "happy",
    "emotions": _SEVEN,
}
_PICTURE: Final[dict[str, Any]] = {
    "name": "lobby.jpg",
    "width": 1280,
    "height": 720,
    "model": "fer-2-small",
    "faces": [_FACE],
    "too_small": 0,
}
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}
_FORM: Final = {
    "schema": {"type": "object", "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}}}
}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {"image/jpeg": _BINARY, "image/png": _BINARY, "image/webp": _BINARY, "multipart/form-data": _FORM},
    }
}
_HEADERS_OF_FORM: Final = 64 * 1024


class FaceAnswer(BaseModel):
    """One face in a picture."""

    model_config = ConfigDict(json_schema_extra={"examples": [_FACE]})

    box: tuple[float, float, float, float] = Field(description="Left, top, right, bottom in px of the upright picture.")
    score: float = Field(description="The detector's score, 0 to 1.")
    quality: float = Field(description="How well an expression can be read from it, 0 to 1.")
    dominant: str | None = Field(
        description="The likeliest emotion; null where the quality is below MOODLINE_AGGREGATOR_MIN_QUALITY."
    )
    emotions: ByEmotion = Field(description="Probabilities that sum to 1.")


class PictureAnswer(BaseModel):
    """One picture."""

    model_config = ConfigDict(json_schema_extra={"examples": [_PICTURE]})

    name: str = Field(description="As the form named the file; empty for a picture that is the body.")
    width: int = Field(description="In px, upright.")
    height: int = Field(description="In px, upright.")
    model: str = Field(description="Name of the model that looked at the faces.")
    faces: list[FaceAnswer] = Field(description="Best score first; empty where there is none.")
    too_small: int = Field(description="Faces beside these that are below MOODLINE_DETECTOR_MIN_FACE_PX.")


class ClassifyAnswer(BaseModel):
    """The answer to several pictures, in their order."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"pictures": [_PICTURE]}]})

    pictures: list[PictureAnswer]


@router.post(
    "/classify",
    summary="Classify pictures",
    openapi_extra=_BODY,
    responses=problem_responses(
        "invalid_image", "invalid_request", "pictures_too_large", "too_slow", "too_busy", "model", "not_ready"
    ),
)
async def classify(ctx: Ctx, caller: Viewer, request: Request) -> ClassifyAnswer:  # noqa: ARG001  # its role is what counts
    """Find the faces of JPEG, PNG or WebP pictures and their emotions. Nothing of them is kept.

    One picture is the body itself; several are the files of a form (`multipart/form-data`), whatever their fields are called.
    """
    settings = ctx.settings.classify
    classifier = ctx.intake.pictures
    if classifier is None or not settings.max_waiting:
        raise NotReadyError("this process has no models for pictures: install moodline[detector,classifier]")
    with ctx.concurrency.hold("requests to classify", settings.max_waiting):
        named = await _pictures(request, settings)
        found = await run_in_threadpool(_classified, classifier, [picture for _, picture in named])
    return ClassifyAnswer(
        pictures=[_answer(name, picture) for (name, _), picture in zip(named, found, strict=True)],
    )


async def _pictures(request: Request, settings: ClassifySettings) -> list[tuple[str, bytes]]:
    """Return name and content of each picture of a request."""
    too_large = PicturesTooLargeError(
        f"the pictures of a request may have {settings.max_bytes} bytes together (MOODLINE_CLASSIFY_MAX_BYTES)"
    )
    body = await whole_body(request, settings.max_bytes, settings.body_timeout_s, too_large)
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        if not body:
            raise ParameterError("image", "the request needs a picture as its body, or several as files of a form")
        return [("", body)]

    async def at_once() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        request.headers, at_once(), max_files=settings.max_pictures, max_fields=0, max_part_size=_HEADERS_OF_FORM
    )
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError) as error:
        raise ParameterError("image", f"the form cannot be read: {getattr(error, 'message', 'it names no boundary')}") from None
    files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
    named = [(file.filename or "", await file.read()) for file in files]
    await form.close()
    if not named:
        raise ParameterError("image", "the form has no files; send pictures such as -F image=@lobby.jpg")
    return named


def _classified(classifier: PictureClassifier, pictures: list[bytes]) -> list[ClassifiedPicture]:
    try:
        return classifier.classify(pictures)
    except InvalidImageError as error:
        if len(pictures) == 1:
            raise
        raise InvalidImageError(error.at, error.reason, name=f"picture {error.at + 1}") from None


def _answer(name: str, picture: ClassifiedPicture) -> PictureAnswer:
    faces = [_face(face) for face in picture.faces]
    return PictureAnswer(
        name=name[:255],
        width=picture.width,
        height=picture.height,
        model=picture.model,
        faces=faces,
        too_small=picture.too_small,
    )


def _face(face: PictureFace) -> FaceAnswer:
    emotions = by_emotion(face.probabilities)
    dominant = max(emotions, key=emotions.__getitem__) if face.is_readable else None
    return FaceAnswer(box=face.box, score=face.score, quality=face.quality, dominant=dominant, emotions=emotions)
