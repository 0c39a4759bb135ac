"""What a worker does with a stream, as a table."""

import pytest

from moodline.services.ingest.stream.plan import DesiredState, content_of, desired_state
from moodline.shared.store import HighWaterMark, Progress
from moodline.shared.streams import StreamSpec, StreamState, StreamStatus

OPEN, FINAL = Progress(high_water_mark=HighWaterMark(1, 5)), Progress(high_water_mark=HighWaterMark(1, 9), final=True)


@pytest.mark.parametrize(
    ("paused", "attempt", "state", "failed_at", "progress", "desired"),
    [
        pytest.param(False, 0, StreamState.PENDING, 0, Progress(), DesiredState.READ, id="new"),
        pytest.param(False, 0, StreamState.PLAYING, 0, OPEN, DesiredState.READ, id="its worker died"),
        pytest.param(False, 0, StreamState.PAUSED, 0, OPEN, DesiredState.READ, id="resumed"),
        pytest.param(True, 0, StreamState.PLAYING, 0, OPEN, DesiredState.PAUSE, id="paused"),
        pytest.param(True, 0, StreamState.FAILED, 0, OPEN, DesiredState.PAUSE, id="paused after failing"),
        pytest.param(False, 0, StreamState.FAILED, 0, OPEN, DesiredState.LEAVE, id="failed"),
        pytest.param(False, 1, StreamState.FAILED, 0, OPEN, DesiredState.READ, id="failed, to be tried again"),
        pytest.param(False, 1, StreamState.FAILED, 1, OPEN, DesiredState.LEAVE, id="failed again"),
        pytest.param(False, 0, StreamState.ENDED, 0, FINAL, DesiredState.LEAVE, id="ended"),
        pytest.param(True, 0, StreamState.ENDED, 0, FINAL, DesiredState.LEAVE, id="ended, paused afterwards"),
        pytest.param(False, 0, StreamState.PLAYING, 0, FINAL, DesiredState.READ, id="complete, but nobody said so"),
        pytest.param(False, 0, StreamState.ENDED, 0, OPEN, DesiredState.READ, id="had ended, the store lost writes"),
        pytest.param(False, 0, StreamState.PLAYING, 0, None, DesiredState.LEAVE, id="removed"),
    ],
)
def test_wishes(
    paused: bool, attempt: int, state: StreamState, failed_at: int, progress: Progress | None, desired: DesiredState
) -> None:
    spec = StreamSpec(stream_id="a", url="synthetic://astronaut", paused=paused, attempt=attempt)
    assert desired_state(spec, StreamStatus(state=state, attempt=failed_at), progress) is desired


@pytest.mark.parametrize(
    "change", [{"url": "b"}, {"sample_fps": "1"}, {"max_side_px": 64}, {"recorded_at_us": 1}, {"created_at_us": 1}]
)
def test_what_makes_a_reader_start_again(change: dict[str, object]) -> None:
    spec = StreamSpec(stream_id="a", url="a")
    assert content_of(spec) != content_of(StreamSpec(stream_id="a", **{"url": "a", **change}))  # type: ignore[arg-type]


def test_labels_do_not_disturb_a_reader() -> None:
    assert content_of(StreamSpec(stream_id="a", url="a")) == content_of(
        StreamSpec(stream_id="a", url="a", labels={"k": "v"}, revision=4)
    )
