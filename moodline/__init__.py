"""Ask a Moodline from Python.

>>> from moodline import Client
>>> with Client() as moodline:
...     moodline.add_stream("lobby", "/srv/media/lobby.mp4")
...     moodline.wait_until_ended("lobby")
...     frame = moodline.timeline_frame("lobby", resolution="10s")

`Client` has a method for everything that the HTTP API can do; answers are the frozen structs of `moodline.answers`.
"""

import sys as _sys

if not (3, 11) <= _sys.version_info[:2] <= (3, 14):  # before anything that other versions do not understand
    raise SystemExit("Moodline needs Python 3.11 to 3.14, and this is %d.%d" % _sys.version_info[:2])  # noqa: UP031

from moodline.answers import (
    Alert,
    Caller,
    Change,
    Comparison,
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
    Series,
    Statistics,
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
from moodline.client._alerts import RuleOptions
from moodline.client._events import AlertEvent, Event, Events, Face, FacesEvent, Hello, PointEvent, RemovedEvent, StateEvent
from moodline.client._streams import StreamChanges, StreamOptions
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
from moodline.shared.errors import InvalidStreamError, SourceError

__version__ = "0.2.0"

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
    "Comparison",
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
    "Series",
    "ServiceError",
    "SourceError",
    "StateEvent",
    "Statistics",
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
    "__version__",
]
