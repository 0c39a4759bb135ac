"""The log of an analysis: frames in order, whole or not there."""

from pathlib import Path

from moodline.services.analysis.frame_log import FrameLog
from moodline.shared.messages import Emotions, StreamClass


def frame(seq: int) -> Emotions:
    return Emotions(
        stream_id="clip", epoch=1, seq=seq, event_time_us=seq, captured_at_us=0, lane=StreamClass.FILE, width=8, height=8
    )


def numbers(log: FrameLog) -> list[int]:
    return [message.seq for message in log.frames()]


def test_frames_come_back_in_order_once_and_without_holes(tmp_path: Path) -> None:
    with FrameLog(tmp_path / "log") as log:
        log.append([frame(0), frame(1)])
        log.append([frame(1), frame(2), frame(4)])
        assert numbers(log) == [0, 1, 2]
        assert log.next_seq == 3


def test_what_is_cut_off_is_dropped_and_written_again(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with FrameLog(path) as log:
        log.append([frame(0), frame(1)])
    whole = path.read_bytes()
    for cut in range(1, len(whole) // 2):
        path.write_bytes(whole[:-cut])
        with FrameLog(path) as log:
            assert log.next_seq == 1
            log.append([frame(1)])
        assert path.read_bytes() == whole
    path.write_bytes(whole + b"\0\0\0\3abc")
    with FrameLog(path) as log:
        assert numbers(log) == [0, 1]
    assert path.read_bytes() == whole
    with FrameLog(path) as log:
        log.clear()
        assert numbers(log) == []
        log.append([frame(0)])
        assert numbers(log) == [0]
