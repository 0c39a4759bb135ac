"""Records over a socket pair: whole however they are cut, limited in length, and never waiting indefinitely."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.live.records import Failed, Job, Opened, Record, Sample, Stats
from moodline.services.ingest.process.channel import Channel, ChannelClosedError, ChannelError, RecordParser, encode_record
from moodline.shared.messages import DropReason
from moodline.shared.streams import FailureReason
from tests.support.camera_doubles import make_job

RECORD = cast("type[Record]", Record)

records = st.one_of(
    st.builds(
        Sample,
        event_time_us=st.integers(0, 2**53),
        captured_at_us=st.integers(0, 2**53),
        segment=st.integers(0, 1000),
        jpeg=st.binary(max_size=300),
        skip=st.sampled_from([None, *DropReason]),
    ),
    st.builds(Opened, codec=st.text(max_size=9), width=st.integers(0, 9), height=st.integers(0, 9), fps=st.text(max_size=9)),
    st.builds(Failed, reason=st.sampled_from(FailureReason), detail=st.text(max_size=40)),
)


@given(st.lists(records, max_size=6), st.data())
def test_records_come_out_whole_however_the_bytes_are_cut(sent: list[Record], data: st.DataObject) -> None:
    wire = b"".join(b"".join(encode_record(record)) for record in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    parser: RecordParser[Record] = RecordParser(RECORD)
    got: list[Record] = []
    for begin, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        parser.feed(wire[begin:end])
        while (record := parser.next()) is not None:
            got.append(record)
    assert got == sent


@given(st.binary(max_size=200))
def test_garbage_is_a_typed_error_or_waits_for_more(garbage: bytes) -> None:
    parser: RecordParser[Record] = RecordParser(RECORD, 1000)
    parser.feed(garbage)
    try:
        while parser.next() is not None:
            pass
    except ChannelError:
        pass


def test_a_length_over_the_limit_is_refused_before_its_bytes_come() -> None:
    parser: RecordParser[Record] = RecordParser(RECORD, 1000)
    parser.feed(struct.pack("!I", 1001))
    with pytest.raises(ChannelError, match="limit"):
        parser.next()
    with pytest.raises(ChannelError, match="limit"):
        encode_record(Sample(event_time_us=1, captured_at_us=1, segment=0, jpeg=bytes(1000)), 1000)


def test_errors_quote_nothing_of_what_came() -> None:
    parser: RecordParser[Job] = RecordParser(Job)
    body = b"\x81\xa4type\xa9c4n4ry-pw"
    parser.feed(struct.pack("!I", len(body)) + body)
    with pytest.raises(ChannelError) as caught:
        parser.next()
    assert "c4n4ry" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.fixture
def pair() -> Iterator[tuple[Channel[Job], Channel[Record]]]:
    """The camera's end and the worker's."""
    left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    camera, worker = Channel(left, Job), Channel(right, RECORD)
    yield camera, worker
    camera.close()
    worker.close()


def test_a_record_larger_than_the_socket_takes_arrives_whole(pair: tuple[Channel[Job], Channel[Record]]) -> None:
    camera, worker = pair
    sample = Sample(event_time_us=1, captured_at_us=2, segment=0, jpeg=bytes(range(256)) * 8000)
    sender = threading.Thread(target=camera.send, args=(sample,))
    sender.start()
    assert worker.receive(10.0) == sample
    sender.join(10.0)
    worker.send(make_job("/", password="pw"))
    job = camera.receive(None)
    assert job is not None
    assert job.password == "pw"


def test_waiting_ends_in_time_and_loses_nothing(pair: tuple[Channel[Job], Channel[Record]]) -> None:
    camera, worker = pair
    length, body = encode_record(Failed(reason=FailureReason.TIMEOUT, detail="x"))
    camera._socket.sendall(length + body[:3])
    began_s = time.monotonic()
    assert worker.receive(0.05) is None
    assert worker.receive(0.0) is None
    assert time.monotonic() - began_s < 5.0
    camera._socket.sendall(body[3:])
    assert worker.receive(5.0) == Failed(reason=FailureReason.TIMEOUT, detail="x")


def test_what_was_sent_before_the_end_still_comes(pair: tuple[Channel[Job], Channel[Record]]) -> None:
    camera, worker = pair
    stats = Stats(
        decoded=1, damaged=0, packets=0, lost_packets=0, last_frame_us=0, fps=0.0, width=0, height=0, clock_offset_ms=None
    )
    camera.send(stats)
    camera.close()
    assert worker.receive(5.0) == stats
    with pytest.raises(ChannelClosedError):
        worker.receive(5.0)
    with pytest.raises(ChannelClosedError):
        worker.send(make_job("/"))


def test_shutting_wakes_both_sides(pair: tuple[Channel[Job], Channel[Record]]) -> None:
    camera, worker = pair
    woken = threading.Event()

    def wait() -> None:
        with pytest.raises(ChannelClosedError):
            worker.receive(None)
        woken.set()

    threading.Thread(target=wait, daemon=True).start()
    worker.shut()
    worker.shut()
    camera.wait_closed()
    assert woken.wait(5.0)
