"""Alerts on a real store, stepped by hand: seconds of a camera's timeline, and a receiver that is no socket."""

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from moodline.services.alerts.outbox import Outbox
from moodline.services.alerts.records import ALERTS_LOG, RuleBook
from moodline.services.alerts.rule_evaluator import RuleEvaluator
from moodline.services.alerts.rules import Rule, RuleKind, Webhook
from moodline.services.alerts.service import AlertService
from moodline.shared.bus import Position
from moodline.shared.camera_url import CameraSecret
from moodline.shared.errors import WebhookError
from moodline.shared.messages import StreamClass
from moodline.shared.metrics import Metrics
from moodline.shared.seal import Sealer, new_key
from moodline.shared.settings import AlertsSettings, load_settings
from moodline.shared.store import BucketValue, HighWaterMark, Retention, Store, TimelineUpdate
from moodline.shared.store.sqlite import SqliteStore
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus
from moodline.shared.timeline.bucket import TIERS_S, Bucket, merge_all, pack
from tests.support.api import NOW_S, nobody, smiling
from tests.support.clocks import StubClock

START = int(NOW_S)
KEY = new_key()
GLAD = Rule(
    rule_id="glad",
    stream="hall",
    kind=RuleKind.SHARE,
    emotion="happy",
    threshold=0.7,
    clear_threshold=0.5,
    for_s=5,
    clear_for_s=5,
    window_s=1,
    min_faces=5,
    no_data_s=20,
    quiet_s=0,
)


@dataclass
class StubReceiver:
    """Takes webhooks; fails as often as told, each time for the reason told."""

    failures: list[str] = field(default_factory=list)
    got: list[tuple[str, str, bytes, str]] = field(default_factory=list)

    def send(self, url: str, secret: str, body: bytes, event_id: str, now_s: float) -> None:
        if self.failures:
            raise WebhookError(self.failures.pop(0), "told to fail")
        self.got.append((url, secret, body, event_id))


class AlertWorld:
    """A store with one camera, `hall`; each `process()` is one of several that share it."""

    def __init__(self, folder: Path) -> None:
        self.clock = StubClock()
        self.metrics = Metrics()
        self.store: Store = SqliteStore(
            f"sqlite:///{folder / 'alerts.db'}", Retention(dict.fromkeys(TIERS_S, 10**9)), clock=self.clock
        )
        self.rules = RuleBook(self.store)
        self.receiver = StubReceiver()
        self.settings = load_settings(data_dir=folder, alerts=AlertsSettings(webhook_backoff_max_s=60), secrets={"key": KEY})
        self.played: dict[int, Bucket] = {}
        self.add_stream("hall", {"site": "berlin"})

    def add_stream(self, stream_id: str, labels: dict[str, str]) -> StreamSpec:
        created_us = int(self.clock.now * 1_000_000)
        spec = StreamSpec(
            stream_id=stream_id, url="rtsp://192.0.2.7/1", lane=StreamClass.LIVE, labels=labels, created_at_us=created_us
        )
        return self.store.add(spec)

    def webhook(self, rule_id: str = "glad") -> Webhook:
        secret = CameraSecret(password="whs_1", target="https://example.org/hook")
        return Webhook("https://example.org/***", Sealer(KEY).seal(f"alert-rule:{rule_id}", secret))

    def add_rule(self, rule: Rule = GLAD, *, webhook: bool = True) -> Rule:
        rule = msgspec.structs.replace(rule, webhook=self.webhook(rule.rule_id) if webhook else None)
        return self.rules.add(rule).rule

    def process(self) -> AlertService:
        """Return what one API process has for alerts, stepped by hand."""
        return AlertService(self.store, self.settings, self.metrics, self.clock, sender=self.receiver)

    def judge(self) -> RuleEvaluator:
        """Return a judge that takes the lease for granted, as one that was frozen does."""
        outbox = Outbox(self.store, Sealer(KEY), self.receiver, self.settings.alerts, self.metrics, self.clock)
        return RuleEvaluator(self.store, outbox, self.metrics, self.clock, lambda: True)

    def play(self, buckets: list[Bucket | None], stream_id: str = "hall") -> None:
        """Let a second of the timeline come in for each, while the clock moves on."""
        acquisition = self.store.acquire(stream_id, self.clock.now)
        for n, bucket in enumerate(buckets):
            second = int(self.clock.now)
            if bucket is not None:
                status = StreamStatus(state=StreamState.LIVE, last_frame_us=second * 1_000_000 + 900_000)
                self.store.set_status(stream_id, acquisition.epoch, status)
                self._write(stream_id, second, bucket, HighWaterMark(acquisition.epoch, n))
            self.clock.now += 1

    def _write(self, stream_id: str, second: int, bucket: Bucket, high_water_mark: HighWaterMark) -> None:
        self.played[second] = bucket
        bucket_values = [BucketValue("", 1, second, pack(bucket))]
        for tier_s in TIERS_S[1:]:
            same = [each for at, each in self.played.items() if at // tier_s == second // tier_s]
            bucket_values.append(BucketValue("", tier_s, second // tier_s, pack(merge_all(same))))
        progress = self.store.load([stream_id])[0]
        assert progress is not None
        update = TimelineUpdate(
            stream_id=stream_id,
            expected=progress.high_water_mark,
            high_water_mark=high_water_mark,
            final=False,
            position=Position("moodline.emotions.live.v1", 0, high_water_mark.seq),
            state=b"",
            last_event_time_us=second * 1_000_000 + 900_000,
            bucket_values=tuple(bucket_values),
        )
        assert [result.value for result in self.store.apply([update])] == ["applied"]

    def damage(self, stream_id: str) -> None:
        """Let the present second of a timeline be bytes that nobody can read."""
        high_water_mark = HighWaterMark(self.store.acquire(stream_id, self.clock.now).epoch, 0)
        progress = self.store.load([stream_id])[0]
        assert progress is not None
        update = TimelineUpdate(
            stream_id=stream_id,
            expected=progress.high_water_mark,
            high_water_mark=high_water_mark,
            final=False,
            position=Position("moodline.emotions.live.v1", 0, 1),
            state=b"",
            last_event_time_us=int(self.clock.now * 1_000_000),
            bucket_values=(BucketValue("", 1, int(self.clock.now), b"\xff"),),
        )
        self.store.apply([update])

    def log(self) -> list[tuple[str, str, str]]:
        """Return kind, reason and stream of everything in the log of alerts, oldest first."""
        said = [msgspec.json.decode(value) for _, value in self.store.records(ALERTS_LOG, limit=10_000)]
        return [(each["kind"], each["reason"], each["stream"]) for each in said]


def glad(seconds: int) -> list[Bucket | None]:
    return [smiling(share=0.8, final=False)] * seconds


def calm(seconds: int) -> list[Bucket | None]:
    return [smiling(share=0.2, final=False)] * seconds


def alone(seconds: int) -> list[Bucket | None]:
    return [msgspec.structs.replace(nobody(), final=False)] * seconds


def away(seconds: int) -> list[Bucket | None]:
    return [None] * seconds
