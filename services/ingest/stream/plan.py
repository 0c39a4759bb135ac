"""Decides what a worker does with each stream that it owns. Pure."""

from enum import StrEnum

from moodline.shared.store import Standing
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus


class DesiredState(StrEnum):
    """The desired state of a stream."""

    READ = "read"
    PAUSE = "pause"
    LEAVE = "leave"
    """Nothing: it has ended or failed, or is gone."""


def desired_state(spec: StreamSpec, status: StreamStatus, standing: Standing | None) -> DesiredState:
    """Return what is to be done.

    A complete timeline whose status does not say so is read too: its reader finds nothing to read and says so. A stream that
    had ended and is not complete any more, because the store lost its last writes, is read again.
    """
    if standing is None:
        return DesiredState.LEAVE
    if standing.final:
        return DesiredState.LEAVE if status.state is StreamState.ENDED else DesiredState.READ
    if spec.paused:
        return DesiredState.PAUSE
    if status.state is StreamState.FAILED and status.attempt >= spec.attempt:
        return DesiredState.LEAVE
    return DesiredState.READ


def content_of(spec: StreamSpec) -> tuple[object, ...]:
    """Return what a reader depends on: when it changes, the reader must start again."""
    return (
        spec.url,
        spec.sealed,
        spec.transport,
        spec.tls_verify,
        spec.sample_fps,
        spec.max_side_px,
        spec.recorded_at_us,
        spec.created_at_us,
    )
