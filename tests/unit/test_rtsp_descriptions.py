from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.camera.rtsp.locations import clean_url, control_url, redirected
from moodline.services.ingest.camera.rtsp.sdp import parse_sdp
from moodline.shared.camera import CameraAddress
from moodline.shared.errors import SourceError

START = b"\0\0\0\1"
HEAD = "v=0\r\no=- 0 0 IN IP4 1.2.3.4\r\ns=x\r\na=control:*\r\n"
AUDIO = "m=audio 0 RTP/AVP 0\r\na=control:a\r\n"


def _sdp(*media: str) -> bytes:
    return (HEAD + "".join(media)).encode()


def test_the_first_video_that_can_be_read_is_taken() -> None:
    h264 = (
        "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=framerate:29.97\r\na=control:track2\r\n"
        "a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z0IAHg==,aM48gA==\r\n"
    )
    track = parse_sdp(_sdp(AUDIO, "m=video 0 RTP/AVP 97\r\na=rtpmap:97 VP8/90000\r\n", h264)).track
    assert (track.codec, track.payload_type, track.clock_rate, track.control) == ("h264", 96, 90_000, "track2")
    assert track.extradata == START + bytes.fromhex("6742001e") + START + bytes.fromhex("68ce3c80")
    assert track.fps == Fraction("29.97")


