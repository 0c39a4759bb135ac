"""Turns whatever goes wrong into an error answer of the one shape."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse

from services.api.problems import PROBLEMS, ErrorAnswer, ErrorDetail
from shared.errors import InvalidStreamError, MoodlineError, QueryError

log = logging.getLogger("moodline.api")

RETRY_AFTER_S: Final = 2
_MOST_PROBLEMS: Final = 10
_MOST_OF_A_NAME: Final = 64


_CODES_OF_STATUS: Final = {
    400: "invalid_request",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    413: "body_too_large",
    415: "invalid_request",
    422: "invalid_request",
}

# The registry calls a stream's name `stream_id`; a client knows it as `id`.
_FIELD_NAMES: Final = {"stream_id": "id"}


def problem_responses(*codes: str) -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's description of the error answers with these codes."""
    described: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, meaning = PROBLEMS[code]
        entry = described.setdefault(
            status, {"model": ErrorAnswer, "description": "", "content": {"application/json": {"examples": {}}}}
        )
        entry["description"] = f"{entry['description']} `{code}`: {meaning}".strip()
        entry["content"]["application/json"]["examples"][code] = {
            "value": {"error": {"code": code, "message": meaning, "field": None}}
        }
    return described


def error_response(code: str, message: str, field: str | None = None) -> JSONResponse:
    """Return an error answer. `code` must be in `PROBLEMS`."""
    status = PROBLEMS[code].status
    headers = {"cache-control": "no-store"}
    if status == 503:
        headers["retry-after"] = str(RETRY_AFTER_S)
    content = ErrorAnswer(error=ErrorDetail(code=code, message=message, field=field)).model_dump()
    return JSONResponse(content, status, headers)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of the app, its routing and its validation answer in the one shape."""
    app.add_exception_handler(MoodlineError, _moodline_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


async def _moodline_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MoodlineError)
    if error.code not in PROBLEMS:
        log.error("request.failed", exc_info=error, extra={"method": request.method, "code": error.code})
        return _internal()
    field = error.field if isinstance(error, InvalidStreamError | QueryError) else None
    return error_response(error.code, str(error), _FIELD_NAMES.get(field, field) if field else None)


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [_explain(item) for item in error.errors()[:_MOST_PROBLEMS]]
    message = "; ".join(f"{field}: {text}" if field else text for field, text in problems)
    return error_response("invalid_request", message, problems[0][0] or None)


def _explain(item: dict[str, Any]) -> tuple[str, str]:
    """Return field and text of one validation problem. Never the value: it may hold a secret."""
    where: Sequence[object] = item["loc"]
    if item["type"] == "json_invalid":
        return "", "the body is not valid JSON"
    if len(where) == 1:
        return "", "the request needs a JSON object as its body, with Content-Type: application/json"
    text = str(item["msg"]).removeprefix("Value error, ")
    text = {"extra_forbidden": "is unknown here", "missing": "is required"}.get(item["type"], text)
    return ".".join(str(part)[:_MOST_OF_A_NAME] for part in where[1:]), text


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, StarletteHTTPException)
    code = _CODES_OF_STATUS.get(error.status_code, "internal")
    messages = {
        "invalid_request": "the body could not be read as JSON",
        "not_found": "there is no such route; the API's routes are under /api/v1, and /openapi.json lists them",
        "method_not_allowed": f"{request.method} is not possible here",
        "internal": _INTERNAL,
    }
    answer = error_response(code, messages.get(code, PROBLEMS[code].meaning))
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


_INTERNAL: Final = "something went wrong inside Moodline; its log says more"


async def _unexpected_error(_request: Request, _error: Exception) -> JSONResponse:
    return _internal()


def _internal() -> JSONResponse:
    return error_response("internal", _INTERNAL)
