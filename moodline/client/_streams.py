"""Methods about the registry of streams."""

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Final, TypedDict, Unpack

from moodline.answers import Stream, StreamPage
from moodline.client._given import Names, body, names, query, stream_path
from moodline.client._link import Link
from moodline.errors import ClientError, NotInTimeError
from moodline.shared.errors import SourceError

_PAGE: Final = 500
_POLL_S: Final = 0.25

Tell = Callable[[Stream], None]
"""Is told the stream each time that it was looked at."""


class StreamChanges(TypedDict, total=False):
    """The options of a stream that can be changed. An option that is left out stays as it is.

    Attributes:
        url: Of a file, only before its first frame.
        username: Of a camera, not encoded; empty removes the credentials.
        password: Of a camera, not encoded.
        transport: How an RTSP camera sends: `tcp` or `udp`.
        tls_verify: False takes any certificate of the camera.
        sample_fps: Frames per second to analyse, or `all`. Of a file, only before its first frame.
        max_side_px: Longest side of a frame. Of a file, only before its first frame.
        recorded_at: When a file's recording began. Only before its first frame.
        labels: All labels; they replace the former ones.
        paused: Nothing is read while true.
        preview: Let its newest analysed picture be seen.
    """

    url: str
    username: str
    password: str
    transport: str
    tls_verify: bool
    sample_fps: str | float
    max_side_px: int
    recorded_at: datetime | str
    labels: dict[str, str]
    paused: bool
    preview: bool


class StreamOptions(TypedDict, total=False):
    """Options of a new stream besides its id and URL; as in `StreamChanges`."""

    username: str
    password: str
    transport: str
    tls_verify: bool
    sample_fps: str | float
    max_side_px: int
    recorded_at: datetime | str
    labels: dict[str, str]
    paused: bool
    preview: bool


class StreamMethods:
    """Part of `Client`."""

    _link: Link

    def add_stream(self, stream_id: str, url: str, **options: Unpack[StreamOptions]) -> Stream:
        """Register a stream; unless `paused`, it is read at once.

        Args:
            stream_id: Its name: 1 to 63 letters, digits, `.`, `_` or `-`, compared as typed.
            url: A path as the service sees it, `file://`, `synthetic://`, a camera's `rtsp://`, `rtsps://`, `http://`,
                `https://`, `device://0`, or `push://` for frames that are brought.
            options: See `StreamOptions`.
        """
        return self._link.ask(Stream, "POST", "/streams", json={"id": stream_id, "url": url, **body(options)})

    def get_stream(self, stream_id: str) -> Stream:
        """Return one stream."""
        return self._link.ask(Stream, "GET", stream_path(stream_id))

    def list_streams(self, *, labels: Names = (), state: str | None = None) -> Iterator[Stream]:
        """Iterate over streams, ordered by id; asks for the next page when it is needed.

        Args:
            labels: `key=value`, or `key` for any value; a stream must have all of them.
            state: Only streams in this state.
        """
        asked = query(label=names(labels), state=state, limit=_PAGE)
        while True:
            page = self._link.ask(StreamPage, "GET", "/streams", params=asked)
            yield from page.streams
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor

    def change_stream(self, stream_id: str, *, revision: int | None = None, **changes: Unpack[StreamChanges]) -> Stream:
        """Change a stream; what is not named stays.

        Args:
            stream_id: Which.
            revision: The `revision` of the stream that the change is based on. When somebody else was faster, it raises
                `ConflictError` (code `revision_conflict`), and nothing is changed.
            changes: See `StreamChanges`.
        """
        given = body(changes) | query(revision=revision)
        return self._link.ask(Stream, "PATCH", stream_path(stream_id), json=given)

    def pause_stream(self, stream_id: str) -> Stream:
        """Stop reading a stream; its timeline stays."""
        return self._link.ask(Stream, "POST", stream_path(stream_id, "pause"))

    def resume_stream(self, stream_id: str) -> Stream:
        """Go on reading a stream, or try a failed one again."""
        return self._link.ask(Stream, "POST", stream_path(stream_id, "resume"))

    def delete_stream(self, stream_id: str) -> None:
        """Delete a stream and all of its data. This cannot be undone."""
        self._link.send("DELETE", f"/api/v1{stream_path(stream_id)}")

    def wait_until_ended(self, stream_id: str, *, timeout_s: float | None = None, tell: Tell | None = None) -> Stream:
        """Return the stream when the whole file is in its timeline. Blocks.

        Raises:
            SourceError: it failed.
            NotInTimeError: it had not ended after `timeout_s`.
            ClientError: it is live, and comes to no end.
        """
        return self._wait(stream_id, "file", lambda stream: stream.progress.complete, timeout_s, tell)

    def wait_until_live(self, stream_id: str, *, timeout_s: float | None = None, tell: Tell | None = None) -> Stream:
        """Return the stream when frames of its camera come. Blocks. Raises as `wait_until_ended` does."""
        return self._wait(stream_id, "live", lambda stream: stream.status.state == "live", timeout_s, tell)

    def _wait(
        self, stream_id: str, lane: str, done: Callable[[Stream], bool], timeout_s: float | None, tell: Tell | None
    ) -> Stream:
        clock = self._link.clock
        end_s = None if timeout_s is None else clock.monotonic_s() + timeout_s
        while True:
            stream = self.get_stream(stream_id)
            if tell is not None:
                tell(stream)
            if stream.lane != lane:
                raise ClientError(f"{stream_id} is {'a file' if lane == 'live' else 'live'}; it never gets there")
            if done(stream):
                return stream
            if stream.status.state == "failed":
                why = ": ".join(part for part in (stream.status.reason, stream.status.detail) if part) or "no reason is known"
                raise SourceError(stream.status.reason or "failed", f"{stream_id} failed: {why}")
            if end_s is not None and clock.monotonic_s() >= end_s:
                raise NotInTimeError(f"{stream_id} was still {stream.status.state} after {timeout_s:g} s")
            clock.sleep(_POLL_S)
