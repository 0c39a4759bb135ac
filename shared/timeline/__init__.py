"""Timelines: what is stored of a stream, and what can be asked.

Integers only, and no I/O but the `TimelineStore` that a question is given. Stored are buckets at `TIERS_S` (series ""), one
summary per tracked face (series "tracks") and its seconds (series "track/<id>"), and which models answered (series "models").
"""

from moodline.shared.timeline.bucket import NOTHING, SECOND_US, TIERS_S, Bucket, merge, merge_all, pack, unpack
from moodline.shared.timeline.models import (
    MODELS_SERIES,
    MODELS_TIER_S,
    ModelDay,
    ModelLabels,
    pack_models,
    read_models,
    record_model,
    unpack_models,
)
from moodline.shared.timeline.points import EmptyReason, Reading, TimelineAnswer, TimelinePoint
from moodline.shared.timeline.query import DEFAULT_LIMIT, TimelineQuery, extent, timeline
from moodline.shared.timeline.tiers import Extent
from moodline.shared.timeline.times import parse_resolution, parse_time
from moodline.shared.timeline.track_query import Track, TrackAnswer, TrackPoint, TrackReading, track_list, track_timeline
from moodline.shared.timeline.tracks import (
    TRACK_TIER_S,
    TRACKS_SERIES,
    TRACKS_TIER_S,
    TrackBucket,
    TrackSummary,
    merge_track,
    pack_track_bucket,
    pack_track_summary,
    track_series,
    unpack_track_bucket,
    unpack_track_summary,
)

__all__ = [
    "DEFAULT_LIMIT",
    "MODELS_SERIES",
    "MODELS_TIER_S",
    "NOTHING",
    "SECOND_US",
    "TIERS_S",
    "TRACKS_SERIES",
    "TRACKS_TIER_S",
    "TRACK_TIER_S",
    "Bucket",
    "EmptyReason",
    "Extent",
    "ModelDay",
    "ModelLabels",
    "Reading",
    "TimelineAnswer",
    "TimelinePoint",
    "TimelineQuery",
    "Track",
    "TrackAnswer",
    "TrackBucket",
    "TrackPoint",
    "TrackReading",
    "TrackSummary",
    "extent",
    "merge",
    "merge_all",
    "merge_track",
    "pack",
    "pack_models",
    "pack_track_bucket",
    "pack_track_summary",
    "parse_resolution",
    "parse_time",
    "read_models",
    "record_model",
    "timeline",
    "track_list",
    "track_series",
    "track_timeline",
    "unpack",
    "unpack_models",
    "unpack_track_bucket",
    "unpack_track_summary",
]
