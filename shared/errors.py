"""Every error that Moodline raises on purpose.

Each class has a stable `code`, used in API answers, logs and metrics. Messages say what was wrong and what to do;
they never carry a URL with credentials.
"""

from typing import ClassVar


class MoodlineError(Exception):
    """Base of all errors raised on purpose. `code` is stable and machine-readable."""

    code: ClassVar[str] = "internal"


class FieldError(MoodlineError):
    """Something that was given cannot be used; `field` names the part that is to blame."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class ReasonError(MoodlineError):
    """Something failed; `reason` is a short, fixed word for why."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class SettingsError(MoodlineError):
    """A setting is missing or has a value that cannot be used."""

    code = "settings"


class MessageError(MoodlineError):
    """Bytes from the bus are not a message that this version understands; `reason` is a short, fixed word."""

    code = "bad_message"

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason


class BusError(MoodlineError):
    """The bus refused or lost a request."""

    code = "bus"


class BusUnavailableError(BusError):
    """The bus cannot be reached within the time allowed."""

    code = "bus_unavailable"


class BusFullError(BusError):
    """No room on the bus within the time allowed; nothing was sent."""

    code = "bus_full"


class NotDeliveredYetError(BusUnavailableError):
    """Messages are still on their way: the bus is away or slow, and its client goes on trying. `topics` names where to."""

    code = "not_delivered_yet"

    def __init__(self, message: str, topics: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.topics = topics


class DeliveryError(BusError):
    """Messages were lost. `topics` names where, so that a worker can tell file streams from live ones."""

    code = "delivery"

    def __init__(self, message: str, topics: frozenset[str] = frozenset()) -> None:
        super().__init__(message)
        self.topics = topics


class BusClosedError(BusError):
    """The consumer or producer was used after close."""

    code = "bus_closed"


class StoreError(MoodlineError):
    """The store refused or failed a request."""

    code = "store"


class StoreUnavailableError(StoreError):
    """The store cannot be reached within the time allowed."""

    code = "store_unavailable"


class StreamExistsError(StoreError):
    """A stream with this id is registered already."""

    code = "stream_exists"


class StreamNotFoundError(StoreError):
    """No stream with this id is registered."""

    code = "stream_not_found"


class RevisionConflictError(StoreError):
    """The stream was changed by somebody else since it was read."""

    code = "revision_conflict"


class PreconditionFailedError(RevisionConflictError):
    """The present version is not the one that a request's `If-Match` names."""

    code = "precondition_failed"


class StreamStartedError(StoreError):
    """The options that decide the content of a timeline cannot change any more: frames are in it, or on their way."""

    code = "stream_started"


class TrackNotFoundError(StoreError):
    """The stream has no tracked face with this number."""

    code = "track_not_found"


class InvalidStreamError(FieldError):
    """A stream's definition cannot be used; `field` names the part that is wrong."""

    code = "invalid_stream"


class FrameError(MoodlineError):
    """A pushed frame cannot be used: no JPEG, cut off, damaged, or of too many px."""

    code = "invalid_frame"


class FrameTooLargeError(FrameError):
    """A pushed frame has more bytes than are taken."""

    code = "frame_too_large"


class NotPushedError(MoodlineError):
    """Frames were pushed to a stream that is read from elsewhere."""

    code = "not_pushed"


class StreamPausedError(MoodlineError):
    """Frames were pushed to a paused stream."""

    code = "stream_paused"


class StreamTakenError(MoodlineError):
    """Another process has just begun to take this stream's frames."""

    code = "stream_taken"


class BodyTooLargeError(MoodlineError):
    """A request's body is larger, or has more in it, than the route takes."""

    code = "body_too_large"


class TooBusyError(MoodlineError):
    """More is asked for at the same time than is allowed; nothing was taken."""

    code = "too_busy"


class QuotaError(MoodlineError):
    """A key has as many of something as one key may have."""

    code = "quota_exceeded"


class TooSlowError(MoodlineError):
    """A body did not arrive in time."""

    code = "too_slow"


class NotReadyError(MoodlineError):
    """This process cannot do what was asked as it was started; the message says what is missing."""

    code = "not_ready"


class UploadError(MoodlineError):
    """An uploaded file cannot be used: it holds no video that can be read."""

    code = "not_video"


class UploadTooLargeError(UploadError):
    """An uploaded file is larger than is taken."""

    code = "upload_too_large"


class DiskFullError(UploadError):
    """An upload cannot be kept: the disk is full, or the media root cannot be written."""

    code = "disk_full"


class InvalidRuleError(FieldError):
    """An alert rule cannot be used; `field` names the part that is wrong."""

    code = "invalid_rule"


class RuleExistsError(StoreError):
    """There is an alert rule with this id already."""

    code = "rule_exists"


class RuleNotFoundError(StoreError):
    """There is no alert rule with this id."""

    code = "rule_not_found"


class WebhookError(ReasonError):
    """A webhook was not delivered; `reason` is a short, fixed word."""

    code = "webhook"


class SourceError(ReasonError):
    """A source cannot be opened or read; `reason` is one of `moodline.shared.streams.FailureReason`."""

    code = "source"


class SealError(MoodlineError):
    """A camera's credentials cannot be sealed or opened: the key is missing, or another one."""

    code = "seal"


class ModelError(MoodlineError):
    """A model artefact cannot be used: missing, altered, of another shape, or of an unsafe kind."""

    code = "model"


class ModelNotFoundError(ModelError):
    """There is no model of this name."""

    code = "model_not_found"


class ImageError(MoodlineError):
    """An image cannot be used: not decodable, of an unsupported type, or over the limits."""

    code = "image"


class DataError(MoodlineError):
    """A data set cannot be used: a folder, column or class is missing or unknown, or a label or pixel cannot be read."""

    code = "data"


class DefectError(MoodlineError):
    """An unexpected error: a defect of Moodline or of a library. The message names type and place only."""

    code = "defect"


class OutputError(MoodlineError):
    """A file cannot be written as asked."""

    code = "output"


class UnauthorizedError(MoodlineError):
    """A key is needed, or the one given is unknown, removed or expired."""

    code = "unauthorized"


class NotAllowedError(MoodlineError):
    """The caller's role or scope does not allow this."""

    code = "not_allowed"


class InvalidKeyError(FieldError):
    """A key cannot be made as asked; `field` names the part that is wrong."""

    code = "invalid_key"


class KeyExistsError(MoodlineError):
    """There is a key of this name already."""

    code = "key_exists"


class KeyNotFoundError(MoodlineError):
    """There is no key of this name."""

    code = "key_not_found"


class RateLimitedError(MoodlineError):
    """Too many requests; `retry_after_s` is when to try again, in s."""

    code = "rate_limited"

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueryError(FieldError):
    """A timeline query cannot be answered as asked; `field` names the parameter."""

    code = "invalid_query"


class NotAcceptableError(FieldError):
    """An answer is asked for in a format that is not to be had; `field` is `format` or `Accept`."""

    code = "not_acceptable"


class ParameterError(FieldError):
    """A parameter in the query is unknown, or is given twice; `field` names it."""

    code = "invalid_request"


class InvalidImageError(MoodlineError):
    """A picture that was sent to be classified cannot be used. `at` is its place among several, from 0."""

    code = "invalid_image"

    def __init__(self, at: int, reason: str, *, name: str = "the picture") -> None:
        super().__init__(f"{name} cannot be used: {reason}")
        self.at = at
        self.reason = reason


class PicturesTooLargeError(MoodlineError):
    """The pictures of one request have more bytes than are taken."""

    code = "pictures_too_large"


class FacesNotKeptError(MoodlineError):
    """Single faces are asked for where none are kept."""

    code = "faces_not_kept"


class PreviewOffError(MoodlineError):
    """A picture is asked for of a stream that shows none."""

    code = "preview_off"


class NoPictureError(MoodlineError):
    """No picture of a stream has been analysed in the last seconds."""

    code = "no_picture"
