"""Cameras that send HLS. Playlists and segments come through the guarded client; frames are let out at the camera's pace."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Final

from moodline.services.ingest.camera.http.client import HttpClient
from moodline.services.ingest.camera.http.hls_playlist import MediaPlaylist, Segment, parse_playlist, renumbered
from moodline.services.ingest.camera.http.hls_segment import Picture, SegmentDecoder, decrypted, key_of, to_bgr
from moodline.services.ingest.camera.http.inflate import inflated
from moodline.services.ingest.camera.http.location import Location
from moodline.services.ingest.camera.input.frames import FrameGap, LiveCounts, LiveFrame, LiveInfo, LiveLimits
from moodline.shared.errors import SourceError
from moodline.shared.streams import FailureReason

PLAYLIST_LIMIT_BYTES: Final = 1024 * 1024
SEGMENT_LIMIT_BYTES: Final = 64 * 1024 * 1024
_HEADER_LIMIT_BYTES: Final = 1024 * 1024
_KEY_LIMIT_BYTES: Final = 1024
_LISTS_LIMIT: Final = 3
_GZIP: Final = b"\x1f\x8b"
_HICCUPS: Final = frozenset({FailureReason.UNREACHABLE, FailureReason.NOT_FOUND, FailureReason.CORRUPT, FailureReason.TIMEOUT})
_BEHIND_SEGMENTS: Final = 2
_BURST_S: Final = 0.2
_AHEAD_LIMIT_S: Final = 30.0
_JUMP_LIMIT_S: Final = 60
_GAP_S: Final = Fraction(1, 25)


class Pace:
    """Lets frames out as fast as they were taken: after a delay at most 0.2 s of them at once.

    Args:
        monotonic_s: The clock.
        sleep: Waits that many seconds.
    """

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic, sleep: Callable[[float], object] = time.sleep) -> None:
        self._monotonic_s = monotonic_s
        self._sleep = sleep
        self._origin_s: float | None = None

    def restart(self) -> None:
        """Let the next frame out at once, and count from there."""
        self._origin_s = None

    def wait(self, media_s: Fraction) -> None:
        """Block until the frame of this media time is due."""
        now_s = self._monotonic_s()
        if self._origin_s is None:
            self._origin_s = now_s - float(media_s)
        due_s = self._origin_s + float(media_s)
        if due_s < now_s - _BURST_S:
            self._origin_s += now_s - _BURST_S - due_s
        elif due_s > now_s + _AHEAD_LIMIT_S:
            self._origin_s = now_s - float(media_s)
        elif due_s > now_s:
            self._sleep(due_s - now_s)


class MediaTime:
    """Makes one line of the media times of segments: a clock that goes back, or far ahead, goes on where it was."""

    def __init__(self) -> None:
        self._last_s: Fraction | None = None
        self._offset_s = Fraction(0)

    def place(self, at_s: Fraction) -> Fraction:
        """Return the media time of the next frame; it is later than all before."""
        placed_s = at_s + self._offset_s
        last_s = self._last_s
        if last_s is not None and not last_s < placed_s <= last_s + _JUMP_LIMIT_S:
            placed_s = last_s + _GAP_S
            self._offset_s = placed_s - at_s
        self._last_s = placed_s
        return placed_s


@dataclass(frozen=True, slots=True)
class Fetched:
    """A segment's bytes; `jumped`: segments before it were left out."""

    segment: Segment
    data: bytes
    jumped: bool


class Timetable:
    """Selects the next segment: first the last but one, then one after the other. Segments that are too old are dropped."""

    def __init__(self) -> None:
        self._next: int | None = None
        self.jumped = False

    def choose(self, playlist: MediaPlaylist) -> Segment | None:
        """Return the next segment, or None when it is not there yet."""
        segments = playlist.segments
        if not segments:
            return None
        newest = segments[-1].sequence
        if self._next is None or newest < self._next - 1 - len(segments):
            # Also where the numbers began again.
            self._next = segments[-min(2, len(segments))].sequence
            self.jumped = True
        waiting = [segment for segment in segments if segment.sequence >= self._next]
        if len(waiting) > _BEHIND_SEGMENTS and not playlist.ended:
            waiting = waiting[-1:]
        if not waiting:
            return None
        self.jumped = self.jumped or waiting[0].sequence != self._next
        return waiting[0]

    def done(self, segment: Segment) -> None:
        """Go on behind this segment."""
        self._next = segment.sequence + 1
        self.jumped = False


