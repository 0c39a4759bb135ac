import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.camera.rtsp.wire import (
    BODY_LIMIT_BYTES,
    HEADER_LIMIT_BYTES,
    Interleaved,
    Response,
    Wire,
    format_request,
)
from moodline.shared.errors import SourceError


def _items(*chunks: bytes) -> list[Interleaved | Response]:
    wire = Wire()
    found = []
    for chunk in chunks:
        wire.feed(chunk)
        while (item := wire.next_item()) is not None:
            found.append(item)
    return found


STREAM = (
    b"$\0\0\3abc"
    b"RTSP/1.0 200 OK\r\nCSeq: 7\r\nWWW-Authenticate: Basic\r\nWWW-authenticate: Digest\r\nContent-Length: 4\r\n\r\nbody\r\n"
    b"OPTIONS rtsp://x RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    b"$\1\0\0"
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=6))
def test_items_do_not_depend_on_how_the_bytes_come(cuts: list[int]) -> None:
    places = [0, *sorted(cuts), len(STREAM)]
    items = _items(*(STREAM[a:b] for a, b in itertools.pairwise(places)))
    assert items[0] == Interleaved(0, b"abc")
    assert isinstance(items[1], Response)
    assert (items[1].status, items[1].body, items[1].header("cseq")) == (200, b"body", "7")
    assert items[1].headers["www-authenticate"] == ["Basic", "Digest"]
    assert items[2:] == [Interleaved(1, b"")]


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_corrupt(data: bytes) -> None:
    for start in (b"", b"RTSP/1.0 ", b"RTSP/1.0 200 OK\r\nContent-Length: "):
        try:
            _items(start + data + b"\r\n\r\n")
        except SourceError as error:
            assert error.reason == "corrupt"  # noqa: PT017


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"RTSP/1.0 20 OK\r\n\r\n",
        b"A" * HEADER_LIMIT_BYTES,
        b"RTSP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % (BODY_LIMIT_BYTES + 1),
    ],
)
def test_nonsense_and_too_much_are_corrupt(data: bytes) -> None:
    with pytest.raises(SourceError) as caught:
        _items(data)
    assert caught.value.reason == "corrupt"


def test_a_request_cannot_be_split_by_a_line_break() -> None:
    assert format_request("PLAY", "rtsp://h/p", {"CSeq": "1"}) == b"PLAY rtsp://h/p RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    with pytest.raises(AssertionError):
        format_request("PLAY", "rtsp://h/p\r\nX: y", {})
