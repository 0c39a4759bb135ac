"""An API on a real store in a temporary folder, asked in process; and timelines to ask for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from fastapi import FastAPI

from moodline.services.api.app import create_app
from moodline.services.api.context import Intake
from moodline.shared.bus import Position
from moodline.shared.errors import ModelError, ModelNotFoundError
from moodline.shared.messages import DropReason
from moodline.shared.metrics import Metrics
from moodline.shared.settings import ApiSettings, IngestSettings, Settings, load_settings
from moodline.shared.store import BucketValue, HighWaterMark, Retention, TimelineUpdate
from moodline.shared.store.model_choice import ModelInfo
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.streams import StreamStatus
from moodline.shared.timeline.bucket import DROP_REASONS, TIERS_S, Bucket, merge_all, pack
from moodline.shared.timeline.models import MODELS_SERIES, MODELS_TIER_S, pack_models, record_model
from moodline.shared.timeline.tracks import (
    TrackBucket,
    TrackSummary,
    merge_track,
    pack_track_bucket,
    pack_track_summary,
    track_series,
)
from tests.support.clocks import NOW_S, StubClock

NOW = "2026-05-01T12:00:00Z"
NOW_US = int(NOW_S * 1_000_000)


class AsgiTransport(httpx.BaseTransport):
    """Lets a synchronous httpx client talk to an application without a socket."""

    def __init__(self, app: FastAPI) -> None:
        self._inner = httpx.ASGITransport(app=app, raise_app_exceptions=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return asyncio.run(self._ask(request))

    async def _ask(self, request: httpx.Request) -> httpx.Response:
        chunks = list(request.stream)  # type: ignore[arg-type]  # a synchronous client's stream
        content = b"".join(chunks) if "content-length" in request.headers else _one_by_one(chunks)
        asked = httpx.Request(request.method, request.url, headers=request.headers, content=content if chunks else None)
        answer = await self._inner.handle_async_request(asked)
        return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())


async def _one_by_one(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


class StubCatalogue:
    """Two models; one more is damaged."""

    default_name = "fer-seed"

    def __init__(self) -> None:
        self.models = [
            ModelInfo(
                name="fer-large",
                parameters=1_200_000,
                accuracy=0.71,
                measured_on="FER-2013 PublicTest, 3589 images",
                sha256="5f2b",
                source="/srv/models/fer-large",
            ),
            ModelInfo(
                name="fer-seed",
                parameters=602_535,
                accuracy=0.6498,
                measured_on="FER-2013 PublicTest, 3589 images",
                sha256="9d01",
                source="/srv/models/fer-seed",
            ),
            ModelInfo(name="mine", source="/srv/models/mine", problem="weights.npz is not the file that model.json describes"),
        ]

    def list_models(self) -> list[ModelInfo]:
        return self.models

    def check(self, name: str) -> ModelInfo:
        found = next((model for model in self.models if model.name == name), None)
        if found is None:
            raise ModelNotFoundError(f"there is no model {name!r}; installed: fer-large, fer-seed")
        if found.problem:
            raise ModelError(found.problem)
        return found


@dataclass
class ApiWorld:
    """A context manager: entering opens the store and builds the app."""

    directory: Path
    api: ApiSettings = field(default_factory=ApiSettings)
    readiness: Callable[[], dict[str, bool]] | None = None
    clock: StubClock = field(default_factory=StubClock)
    metrics: Metrics = field(default_factory=Metrics)
    intake: Intake | None = None
    overrides: dict[str, Any] = field(default_factory=dict)
    """Further groups of settings."""

    def __enter__(self) -> Self:
        self.media = self.directory / "media"
        self.media.mkdir()
        self.clip = self.media / "clip.mp4"
        self.clip.write_bytes(b"not opened by the API")
        retention = Retention(dict.fromkeys(TIERS_S, 10**9))
        self.store = SqliteStore(f"sqlite:///{self.directory / 'store.db'}", retention, clock=self.clock)
        self.settings: Settings = load_settings(
            data_dir=self.directory / "data", ingest=IngestSettings(media_root=self.media), api=self.api, **self.overrides
        )
        self.app = create_app(
            self.store,
            self.settings,
            self.metrics,
            self.clock,
            readiness=self.readiness,
            catalogue=StubCatalogue(),
            intake=self.intake,
        )
        self.http = httpx.Client(transport=AsgiTransport(self.app), base_url="http://localhost")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.http.close()
        self.store.close()

    def add(self, stream_id: str = "lobby", **fields: Any) -> dict[str, Any]:
        """Register a stream through the API and return the answer."""
        answer = self.http.post("/api/v1/streams", json={"id": stream_id, "url": "clip.mp4", "recorded_at": NOW} | fields)
        assert answer.status_code == 201, answer.text
        body: dict[str, Any] = answer.json()
        return body

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        return self.http.get(f"/api/v1{path}", params=parameters)

    def set_state(self, stream_id: str, **status: Any) -> None:
        """Let a reader claim the stream and report."""
        acquisition = self.store.acquire(stream_id, self.clock.now)
        assert self.store.set_status(stream_id, acquisition.epoch, StreamStatus(**status))

    def play(
        self,
        stream_id: str,
        seconds: list[Bucket | None],
        *,
        final: bool = True,
        faces: bool = True,
        more: tuple[BucketValue, ...] = (),
    ) -> None:
        """Write a timeline: one bucket per second from `NOW` on (None: nothing stored), one face through all of it, `more`."""
        first = NOW_US // 1_000_000
        stored = {first + n: bucket for n, bucket in enumerate(seconds) if bucket is not None}
        bucket_values = [BucketValue("", 1, index, pack(bucket)) for index, bucket in stored.items()]
        for tier_s in TIERS_S[1:]:
            groups: dict[int, list[Bucket]] = {}
            for index, bucket in stored.items():
                groups.setdefault(index // tier_s, []).append(bucket)
            bucket_values += [BucketValue("", tier_s, index, pack(merge_all(group))) for index, group in groups.items()]
        seen = {index: bucket for index, bucket in stored.items() if bucket.faces}
        if faces and seen:
            bucket_values += _track_values(1, seen)
        if any(bucket.classified for bucket in stored.values()):
            day, _ = record_model(None, "fer-seed", first)
            bucket_values.append(BucketValue(MODELS_SERIES, MODELS_TIER_S, day.day, pack_models(day)))
        frames = sum(bucket.sampled for bucket in stored.values())
        acquisition, progress = self.store.acquire(stream_id, self.clock.now), self.store.load([stream_id])[0]
        assert progress is not None
        update = TimelineUpdate(
            stream_id=stream_id,
            expected=progress.high_water_mark,
            high_water_mark=HighWaterMark(acquisition.epoch, frames - (0 if final else 1)),
            final=final,
            position=Position("moodline.emotions.file.v1", 0, 1),
            state=b"",
            last_event_time_us=(first + len(seconds)) * 1_000_000 - (0 if final else 200_000),
            bucket_values=(*bucket_values, *more),
        )
        assert [result.value for result in self.store.apply([update])] == ["applied"]


def _track_values(track: int, seen: dict[int, Bucket]) -> list[BucketValue]:
    buckets = {index: TrackBucket(bucket.faces, bucket.smoothed, bucket.leading) for index, bucket in seen.items()}
    whole = TrackBucket()
    for bucket in buckets.values():
        whole = merge_track(whole, bucket)
    summary = TrackSummary(min(seen) * 1_000_000, max(seen) * 1_000_000 + 800_000, whole, ended=True)
    bucket_values = [BucketValue(track_series(track), 1, index, pack_track_bucket(bucket)) for index, bucket in buckets.items()]
    return [*bucket_values, BucketValue("tracks", 0, track, pack_track_summary(summary))]


def smiling(faces: int = 5, *, share: float = 0.8, final: bool = True) -> Bucket:
    """A second of five frames whose faces are `share` happy, the rest neutral."""
    happy = round(65535 * share)
    sums = (0, 0, 0, faces * happy, 0, 0, faces * (65535 - happy))
    leading = (0, 0, 0, faces, 0, 0, 0) if share >= 0.5 else (0, 0, 0, 0, 0, 0, faces)
    return Bucket(sampled=5, frames_with_faces=5, faces=faces, raw=sums, smoothed=sums, leading=leading, final=final)


def nobody() -> Bucket:
    """A second of five frames without a face."""
    return Bucket(sampled=5, final=True)


def skipped(reason: DropReason) -> Bucket:
    """A second of five frames that nobody looked at."""
    return Bucket(sampled=5, skipped=tuple(5 if each is reason else 0 for each in DROP_REASONS), final=True)
