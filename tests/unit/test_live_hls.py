"""HLS: which variant, which segment, at which pace, and what is refused."""

from fractions import Fraction
from itertools import pairwise

import pytest
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.camera.http.hls import MediaTime, Pace, Timetable
from moodline.services.ingest.camera.http.hls_playlist import MediaPlaylist, parse_playlist, renumbered
from moodline.services.ingest.camera.http.hls_segment import SegmentDecoder, decrypted
from moodline.services.ingest.camera.input.frames import LiveCounts
from moodline.shared.errors import SourceError


def media(first: int, count: int, extra: str = "", ended: bool = False) -> MediaPlaylist:
    lines = ["#EXTM3U", "#EXT-X-TARGETDURATION:2", f"#EXT-X-MEDIA-SEQUENCE:{first}", *filter(None, [extra])]
    for number in range(first, first + count):
        lines += ["#EXTINF:2.0,", f"s{number}.ts"]
    parsed = parse_playlist("\n".join(lines + ["#EXT-X-ENDLIST"] * ended).encode())
    assert isinstance(parsed, MediaPlaylist)
    return parsed


def chosen(timetable: Timetable, playlist: MediaPlaylist) -> int | None:
    segment = timetable.choose(playlist)
    if segment is None:
        return None
    timetable.done(segment)
    return segment.sequence


def test_it_begins_at_the_last_but_one_and_leaves_none_out() -> None:
    timetable = Timetable()
    assert [chosen(timetable, media(5, 4)) for _ in range(3)] == [7, 8, None]
    assert chosen(timetable, media(6, 4)) == 9


def test_who_is_far_behind_goes_on_with_the_newest() -> None:
    timetable = Timetable()
    chosen(timetable, media(0, 2))
    segment = timetable.choose(media(0, 6))
    assert segment is not None
    assert (segment.sequence, timetable.jumped) == (5, True)


def test_numbers_that_begin_anew_are_followed() -> None:
    timetable = Timetable()
    chosen(timetable, media(900, 3))
    assert chosen(timetable, media(0, 3)) == 1


@pytest.mark.parametrize(("heights", "expected"), [([1080, 360, 180, 720], 360), ([180, 240], 240), ([720, 1080], 720)])
def test_the_smallest_variant_that_is_enough_is_read(heights: list[int], expected: int) -> None:
    lines = ["#EXTM3U"]
    for height in heights:
        lines += [f"#EXT-X-STREAM-INF:BANDWIDTH={height}000,RESOLUTION={height * 16 // 9}x{height}", f"{height}.m3u8"]
    assert parse_playlist("\n".join(lines).encode()) == f"{expected}.m3u8"


def test_encryption_that_needs_a_licence_is_refused() -> None:
    with pytest.raises(SourceError) as caught:
        media(0, 2, '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="k"')
    assert caught.value.reason == "codec"


def test_keys_and_parts_of_files_are_read() -> None:
    playlist = media(0, 2, '#EXT-X-KEY:METHOD=AES-128,URI="k"\n#EXT-X-MAP:URI="i.mp4",BYTERANGE="9@5"')
    keys = [segment.key for segment in playlist.segments]
    assert [(key.uri, key.vector[-1]) for key in keys if key is not None] == [("k", 0), ("k", 1)]
    assert playlist.segments[0].header_part == (5, 9)


def test_a_segment_is_decrypted() -> None:
    key, vector, plain = bytes(range(16)), bytes(16), b"G" + bytes(187)
    padder = padding.PKCS7(128).padder()
    sealer = Cipher(algorithms.AES(key), modes.CBC(vector)).encryptor()
    data = sealer.update(padder.update(plain) + padder.finalize()) + sealer.finalize()
    assert decrypted(data, key, vector) == plain
    with pytest.raises(SourceError):
        decrypted(data[:-1], key, vector)


def test_segments_without_numbers_are_numbered_on() -> None:
    def of(names: str) -> MediaPlaylist:
        parsed = parse_playlist(("#EXTM3U\n#EXT-X-TARGETDURATION:2\n" + "".join(f"#EXTINF:2,\n{n}.ts\n" for n in names)).encode())
        assert not isinstance(parsed, str)
        return parsed

    first = of("abc")
    second = renumbered(of("bcd"), first)
    assert [segment.sequence for segment in second.segments] == [1, 2, 3]
    assert [segment.sequence for segment in renumbered(of("xyz"), second).segments] == [4, 5, 6]


def test_dates_that_are_none_do_not_hurt() -> None:
    segments = media(0, 2, "#EXT-X-PROGRAM-DATE-TIME:yesterday").segments
    assert [segment.camera_s for segment in segments] == [None, None]


def test_the_time_of_day_is_read() -> None:
    segments = media(0, 2, "#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00.500Z").segments
    assert [segment.camera_s for segment in segments] == [1767225600.5, 1767225602.5]


@given(
    st.lists(
        st.sampled_from(
            [
                "#EXTINF:2,",
                "#EXTINF:x",
                "a.ts",
                "#EXT-X-KEY:METHOD=NONE",
                "#EXT-X-MAP:URI=",
                "#EXT-X-BYTERANGE:x",
                "#EXT-X-STREAM-INF:BANDWIDTH=x",
                "#EXT-X-PROGRAM-DATE-TIME:x",
                "#EXT-X-TARGETDURATION:-",
                "#EXT-X-MEDIA-SEQUENCE:z",
                "#EXT-X-PART:DURATION=1",
                "#EXT-X-ENDLIST",
                "\x00",
            ]
        ),
        max_size=8,
    )
)
def test_whatever_a_playlist_says_there_is_a_typed_answer(lines: list[str]) -> None:
    try:
        parse_playlist("\n".join(["#EXTM3U", *lines]).encode())
    except SourceError as error:
        assert error.reason in ("corrupt", "codec", "no_video")  # noqa: PT017  # either outcome is right


class Watch:
    """A clock that moves by sleeping alone."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_frames_come_no_faster_than_they_were_taken() -> None:
    watch = Watch()
    pace = Pace(lambda: watch.now_s, watch.sleep)
    for number in range(50):
        pace.wait(Fraction(number, 25))
    assert watch.now_s == pytest.approx(49 / 25)


def test_after_a_delay_at_most_a_fifth_of_a_second_comes_at_once() -> None:
    watch = Watch()
    pace = Pace(lambda: watch.now_s, watch.sleep)
    pace.wait(Fraction(0))
    watch.now_s = 5.0
    for number in range(1, 51):
        pace.wait(Fraction(number, 25))
    assert watch.now_s == pytest.approx(5.0 + 49 / 25 - 0.2)


@given(st.lists(st.fractions(-1000, 100_000), min_size=2, max_size=20))
def test_media_time_only_rises_and_by_at_most_a_minute(times: list[Fraction]) -> None:
    line = MediaTime()
    placed = [line.place(at_s) for at_s in times]
    assert all(0 < after - before <= 60 for before, after in pairwise(placed))


@given(st.binary(max_size=600))
def test_garbage_is_damage(data: bytes) -> None:
    counts = LiveCounts()
    assert list(SegmentDecoder(10_000, counts).decode(data)) == []
    assert counts.damaged == 1