class Downloader:
    """Fetches ahead, in a thread of its own: one segment waits while another is played. `close` ends it."""

    def __init__(self, client: HttpClient, location: Location, playlist: MediaPlaylist, limits: LiveLimits) -> None:
        self._client = client
        self._location = location
        self._playlist = playlist
        self._loaded_s = time.monotonic()
        self._reload_s = self._loaded_s + playlist.target_s
        self._timeout_s = limits.read_timeout_s
        self._timetable = Timetable()
        self._header: tuple[tuple[str, tuple[int, int] | None], bytes] | None = None
        self._key: tuple[str, bytes] | None = None
        self._failing_since_s: float | None = None
        self._closed = threading.Event()
        self._fetched: queue.Queue[Fetched | SourceError] = queue.Queue(1)
        self.lost = 0
        threading.Thread(target=self._run, name="hls", daemon=True).start()

    def take(self, deadline_s: float) -> Fetched:
        """Return the next segment. Raises `SourceError`."""
        try:
            fetched = self._fetched.get(timeout=max(0.0, deadline_s - time.monotonic()))
        except queue.Empty:
            raise SourceError(FailureReason.TIMEOUT, "the camera sends no frame that can be shown") from None
        if isinstance(fetched, SourceError):
            raise fetched
        return fetched

    def close(self) -> None:
        """End the thread and its connection."""
        self._closed.set()
        self._client.close()

    def _run(self) -> None:
        try:
            while not self._closed.is_set():
                self._step()
        except SourceError as error:
            self._put(error)
        except Exception as error:  # noqa: BLE001  # ends this thread: whoever waits must know
            self._put(SourceError(FailureReason.INTERNAL, f"reading crashed ({type(error).__name__})"))
        finally:
            self._client.close()

    def _step(self) -> None:
        segment = self._timetable.choose(self._playlist)
        stale = time.monotonic() - self._loaded_s > self._playlist.target_s and not self._playlist.ended
        if segment is None and self._playlist.ended:
            raise SourceError(FailureReason.UNREACHABLE, "the playlist has ended")
        if segment is None or stale:
            self._closed.wait(max(0.0, self._reload_s - time.monotonic()))
            if not self._closed.is_set():
                self._reload()
            return
        jumped = self._timetable.jumped
        self._timetable.done(segment)
        data = self._fetch(segment)
        if data is None:
            self.lost += 1
        else:
            self._put(Fetched(segment, data, jumped))

    def _reload(self) -> None:
        before = self._playlist
        try:
            deadline_s = time.monotonic() + self._timeout_s
            playlist, self._location = load_media(self._client, self._location, deadline_s, self._location.host)
        except SourceError as error:
            self._bear(error)
            self._reload_s = time.monotonic() + min(1.0, before.target_s / 2)
            return
        self._failing_since_s = None
        self._playlist = renumbered(playlist, before)
        self._loaded_s = time.monotonic()
        is_new = before.segments[-1:] != self._playlist.segments[-1:]
        self._reload_s = self._loaded_s + self._playlist.target_s / (1 if is_new else 2)

    def _bear(self, error: SourceError) -> None:
        """Bear a failure that may pass by itself, for a while. Raises it when it is another, or has lasted too long."""
        now_s = time.monotonic()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        if error.reason not in _HICCUPS or now_s - self._failing_since_s >= max(self._timeout_s, 3 * self._playlist.target_s):
            raise error

    def _fetch(self, segment: Segment) -> bytes | None:
        """Return a segment with its header in front; None when it is gone already."""
        deadline_s = time.monotonic() + max(self._timeout_s, self._playlist.target_s)
        try:
            return self._whole(segment, deadline_s)
        except SourceError as error:
            if error.reason != FailureReason.NOT_FOUND:
                self._bear(error)
            return None

    def _whole(self, segment: Segment, deadline_s: float) -> bytes:
        data = self._get(segment.uri, SEGMENT_LIMIT_BYTES, deadline_s, segment.part)
        if segment.key is not None:
            if self._key is None or self._key[0] != segment.key.uri:
                self._key = segment.key.uri, key_of(self._get(segment.key.uri, _KEY_LIMIT_BYTES, deadline_s, None))
            data = decrypted(data, self._key[1], segment.key.vector)
        if segment.header_uri is None:
            return data
        name = segment.header_uri, segment.header_part
        if self._header is None or self._header[0] != name:
            self._header = name, self._get(segment.header_uri, _HEADER_LIMIT_BYTES, deadline_s, segment.header_part)
        return self._header[1] + data

    def _get(self, uri: str, limit_bytes: int, deadline_s: float, part: tuple[int, int] | None) -> bytes:
        location = self._location.join(uri, self._client.schemes)
        response = self._client.get(location, deadline_s, self._location.host, part)
        data = response.read_all(limit_bytes, deadline_s)
        if part is not None and response.status == 200:
            # A server that knows no parts sends the whole.
            data = data[part[0] : part[0] + part[1]]
        return inflated(data, limit_bytes) if data[:2] == _GZIP else data

    def _put(self, item: Fetched | SourceError) -> None:
        while not self._closed.is_set():
            try:
                self._fetched.put(item, timeout=0.5)
            except queue.Full:
                continue
            return


