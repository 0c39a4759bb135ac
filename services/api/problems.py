"""The one shape of every error answer, and the table of codes. `docs/api.md` is checked against the table."""

from typing import Any, Final, NamedTuple

from pydantic import BaseModel, ConfigDict, Field


class Problem(NamedTuple):
    """One error code: the HTTP status it comes with, and what it means."""

    status: int
    meaning: str


PROBLEMS: Final[dict[str, Problem]] = {
    "invalid_request": Problem(422, "A body, parameter or header cannot be read, is missing, unknown or out of range."),
    "invalid_stream": Problem(422, "A stream's definition cannot be used."),
    "invalid_query": Problem(422, "A timeline query cannot be answered as asked."),
    "model": Problem(422, "A model is damaged, altered, or of another kind."),
    "forbidden": Problem(403, "The request comes from a web page of another site."),
    "not_found": Problem(404, "There is no such route."),
    "stream_not_found": Problem(404, "No stream with this id is registered."),
    "track_not_found": Problem(404, "The stream has no tracked face with this number."),
    "model_not_found": Problem(404, "No model of this name is installed."),
    "method_not_allowed": Problem(405, "The route exists, but not for this method."),
    "stream_exists": Problem(409, "A stream with this id is registered already."),
    "revision_conflict": Problem(409, "The stream was changed by somebody else since it was read."),
    "stream_started": Problem(409, "What decides a timeline's content cannot change once frames are on their way."),
    "body_too_large": Problem(413, "The request's body is larger than 1 MiB."),
    "internal": Problem(500, "A fault of Moodline's own; its log says more."),
    "seal": Problem(503, "A camera's credentials cannot be sealed or opened: the key is missing, or another one."),
    "store_unavailable": Problem(503, "The store cannot be reached; try again after `Retry-After` seconds."),
    "not_ready": Problem(503, "The service cannot work now; the message says which part."),
}

_EXAMPLE: Final[dict[str, Any]] = {
    "code": "stream_not_found",
    "message": "no stream 'lobby' is registered",
    "field": None,
}


class ErrorDetail(BaseModel):
    """What went wrong. `code` is stable; `message` is for people; `field` names the part of the request, if one is to blame."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    code: str = Field(description="Stable, machine-readable.")
    message: str = Field(description="For people: what was wrong and what to do.")
    field: str | None = Field(None, description="The field or parameter that is to blame, if one is.")


class ErrorAnswer(BaseModel):
    """Every error answer of the API."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"error": _EXAMPLE}]})

    error: ErrorDetail
