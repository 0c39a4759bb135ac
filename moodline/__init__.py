"""Ask a Moodline from Python.

>>> from moodline import Client
>>> with Client() as moodline:
...     moodline.add_stream("lobby", "/srv/media/lobby.mp4")
...     moodline.wait_until_ended("lobby")
...     frame = moodline.timeline_frame("lobby", resolution="10s")

`Client` has a method for everything that the HTTP API can do; answers are the frozen structs of `moodline.answers`.
"""

from moodline._alerts import RuleOptions
from moodline._events import AlertEvent, Event, Events, Face, FacesEvent, Hello, PointEvent, RemovedEvent, StateEvent
from moodline._streams import StreamChanges, StreamOptions
from moodline.answers import (
    Alert,
    Caller,
    Change,
    Delivery,
    DryRun,
    Firing,
    Key,
    Model,
    Models,
    NewKey,
    Point,
    Progress,
    Pushed,
    PushTotals,
    Ready,
    Rule,
    Status,
    Stream,
    Summary,
    Timeline,
    Track,
    TrackPoint,
    TrackTimeline,
    Upload,
    Video,
)
from moodline.client import Client
from moodline.errors import (
    AccessError,
    ApiError,
    BadAnswerError,
    BusyError,
    ClientError,
    ConflictError,
    InvalidRequestError,
    MoodlineError,
    NoAnswerError,
    NotFoundError,
    NotInTimeError,
    ServiceError,
    UnreachableError,
)
from shared.errors import InvalidStreamError, SourceError

__all__ = [
    "AccessError",
    "Alert",
    "AlertEvent",
    "ApiError",
    "BadAnswerError",
    "BusyError",
    "Caller",
    "Change",
    "Client",
    "ClientError",
    "ConflictError",
    "Delivery",
    "DryRun",
    "Event",
    "Events",
    "Face",
    "FacesEvent",
    "Firing",
    "Hello",
    "InvalidRequestError",
    "InvalidStreamError",
    "Key",
    "Model",
    "Models",
    "MoodlineError",
    "NewKey",
    "NoAnswerError",
    "NotFoundError",
    "NotInTimeError",
    "Point",
    "PointEvent",
    "Progress",
    "PushTotals",
    "Pushed",
    "Ready",
    "RemovedEvent",
    "Rule",
    "RuleOptions",
    "ServiceError",
    "SourceError",
    "StateEvent",
    "Status",
    "Stream",
    "StreamChanges",
    "StreamOptions",
    "Summary",
    "Timeline",
    "Track",
    "TrackPoint",
    "TrackTimeline",
    "UnreachableError",
    "Upload",
    "Video",
]