@pytest.mark.parametrize(
    ("media", "codec", "extradata"),
    [
        ("m=video 0 RTP/AVP 26\n", "mjpeg", b""),
        (
            "m=video 0 RTP/AVP 98\na=rtpmap:98 h265/90000\na=fmtp:98 sprop-sps=Ag==; sprop-vps=AQ==; sprop-pps=Aw\n",
            "hevc",
            START + b"\1" + START + b"\2" + START + b"\3",
        ),
        ("m=video 0 RTP/AVP 96\na=rtpmap:96 MP4V-ES/90000\na=fmtp:96 config=000001B0\n", "mpeg4", bytes.fromhex("000001b0")),
        ("m=video 0 RTP/AVP 96\na=rtpmap:96 H264/90000\na=fmtp:96 sprop-parameter-sets=%%%,x\n", "h264", b""),
    ],
)
def test_codecs(media: str, codec: str, extradata: bytes) -> None:
    track = parse_sdp(_sdp(media)).track
    assert (track.codec, track.extradata) == (codec, extradata)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "corrupt"),
        (b"<html>", "corrupt"),
        (b"v=0\n" + b"a=x\n" * 40_000, "corrupt"),
        (_sdp(AUDIO), "no_video"),
        (_sdp("m=video 0 RTP/AVP 96\na=rtpmap:96 theora/90000\n"), "codec"),
        (_sdp("m=video 0 RTP/AVP 96\na=rtpmap:96 H265/90000\na=fmtp:96 sprop-max-don-diff=2\n"), "codec"),
        (_sdp("m=video 0 RTP/SAVP 26\n"), "codec"),
    ],
)
def test_what_cannot_be_read_has_its_reason(body: bytes, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse_sdp(body)
    assert caught.value.reason == reason


@given(
    st.lists(
        st.sampled_from(["m=video ", "a=rtpmap:", "96 H264/", "a=fmtp:96 ", "=", ";", "RTP/AVP 96", "\n", "-1", "9" * 12, "é²"])
    )
)
def test_no_description_raises_anything_but_its_errors(parts: list[str]) -> None:
    try:
        parse_sdp(("v=0\n" + "".join(parts)).encode())
    except SourceError as error:
        assert error.reason in {"corrupt", "no_video", "codec"}  # noqa: PT017


@pytest.mark.parametrize(
    ("base", "control", "url"),
    [
        ("rtsp://h/live", "track1", "rtsp://h/live/track1"),
        ("rtsp://h/live/", "track1", "rtsp://h/live/track1"),
        ("rtsp://h/live", "*", "rtsp://h/live"),
        ("rtsp://h/live", "", "rtsp://h/live"),
        ("rtsp://h/live", "rtsp://u:p@other/track1?x=1", "rtsp://other/track1?x=1"),
        ("rtsp://h/live?a=b", "trackID=0", "rtsp://h/live?a=b/trackID=0"),
        ("rtsp://h/live", "http://evil/x", "rtsp://h/live"),
        ("rtsp://h/live", "tr ack\r\nX: y", "rtsp://h/live"),
    ],
)
def test_control_urls(base: str, control: str, url: str) -> None:
    assert control_url(base, control) == url


def test_urls_of_a_camera_lose_user_and_password() -> None:
    assert clean_url("RTSP://user:p@ss@h:1/p@q") == "rtsp://h:1/p@q"
    assert clean_url("rtsp://u:p@/x") is None
    assert clean_url("/relative") is None


ADDRESS = CameraAddress("rtsps", "cam", 322, "/a", "user", "canary")
ALLOWED = frozenset({"rtsp", "rtsps"})


def test_a_log_in_goes_along_to_the_same_host_alone_and_never_from_tls_to_plain() -> None:
    same = redirected(ADDRESS, "rtsps://cam:555/b?x=1", ALLOWED)
    assert (same.port, same.target, same.password) == (555, "/b?x=1", "canary")
    for location in ("rtsps://other/b", "rtsp://cam/b", "rtsps://cam@other/b"):
        moved = redirected(ADDRESS, location, ALLOWED)
        assert (moved.username, moved.password) == (None, None)
    assert redirected(ADDRESS, "/b", ALLOWED).plain_url == "rtsps://cam:322/b"


@pytest.mark.parametrize(
    ("location", "reason"),
    [
        (None, "corrupt"),
        ("", "corrupt"),
        ("rtsp://[x/", "corrupt"),
        ("rtsp://h:99999/", "corrupt"),
        ("rtsp://h/a b", "corrupt"),
        ("http://h/", "forbidden_url"),
        ("file:///etc/passwd", "forbidden_url"),
    ],
)
def test_redirects_that_are_not_followed(location: str | None, reason: str) -> None:
    with pytest.raises(SourceError) as caught:
        redirected(ADDRESS, location, ALLOWED)
    assert caught.value.reason == reason


def test_a_redirect_to_a_scheme_that_is_not_allowed() -> None:
    with pytest.raises(SourceError) as caught:
        redirected(ADDRESS, "rtsp://cam/", frozenset({"rtsps"}))
    assert caught.value.reason == "forbidden_url"


@pytest.mark.parametrize(
    ("control", "url"),
    [
        ("?trackID=1", "rtsp://cam/live?trackID=1"),
        ("track 1", "rtsp://cam/live/track%201"),
        (" rtsp://cam/abs ", "rtsp://cam/abs"),
    ],
)
def test_control_urls_as_cameras_write_them(control: str, url: str) -> None:
    assert control_url("rtsp://cam/live", control) == url


def test_tabs_zeros_and_lf_do_not_hurt() -> None:
    body = b"v=0\nm=video 0 RTP/AVP 96\na=rtpmap:96\tH264/90000\na=fmtp:96\tpacketization-mode=1\na=control:x\n\0\0\0"
    track = parse_sdp(body).track
    assert (track.codec, track.control) == ("h264", "x")


def test_secure_profiles_are_plain_within_tls_alone() -> None:
    body = _sdp("m=video 0 RTP/SAVP 96\na=rtpmap:96 H264/90000\n")
    assert parse_sdp(body, over_tls=True).track.is_secure
    with pytest.raises(SourceError, match="SRTP"):
        parse_sdp(body)


@pytest.mark.parametrize(
    ("format", "said"),
    [("31", "H.261"), ("96\na=rtpmap:96 theora/90000", "Theora"), ("97\na=rtpmap:97 MP2P/90000", "MPEG program stream")],
)
def test_codecs_that_are_not_supported_are_named(format: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        parse_sdp(_sdp(f"m=video 0 RTP/AVP {format}\n"))


@pytest.mark.parametrize(("name", "codec"), [("VP8", "vp8"), ("VP9", "vp9"), ("AV1", "libdav1d"), ("MPV", "mpeg2video")])
def test_rarer_codecs_are_read(name: str, codec: str) -> None:
    assert parse_sdp(_sdp(f"m=video 0 RTP/AVP 96\na=rtpmap:96 {name}/90000\n")).track.codec == codec