class HlsSource:
    """One stream. Implements `LiveSource`.

    A frame counts as arrived when it is let out: a segment comes all at once, but its last frame is no older than its first.
    """

    def __init__(self, downloader: Downloader, limits: LiveLimits, deadline_s: float, pace: Pace) -> None:
        self.counts = LiveCounts()
        self._downloader = downloader
        self._limits = limits
        self._deadline_s = deadline_s
        self._pace = pace
        self._time = MediaTime()
        self._decoder = SegmentDecoder(limits.max_pixels, self.counts)
        self._gap = FrameGap(limits)
        self._codec = ""
        self._rest = self._read()
        self._first: LiveFrame | None = next(self._rest)
        self.info = LiveInfo(self._codec, self._first.width, self._first.height, None)

    def frames(self) -> Iterator[LiveFrame]:
        first, self._first = self._first, None
        if first is not None:
            yield first
        yield from self._rest

    def close(self) -> None:
        self._downloader.close()

    def _read(self) -> Iterator[LiveFrame]:
        while True:
            try:
                fetched = self._downloader.take(self._deadline_s)
            except SourceError:
                for picture in self._decoder.drain():
                    yield self._frame(picture, None)
                raise
            self.counts.packets += 1
            self.counts.lost_packets = self._downloader.lost
            if fetched.jumped:
                self._pace.restart()
            if fetched.jumped or fetched.segment.restarts:
                self._decoder.restart()
            for picture in self._decoder.decode(fetched.data):
                since_s = float(picture.at_s - self._decoder.begin_s)
                camera_s = None if fetched.segment.camera_s is None else fetched.segment.camera_s + since_s
                self._gap.frame(time.monotonic())
                yield self._frame(picture, camera_s)
                # A whole segment comes at once, and then nothing for as long as it lasts.
                patience_s = max(self._gap.limit_s, self._limits.read_timeout_s + 2 * fetched.segment.duration_s)
                self._deadline_s = time.monotonic() + patience_s
            if time.monotonic() >= self._deadline_s:
                raise SourceError(FailureReason.TIMEOUT, "the camera sends no frame that can be shown")

    def _frame(self, picture: Picture, camera_s: float | None) -> LiveFrame:
        self._codec = picture.codec
        media_s = self._time.place(picture.at_s)
        self._pace.wait(media_s)
        frame = picture.frame
        return LiveFrame(media_s, time.time(), camera_s, frame.width, frame.height, partial(to_bgr, frame))


def load_media(client: HttpClient, location: Location, deadline_s: float, via: str) -> tuple[MediaPlaylist, Location]:
    """Load a media playlist that the host `via` named, and say where it came from."""
    for _ in range(_LISTS_LIMIT):
        response = client.get(location, deadline_s, via)
        text = response.read_all(PLAYLIST_LIMIT_BYTES, deadline_s)
        parsed = parse_playlist(inflated(text, PLAYLIST_LIMIT_BYTES) if text[:2] == _GZIP else text)
        if not isinstance(parsed, str):
            return parsed, response.location
        via, location = response.location.host, response.location.join(parsed, client.schemes)
    raise SourceError(FailureReason.CORRUPT, "the camera's playlists lead to one another")


def open_hls(
    client: HttpClient,
    location: Location,
    text: bytes,
    limits: LiveLimits,
    deadline_s: float,
    pace: Pace | None = None,
) -> HlsSource:
    """Read the playlist that came from `location`, by way of a variant if it lists such; decode the first frame.

    It begins with the last segment but one, so one whole segment is in hand; who falls more than two behind goes on with the
    newest. A reload comes after the target duration, or half of it when nothing was new.

    Raises:
        SourceError: as `open_live`; `unreachable` when the playlist has ended and was played.
    """
    playlist = parse_playlist(inflated(text, PLAYLIST_LIMIT_BYTES) if text[:2] == _GZIP else text)
    if isinstance(playlist, str):
        playlist, location = load_media(client, location.join(playlist, client.schemes), deadline_s, location.host)
    downloader = Downloader(client, location, playlist, limits)
    try:
        return HlsSource(downloader, limits, deadline_s, pace or Pace())
    except BaseException:
        downloader.close()
        raise
