"""Files that try to make the decoder open something else: another file, or an address. None of them gets anywhere."""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import pytest

from moodline.services.ingest.file.open import open_source
from moodline.shared.errors import SourceError
from moodline.shared.settings import IngestSettings
from tests.support.make_media import make_video, picture


class Subscriber:
    """A local port that notices every attempt to connect."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.port: int = self._socket.getsockname()[1]

    def was_called(self) -> bool:
        try:
            self._socket.accept()[0].close()
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def listener() -> Iterator[Subscriber]:
    listener = Subscriber()
    yield listener
    listener.close()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A good video outside of the media root."""
    (tmp_path / "private").mkdir()
    return make_video(tmp_path / "private" / "secret.mp4", range(5), container_options={"movflags": "faststart"})


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "media").mkdir()
    return tmp_path / "media"


TRAPS = {
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:10\n#EXTINF:1.0,\n{target}\n#EXT-X-ENDLIST\n",
    "hls-master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000,RESOLUTION=96x64\n{target}\n",
    "hls-key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:1.0,\nnone.ts\n#EXT-X-ENDLIST\n',
    "concat": "ffconcat version 1.0\nfile '{target}'\n",
    "dash": (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT1S"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1" width="96" height="64">'
        "<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>"
    ),
    "sdp": (
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\na=control:{target}\n"
        "m=video {port} RTP/AVP/TCP 96\na=rtpmap:96 H264/90000\n"
    ),
    "rtsp-text": "RTSPtext\nrtsp://127.0.0.1:{port}/x\n",
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "ffmetadata": ";FFMETADATA1\ntitle={target}\n",
    "svg": '<svg xmlns="http://www.w3.org/2000/svg" width="96" height="64"><image href="{target}" width="9" height="9"/></svg>',
}


@pytest.mark.parametrize("kind", TRAPS)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8", ".ffconcat", ".sdp", ".mpd", ".png", ""])
@pytest.mark.parametrize("where", ["network", "file"])
def test_no_script_gets_to_open_anything(
    root: Path, secret: Path, listener: Subscriber, kind: str, suffix: str, where: str
) -> None:
    target = f"http://127.0.0.1:{listener.port}/a.ts" if where == "network" else secret.as_uri()
    path = root / f"trap{suffix}"
    path.write_text(TRAPS[kind].format(target=target, port=listener.port))
    with pytest.raises(SourceError) as caught:
        open_source(path.as_uri(), IngestSettings(media_root=root))
    assert caught.value.reason in ("codec", "corrupt")
    assert "secret" not in str(caught.value)
    assert not listener.was_called()


@pytest.mark.parametrize("kind", ["hls", "concat"])
def test_the_traps_are_real(tmp_path: Path, secret: Path, listener: Subscriber, kind: str) -> None:
    """Without the precautions the same files do open others, so the tests above can fail."""
    trap = tmp_path / "trap.m3u8"
    if kind == "hls":
        trap.write_text(TRAPS[kind].format(target=f"http://127.0.0.1:{listener.port}/a.ts", port=0))
        with pytest.raises(av.FFmpegError):
            av.open(str(trap), options={"protocol_whitelist": "file,http,tcp"}, timeout=2.0)
        assert listener.was_called()
    else:
        trap.write_text(TRAPS[kind].format(target=secret, port=0))
        with av.open(str(trap), format="concat", options={"safe": "0"}) as container:
            assert len(list(container.decode(video=0))) == 5


def test_a_sequence_of_pictures_is_not_followed(root: Path) -> None:
    cv2.imwrite(str(root / "p1.png"), picture(1))
    (root / "p%d.png").write_bytes(b"no picture")
    (root / "p*.png").write_bytes(b"no picture")
    for name in ("p%d.png", "p*.png"):
        with pytest.raises(SourceError):
            open_source((root / name).as_uri(), IngestSettings(media_root=root))


@pytest.mark.parametrize("where", ["network", "file"])
def test_media_that_a_movie_keeps_elsewhere_are_not_fetched(root: Path, secret: Path, listener: Subscriber, where: str) -> None:
    """A QuickTime track may name another file as the place of its samples (a data reference)."""
    target = f"http://127.0.0.1:{listener.port}/a" if where == "network" else str(secret)
    data = bytearray(make_video(root / "a.mov", range(5), container_options={"movflags": "faststart"}).read_bytes())
    at = data.index(b"dref")
    entry = struct.unpack_from(">I", data, at + 12)[0]
    place = at + 12 + 4
    assert bytes(data[place : place + 4]) in (b"url ", b"alis")
    reference = b"url " + bytes(4) + target.encode() + b"\0"
    grown = len(reference) + 4 - entry
    data[at + 12 : at + 12 + entry] = struct.pack(">I", len(reference) + 4) + reference
    for box in (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"):
        size_at = data.index(box) - 4
        struct.pack_into(">I", data, size_at, struct.unpack_from(">I", data, size_at)[0] + grown)
    (root / "a.mov").write_bytes(data)
    try:
        source = open_source((root / "a.mov").as_uri(), IngestSettings(media_root=root))
        assert all(frame.to_bgr().shape == (64, 96, 3) for frame in source.frames())
    except SourceError as error:
        assert error.reason in ("corrupt", "empty", "no_video")  # noqa: PT017  # both answers are right
    assert not listener.was_called()
