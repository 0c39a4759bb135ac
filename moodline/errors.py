"""Errors that a request to the API can raise.

Every exception is a `MoodlineError`. Messages say what was wrong and what to do; none holds a key or a password.
"""

from collections.abc import Mapping
from typing import Final

from moodline.shared.errors import MoodlineError

__all__ = [
    "AccessError",
    "ApiError",
    "BadAnswerError",
    "BusyError",
    "ClientError",
    "ConflictError",
    "InvalidRequestError",
    "MoodlineError",
    "NoAnswerError",
    "NotFoundError",
    "NotInTimeError",
    "ServiceError",
    "UnreachableError",
    "error_of",
]


class ClientError(MoodlineError):
    """The client cannot do what it is to do, without the API having a part in it: an address, a key, a file, a package."""

    code = "client"


class NotInTimeError(ClientError):
    """The awaited state was not reached within the time allowed."""

    code = "not_in_time"


class ApiError(MoodlineError):
    """The API refused a request, failed at it, or could not be asked.

    Attributes:
        code: Stable word of the API for what went wrong, such as `stream_not_found`; also `unreachable` and `bad_answer`.
        message: For people.
        field: Field or parameter of the request that is to blame, where one is.
        status: HTTP status of the answer; None without one.
        retry_after_s: After how many s it may be tried again, where the API says so.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        field: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code  # type: ignore[misc]  # other errors have one for each class; here the API names it
        self.message = message
        self.field = field
        self.status = status
        self.retry_after_s = retry_after_s

    def __repr__(self) -> str:
        return f"{type(self).__name__}(code={self.code!r}, message={self.message!r}, field={self.field!r}, status={self.status})"


class InvalidRequestError(ApiError):
    """The request cannot be used as it is: `field` names the part, where one is to blame."""


class AccessError(ApiError):
    """There is no key, a wrong one, or one that may not do this."""


class NotFoundError(ApiError):
    """There is no such thing, or the key may not see it."""


class ConflictError(ApiError):
    """It does not fit what is there by now: it exists already, was changed by somebody else, or has begun."""


class BusyError(ApiError):
    """Too much is asked for at once; try again after `retry_after_s`."""


class ServiceError(ApiError):
    """Moodline cannot work now, or made a fault; its log says more."""


class UnreachableError(ApiError):
    """No Moodline answers there, or not in time."""


class NoAnswerError(UnreachableError):
    """Somebody is there, but did not answer within the time allowed."""


class BadAnswerError(ApiError):
    """The answer does not come from a Moodline that this client understands."""


_CLASSES: Final[Mapping[int, type[ApiError]]] = {
    401: AccessError,
    403: AccessError,
    404: NotFoundError,
    409: ConflictError,
    412: ConflictError,
    429: BusyError,
}


def error_of(code: str, message: str, field: str | None, status: int, retry_after_s: float | None) -> ApiError:
    """Return the exception for an error answer of the API."""
    kind = _CLASSES.get(status, ServiceError if status >= 500 else InvalidRequestError)
    return kind(code, message, field=field, status=status, retry_after_s=retry_after_s)
