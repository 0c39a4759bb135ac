"""A client of the API, as the command line uses it. Needs nothing of the extra `api`."""

from types import TracebackType
from typing import Any, Final, Self, TypeVar

import httpx
from pydantic import BaseModel, ValidationError

from services.api import PREFIX
from services.api.models import ModelPage, StreamAnswer, StreamPage
from services.api.problems import ErrorAnswer
from services.report.document import TimelineDocument
from shared.errors import MoodlineError
from shared.streams import check_stream_id

_TIMEOUT_S: Final = 30.0
_PAGE: Final = 500

_Model = TypeVar("_Model", bound=BaseModel)


class ApiError(MoodlineError):
    """The API refused a request or could not be asked; `reason` is its error code, or `unreachable` or `bad_answer`."""

    code = "api"

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Client:
    """Asks one API. Blocks for each request; a context manager, since it keeps a connection open.

    Every method raises `ApiError`, and `InvalidStreamError` for an id that no stream can have.
    """

    def __init__(self, base_url: str, *, transport: httpx.BaseTransport | None = None) -> None:
        """Prepare to ask.

        Args:
            base_url: E.g. `http://127.0.0.1:8000`. Proxies of the environment are not used.
            transport: How requests travel; a socket unless given.
        """
        try:
            url = httpx.URL(base_url)
        except httpx.InvalidURL:
            url = httpx.URL("")
        if url.scheme not in ("http", "https") or not url.host:
            raise ApiError("unreachable", "the API's address is not a URL such as http://127.0.0.1:8000; check MOODLINE_API_URL")
        self._place = str(url.copy_with(userinfo=b""))
        self._http = httpx.Client(base_url=url, timeout=_TIMEOUT_S, transport=transport, trust_env=False)

    def add_stream(self, definition: dict[str, Any]) -> StreamAnswer:
        """Register a stream; `definition` is the body of `POST /streams`."""
        return self._ask(StreamAnswer, "POST", "/streams", json=definition)

    def list_streams(self) -> list[StreamAnswer]:
        """Return all streams, ordered by id."""
        streams: list[StreamAnswer] = []
        parameters: dict[str, str | int] = {"limit": _PAGE}
        while True:
            page = self._ask(StreamPage, "GET", "/streams", params=parameters)
            streams += page.streams
            if page.next_cursor is None:
                return streams
            parameters["cursor"] = page.next_cursor

    def get_stream(self, stream_id: str) -> StreamAnswer:
        """Return one stream."""
        return self._ask(StreamAnswer, "GET", _path(stream_id))

    def pause(self, stream_id: str) -> StreamAnswer:
        """Stop reading a stream."""
        return self._ask(StreamAnswer, "POST", _path(stream_id, "pause"))

    def resume(self, stream_id: str) -> StreamAnswer:
        """Go on reading a stream, or try a failed one again."""
        return self._ask(StreamAnswer, "POST", _path(stream_id, "resume"))

    def remove(self, stream_id: str) -> None:
        """Delete a stream and all of its data."""
        self._send("DELETE", _path(stream_id))

    def timeline(self, stream_id: str, parameters: dict[str, str | int]) -> TimelineDocument:
        """Return a window of a timeline; `parameters` are those of `GET /streams/{id}/timeline`."""
        return self._ask(TimelineDocument, "GET", _path(stream_id, "timeline"), params=parameters)

    def models(self) -> ModelPage:
        """Return the installed models, and which is active."""
        return self._ask(ModelPage, "GET", "/models")

    def activate_model(self, name: str) -> ModelPage:
        """Choose the model that all classifiers are to use."""
        return self._ask(ModelPage, "PUT", "/models/active", json={"name": name})

    def close(self) -> None:
        """Close the connection. Safe to call twice."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, model: type[_Model], method: str, path: str, **arguments: Any) -> _Model:
        answer = self._send(method, path, **arguments)
        try:
            return model.model_validate_json(answer.content)
        except ValidationError:
            raise self._bad_answer(answer) from None

    def _send(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, f"{PREFIX}{path}", **arguments)
        except httpx.TimeoutException:
            raise ApiError("unreachable", f"Moodline at {self._place} did not answer within {_TIMEOUT_S:.0f} s") from None
        except httpx.TransportError:
            raise ApiError(
                "unreachable",
                f"no Moodline answers at {self._place}; start it with `moodline run`, or set MOODLINE_API_URL to where it runs",
            ) from None
        if answer.is_success:
            return answer
        try:
            problem = ErrorAnswer.model_validate_json(answer.content).error
        except ValidationError:
            raise self._bad_answer(answer) from None
        raise ApiError(problem.code, problem.message)

    def _bad_answer(self, answer: httpx.Response) -> ApiError:
        return ApiError(
            "bad_answer",
            f"what answers at {self._place} is no Moodline of this version (HTTP status {answer.status_code}); "
            "check MOODLINE_API_URL",
        )


def _path(stream_id: str, *rest: str) -> str:
    return "/".join(("/streams", check_stream_id(stream_id), *rest))
