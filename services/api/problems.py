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
    "invalid_key": Problem(422, "A key's name, scope or expiry cannot be used."),
    "invalid_rule": Problem(422, "An alert rule cannot be used."),
    "model": Problem(422, "A model is damaged, altered, or of another kind."),
    "unauthorized": Problem(401, "A key is needed, or the one given is unknown, removed or expired."),
    "not_allowed": Problem(403, "The key's role or scope does not allow this."),
    "quota_exceeded": Problem(403, "The key has as much of this as one key may have (MOODLINE_QUOTAS_*)."),
    "forbidden": Problem(403, "The request comes from a web page of another site."),
    "invalid_frame": Problem(422, "A pushed frame is no JPEG, is cut off or damaged, or has too many px."),
    "invalid_image": Problem(422, "A picture to classify is no JPEG, PNG or WebP, is damaged, or has too many px."),
    "not_video": Problem(422, "An uploaded file holds no video that can be read."),
    "too_slow": Problem(408, "A body did not arrive in time."),
    "not_found": Problem(404, "There is no such route."),
    "stream_not_found": Problem(404, "No stream with this id is registered."),
    "track_not_found": Problem(404, "The stream has no tracked face with this number."),
    "faces_not_kept": Problem(404, "Single faces are not kept (MOODLINE_STORE_RETENTION_FACES_S is 0)."),
    "model_not_found": Problem(404, "No model of this name is installed."),
    "key_not_found": Problem(404, "There is no key of this name."),
    "rule_not_found": Problem(404, "There is no alert rule with this id."),
    "not_acceptable": Problem(406, "The answer is not to be had in the format that `Accept` or `format` asks for."),
    "method_not_allowed": Problem(405, "The route exists, but not for this method."),
    "stream_exists": Problem(409, "A stream with this id is registered already."),
    "key_exists": Problem(409, "There is a key of this name already."),
    "rule_exists": Problem(409, "There is an alert rule with this id already."),
    "revision_conflict": Problem(409, "The stream was changed by somebody else since it was read."),
    "precondition_failed": Problem(412, "What `If-Match` names is not what is there any more."),
    "not_pushed": Problem(409, "The stream is read from elsewhere and takes no pushed frames."),
    "stream_paused": Problem(409, "The stream is paused and takes no frames."),
    "stream_taken": Problem(409, "Another process takes this stream's frames; send all of them to one."),
    "stream_started": Problem(409, "What decides a timeline's content cannot change once frames are on their way."),
    "preview_off": Problem(409, "The stream shows no pictures: its `preview` is off."),
    "body_too_large": Problem(413, "The request's body is larger than the route takes, at most 128 KiB of JSON."),
    "frame_too_large": Problem(413, "A pushed frame has more bytes than are taken (MOODLINE_PUSH_MAX_BYTES)."),
    "pictures_too_large": Problem(413, "Pictures to classify have more bytes than are taken (MOODLINE_CLASSIFY_MAX_BYTES)."),
    "upload_too_large": Problem(413, "An uploaded file is larger than is taken (MOODLINE_UPLOADS_MAX_BYTES)."),
    "too_busy": Problem(429, "More is under way than is allowed; try again after `Retry-After` seconds."),
    "rate_limited": Problem(429, "Too many requests, or too many with an unknown key; try again after `Retry-After` seconds."),
    "internal": Problem(500, "A fault of Moodline's own; its log says more."),
    "seal": Problem(503, "A camera's credentials cannot be sealed or opened: the key is missing, or another one."),
    "store_unavailable": Problem(503, "The store cannot be reached; try again after `Retry-After` seconds."),
    "bus_unavailable": Problem(503, "The bus cannot be reached; try again after `Retry-After` seconds."),
    "disk_full": Problem(507, "An upload cannot be kept: the disk is full, or the media root cannot be written."),
    "no_picture": Problem(503, "No picture of the stream has been analysed in the last seconds."),
    "not_ready": Problem(503, "The service cannot work now; the message says which part."),
}

_EXAMPLE: Final[dict[str, Any]] = {
    "code": "stream_not_found",
    "message": "no stream 'lobby' is registered",
    "field": None,
}


class ErrorDetail(BaseModel):
    """An error: `code` is stable, `message` is for people, `field` names the wrong part of the request, or is null."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    code: str = Field(description="Stable, machine-readable.")
    message: str = Field(description="For people: what was wrong and what to do.")
    field: str | None = Field(None, description="The field or parameter that is to blame, if one is.")


class ErrorAnswer(BaseModel):
    """Every error answer of the API."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"error": _EXAMPLE}]})

    error: ErrorDetail
