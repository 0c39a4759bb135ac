"""GStreamer's RTSP server as a local process that tests may kill and start again: cameras by another implementation."""

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NoReturn

import pytest

from tests.support.servers import HOST, ServerProcess, free_port

_SCRIPT = Path(__file__).with_name("gst_rtsp_server.py")
_PYTHON = "/usr/bin/python3"

_CODECS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=500 key-int-max={gop} ! "
    "rtph264pay name=pay0 pt=96 config-interval=1",
    "h265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate=500 key-int-max={gop} ! "
    "rtph265pay name=pay0 pt=96 config-interval=1",
    "jpeg": "jpegenc quality=80 ! rtpjpegpay name=pay0 pt=26",
}


def pattern_camera(codec: str = "h264", width: int = 320, height: int = 240, fps: int = 25, pattern: str = "ball") -> str:
    """Return the pipeline of a live test picture with a keyframe each second; codec is h264, h265 or jpeg."""
    size = f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"
    return f"( videotestsrc is-live=true pattern={pattern} ! {size} ! {_CODECS[codec].format(gop=fps)} )"


def clip_camera(path: Path, codec: str = "h264", width: int = 640, height: int = 360, fps: int = 25) -> str:
    """Return the pipeline of a clip, played once in real time and coded again with a keyframe each second."""
    size = f"video/x-raw,format=I420,width={width},height={height},framerate={fps}/1"
    decode = f'filesrc location="{path}" ! decodebin ! videoconvert ! videoscale ! videorate ! {size}'
    return f"( {decode} ! {_CODECS[codec].format(gop=fps)} )"


class GstRtspServer(ServerProcess):
    """One server on a port that stays its own; a context manager.

    Args:
        mounts: Path -> pipeline, as of `pattern_camera` and `clip_camera`.
        login: User and password to ask for, or None.
        digest: Ask by Digest instead of Basic.
        certificate: PEM of certificate and key: then it speaks TLS.
    """

    def __init__(
        self,
        mounts: Mapping[str, str],
        *,
        login: tuple[str, str] | None = None,
        digest: bool = False,
        certificate: Path | None = None,
    ) -> None:
        super().__init__("gst-rtsp", None)
        self.port = free_port()
        user, password = login or ("", "")
        self._options = {
            "port": self.port,
            "mounts": dict(mounts),
            "user": user,
            "password": password,
            "digest": digest,
            "certificate": str(certificate) if certificate else "",
        }

    def _command(self) -> tuple[str, ...]:
        return (_PYTHON, str(_SCRIPT), json.dumps(self._options))

    def _answers(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), 0.5).close()
        except OSError:
            return False
        return True


@contextmanager
def gst_rtsp_server(
    mounts: Mapping[str, str],
    *,
    login: tuple[str, str] | None = None,
    digest: bool = False,
    certificate: Path | None = None,
) -> Iterator[GstRtspServer]:
    """Run a server; skip the test where GStreamer is missing, fail it in CI."""
    missing = _missing()
    if missing:
        _unavailable(missing)
    with GstRtspServer(mounts, login=login, digest=digest, certificate=certificate) as server:
        yield server


@lru_cache(maxsize=1)
def _missing() -> str:
    if not shutil.which(_PYTHON):
        return f"no {_PYTHON}"
    probe = (
        "import gi, sys; gi.require_version('Gst', '1.0'); gi.require_version('GstRtspServer', '1.0');"
        "from gi.repository import Gst, GstRtspServer; Gst.init(None);"
        "sys.exit(0 if all(map(Gst.ElementFactory.find, ('x264enc', 'x265enc', 'jpegenc', 'rtph264pay'))) else 1)"
    )
    found = subprocess.run((_PYTHON, "-c", probe), capture_output=True, timeout=60, check=False)
    return "" if found.returncode == 0 else "no GStreamer with its RTSP server: run deploy/local/system-packages.sh"


def _unavailable(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"CI must have every server: {reason}")
    pytest.skip(reason)
