"""What the API answers, as frozen structs. A newer Moodline may answer more fields; those are passed over."""

from moodline.answers.alerts import Alert, AlertPage, Delivery, DeliveryPage, DryRun, Firing, FiringPage, Rule, RulePage
from moodline.answers.base import Answer
from moodline.answers.service import Caller, Change, ChangePage, Key, KeyPage, Model, Models, NewKey, Ready, Refusal
from moodline.answers.streams import Progress, Pushed, PushTotals, Status, Stream, StreamPage, Upload, Video
from moodline.answers.timelines import Point, Shares, Summary, Timeline, Track, TrackPage, TrackPoint, TrackTimeline

__all__ = [
    "Alert",
    "AlertPage",
    "Answer",
    "Caller",
    "Change",
    "ChangePage",
    "Delivery",
    "DeliveryPage",
    "DryRun",
    "Firing",
    "FiringPage",
    "Key",
    "KeyPage",
    "Model",
    "Models",
    "NewKey",
    "Point",
    "Progress",
    "PushTotals",
    "Pushed",
    "Ready",
    "Refusal",
    "Rule",
    "RulePage",
    "Shares",
    "Status",
    "Stream",
    "StreamPage",
    "Summary",
    "Timeline",
    "Track",
    "TrackPage",
    "TrackPoint",
    "TrackTimeline",
    "Upload",
    "Video",
]
