import struct

from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.camera.rtsp.media import Reorder
from moodline.services.ingest.camera.rtsp.rtp import (
    MediaClock,
    PacketNumbers,
    Reception,
    RtpPacket,
    parse_rtcp,
    parse_rtp,
    receiver_report,
)

NTP_2026 = (2_208_988_800 + 1_767_225_600) << 32


def test_a_packet_with_everything_in_it() -> None:
    head = struct.pack(">BBHII", 0xB2, 0xE0, 65535, 0xFFFFFFFF, 7) + b"csrccsrc" + struct.pack(">HH", 0xBEDE, 1) + b"ext!"
    packet = parse_rtp(head + b"payload" + b"\0\0\3")
    assert packet == RtpPacket(96, True, 65535, 0xFFFFFFFF, 7, b"payload")


def test_packets_that_are_none() -> None:
    good = struct.pack(">BBHII", 0x80, 96, 1, 2, 3)
    assert parse_rtp(good) is not None
    assert parse_rtp(good[:-1]) is None
    assert parse_rtp(b"\x40" + good[1:]) is None
    assert parse_rtp(b"\xa0" + good[1:] + b"\xff") is None
    assert parse_rtp(b"\x90" + good[1:] + b"\0\0\0\1") is None


@given(st.binary(max_size=80))
def test_no_bytes_raise(data: bytes) -> None:
    parse_rtp(data)
    parse_rtcp(data)
    parse_rtcp(b"\x80\xc8\0\6" + data)
    parse_rtcp(b"\x9f\xcb\0\1" + data)


def test_reports_and_byes_of_a_compound_packet() -> None:
    report = struct.pack(">BBHIQIII", 0x80, 200, 6, 7, NTP_2026 + (1 << 31), 90_000, 1, 2)
    found = parse_rtcp(report + struct.pack(">BBHI", 0x81, 203, 1, 7))
    assert [(one.ssrc, one.unix_s, one.timestamp) for one in found.reports] == [(7, 1_767_225_600.5, 90_000)]
    assert found.ended == [7]
    unset = struct.pack(">BBHIQIII", 0x80, 200, 6, 7, 0, 90_000, 1, 2)
    assert parse_rtcp(unset).reports == []


@given(st.integers(0, 65535), st.lists(st.integers(1, 50), max_size=200))
def test_numbers_tell_how_many_are_missing(start: int, steps: list[int]) -> None:
    numbers = PacketNumbers()
    place = start
    assert numbers.follow(place) == 0
    for step in steps:
        place += step
        assert numbers.follow(place & 0xFFFF) == step - 1
        assert numbers.follow(place & 0xFFFF) == -1
    assert numbers.lost == sum(steps) - len(steps)


def test_numbers_that_begin_anew_are_no_gap_of_thousands() -> None:
    numbers = PacketNumbers()
    numbers.follow(40_000)
    assert numbers.follow(10) == 1
    assert numbers.follow(11) == 0


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(-(2**31), 2**31 - 1), max_size=20))
def test_time_stamps_lose_their_wraps(start: int, steps: list[int]) -> None:
    clock = MediaClock(90_000)
    assert clock.unwrap(start) == start
    total = start
    for step in steps:
        total += step
        assert clock.unwrap(total % 2**32) == total


def test_the_cameras_time_comes_from_its_last_report_across_a_wrap() -> None:
    clock = MediaClock(90_000)
    first = clock.unwrap(2**32 - 90_000)
    assert clock.camera_s(first) is None
    clock.report(1000.0, 90_000)
    assert clock.camera_s(first) == 998.0
    assert clock.camera_s(clock.unwrap(180_000)) == 1001.0


def test_a_report_before_any_frame() -> None:
    clock = MediaClock(90_000)
    clock.report(1000.0, 2**32 - 45_000)
    assert clock.camera_s(clock.unwrap(45_000)) == 1001.0


def test_receiver_reports_can_be_read() -> None:
    data = receiver_report(9, Reception(7, 3, 65_540, 5, 6))
    assert struct.unpack(">BBHI", data[:8]) == (0x81, 201, 7, 9)
    assert struct.unpack(">6I", data[8:32]) == (7, 3, 65_540, 0, 5, 6)
    assert data[32:36] == bytes((0x81, 202, 0, 4))
    assert len(data) == 32 + 20
    assert len(receiver_report(9, None)) % 4 == 0


def _packet(sequence: int) -> RtpPacket:
    return RtpPacket(96, False, sequence & 0xFFFF, 0, 7, b"")


@given(st.integers(0, 65535), st.randoms(use_true_random=False))
def test_datagrams_that_overtake_each_other_come_out_in_order(start: int, random) -> None:  # type: ignore[no-untyped-def]
    reorder = Reorder()
    out = list(reorder.push(_packet(start)))
    rest = list(range(start + 1, start + 61))
    for at in range(0, len(rest), 10):
        block = rest[at : at + 10]
        random.shuffle(block)
        for place in block:
            out += reorder.push(_packet(place))
    assert [packet.sequence for packet in out] == [place & 0xFFFF for place in range(start, start + 61)]


def test_a_gap_is_given_up_after_some_packets_or_some_time() -> None:
    reorder = Reorder()
    reorder.push(_packet(0))
    out = [packet for place in range(2, 2 + Reorder.LIMIT + 1) for packet in reorder.push(_packet(place))]
    assert [packet.sequence for packet in out] == list(range(2, 2 + Reorder.LIMIT + 1))
    assert not reorder.push(_packet(100))
    assert [packet.sequence for packet in reorder.expire()] == [100]
    assert not reorder.expire()
