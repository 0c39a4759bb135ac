"""Turns whatever goes wrong into an error answer of the one shape."""

import logging
from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.routing import Match
from starlette.types import Receive, Send
from starlette.websockets import WebSocket, WebSocketState

from moodline.services.api.problems import PROBLEMS, ErrorAnswer, ErrorDetail
from moodline.shared.errors import (
    InvalidKeyError,
    InvalidRuleError,
    InvalidStreamError,
    MoodlineError,
    NotAcceptableError,
    ParameterError,
    QueryError,
    RateLimitedError,
)
from moodline.shared.streams import STREAM_ID_RULE

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

_WITH_FIELD: Final = (
    InvalidStreamError,
    QueryError,
    InvalidKeyError,
    InvalidRuleError,
    NotAcceptableError,
    ParameterError,
)
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


def error_response(code: str, message: str, field: str | None = None, *, retry_after_s: int = RETRY_AFTER_S) -> JSONResponse:
    """Return an error answer. `code` must be in `PROBLEMS`."""
    status = PROBLEMS[code].status
    headers = {"cache-control": "no-store"}
    if status in (429, 503):
        headers["retry-after"] = str(retry_after_s)
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    content = ErrorAnswer(error=ErrorDetail(code=code, message=message, field=field)).model_dump()
    return JSONResponse(content, status, headers)


def install_error_handlers(app: FastAPI) -> None:
    """Make every error of the app, its routing and its validation answer in the one shape."""
    app.add_exception_handler(MoodlineError, _moodline_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(StarletteHTTPException, _http_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected_error)


async def _moodline_error(connection: HTTPConnection, error: Exception) -> JSONResponse:
    assert isinstance(error, MoodlineError)
    answer = _answer_to(connection, error)
    if isinstance(connection, WebSocket):
        await _refuse(connection, answer, error.code)
    return answer


async def refuse(connection: HTTPConnection, error: MoodlineError, receive: Receive, send: Send) -> None:
    """Answer a request or the opening of a web socket with an error, from outside of the application's own handlers."""
    answer = await _moodline_error(connection, error)
    if not isinstance(connection, WebSocket):
        await answer(connection.scope, receive, send)


async def _refuse(socket: WebSocket, answer: JSONResponse, code: str) -> None:
    """End a web socket whose handler raised: nobody else would, and the client would wait."""
    if socket.client_state is WebSocketState.CONNECTING and "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(answer)
    elif socket.application_state is not WebSocketState.DISCONNECTED:
        await socket.close(1008, code)


def _answer_to(connection: HTTPConnection, error: MoodlineError) -> JSONResponse:
    if error.code not in PROBLEMS:
        log.error("request.failed", exc_info=error, extra={"method": connection.scope.get("method"), "code": error.code})
        return _internal()
    detail = error_detail(error)
    retry_after_s = error.retry_after_s if isinstance(error, RateLimitedError) else RETRY_AFTER_S
    return error_response(detail.code, detail.message, detail.field, retry_after_s=retry_after_s)


def error_detail(error: MoodlineError) -> ErrorDetail:
    """Return what a client is told about an error whose code is in `PROBLEMS`; of others, that something went wrong."""
    if error.code not in PROBLEMS:
        return ErrorDetail(code="internal", message=_INTERNAL, field=None)
    field = error.field if isinstance(error, _WITH_FIELD) else None
    return ErrorDetail(code=error.code, message=str(error), field=_FIELD_NAMES.get(field, field) if field else None)


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
    if item["type"] == "string_pattern_mismatch":
        # All patterns are those of ids: of streams, and of rules, which are like them.
        text = f"must have {STREAM_ID_RULE}"
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
    if error.status_code == 405:
        answer.headers["allow"] = ", ".join(_methods_of(request))
    return answer


def _methods_of(request: Request) -> list[str]:
    """Return all methods of a path: a router knows those of its first route that fits only."""
    scopes = {method: {**request.scope, "method": method} for method in ("GET", "POST", "PUT", "PATCH", "DELETE")}
    found = [
        method
        for method, scope in scopes.items()
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)
    ]
    return ["GET", "HEAD", *found[1:]] if "GET" in found else found


_INTERNAL: Final = "something went wrong inside Moodline; its log says more"


async def _unexpected_error(_request: Request, _error: Exception) -> JSONResponse:
    return _internal()


def _internal() -> JSONResponse:
    return error_response("internal", _INTERNAL)
