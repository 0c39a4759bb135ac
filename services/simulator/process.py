"""A simulator in a process of its own."""

import contextlib
import http.client
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import msgspec

from moodline.services.simulator.http import CameraState, FaultRequest
from moodline.services.simulator.options import Codec, Options, Picture, Ports, parse_size
from moodline.shared.errors import SettingsError

START_S: Final = 120.0
_STOP_S: Final = 10.0
_CONTROL_S: Final = 60.0


class CameraSimulator:
    """Cameras in a process of their own, which ends with this one. A context manager; not thread-safe.

    Attributes:
        port: Of RTSP; the same after `stop` or `kill` and `start`.
        http_port: Of MJPEG over HTTP, or None.
        control_url: Where faults are asked for over HTTP.
        paths: All cameras: `clip`, those named after the clips, and `cam0`, `cam1`, …
    """

    def __init__(  # noqa: PLR0913  # what a camera may be: keywords, all with a usual value
        self,
        clip: Path | Sequence[Path] | None = None,
        *,
        paths: int = 1,
        size: str | None = "640x360",
        fps: float | str = 25,
        gop_s: float = 1.0,
        codec: str = "h264",
        seconds: float = 8.0,
        copy: bool = False,
        user: str | None = None,
        password: str | None = None,
        auth: str = "any",
        port: int = 0,
        http: bool = False,
        faults: Mapping[str, str] | None = None,
        quirks: Sequence[str] = (),
        session_timeout_s: float = 60.0,
    ) -> None:
        """Describe the cameras; nothing is started yet.

        Args:
            clip: What they show; None for the built-in scene with a face, which needs scikit-image.
            paths: How many `cam0`, `cam1`, … there are.
            size: Width and height in px, or None for the clip's own.
            fps: Frames per second.
            gop_s: Seconds from one keyframe to the next.
            codec: `h264`, `h265` or `mjpeg`.
            seconds: So much of the clip's beginning is encoded, once, at the start.
            copy: Serve the file's own H.264 or H.265 instead of encoding.
            user: Asked for, where given.
            password: Of that user.
            auth: `digest`, `basic` or `any`.
            port: 0 takes a free one.
            http: Serve MJPEG over HTTP as well.
            faults: From the start on, by path.
            quirks: As `cam0=markers`; for good.
            session_timeout_s: A client that says nothing for so long is left.
        """
        clips = [] if clip is None else [clip] if isinstance(clip, Path) else list(clip)
        kind = Codec(codec)
        shape = parse_size(size, kind) if size else None
        picture = Picture(size=shape, fps=str(fps), gop_s=gop_s, codec=kind, seconds=seconds, copy=copy)
        self._options = Options(
            clips=tuple(str(one.resolve()) for one in clips),
            port=port,
            http_port=0 if http else None,
            user=user,
            password=password,
            auth=auth,
            paths=paths,
            picture=picture,
            faults=dict(faults or {}),
            quirks=tuple(quirks),
            session_timeout_s=session_timeout_s,
        )
        self.port = port
        self.http_port: int | None = None
        self.control_url = ""
        self.paths: tuple[str, ...] = ()
        self._control_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def pid(self) -> int | None:
        """Process id of the server, while it runs."""
        return self._process.pid if self._process else None

    def url(self, path: str = "clip", user: str | None = None, password: str | None = None) -> str:
        """Return a camera's RTSP URL, with these credentials, if given."""
        return self._url("rtsp", self.port, path, user, password)

    def http_url(self, path: str = "clip", user: str | None = None, password: str | None = None) -> str:
        """Return a camera's URL of MJPEG over HTTP; needs `http=True`."""
        if self.http_port is None:
            raise SettingsError("this simulator serves nothing over HTTP")
        return self._url("http", self.http_port, f"{path}.mjpeg", user, password)

    def _url(self, scheme: str, port: int, path: str, user: str | None, password: str | None) -> str:
        login = "" if user is None else f"{quote(user, safe='')}:{quote(password or '', safe='')}@"
        return f"{scheme}://{login}{self._options.host}:{port}/{quote(path)}"

    def start(self) -> None:
        """Start the server and wait until it serves: blocks for the seconds that encoding takes.

        Raises:
            SettingsError: it cannot start; says why.
        """
        if self._process is not None:
            return
        options = msgspec.structs.replace(self._options, port=self.port)
        command = [sys.executable, "-m", "moodline.services.simulator"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(msgspec.json.encode(options) + b"\n")
            self._process.stdin.flush()
        readable, _, _ = select.select([self._process.stdout], [], [], START_S)
        line = self._process.stdout.readline() if readable else b""
        try:
            ports = msgspec.json.decode(line, type=Ports)
        except msgspec.MsgspecError:
            self.kill()
            raise SettingsError(_reason(line)) from None
        self.port, self.http_port, self.paths, self._control_port = ports.rtsp, ports.http, ports.paths, ports.control
        self.control_url = f"http://127.0.0.1:{ports.control}/faults"

    def stop(self) -> None:
        """Stop the server, closing all connections. Safe to call twice."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            try:
                self._process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._reap()

    def kill(self) -> None:
        """Kill the server (SIGKILL). `start` brings it back on the same port."""
        if self._process is not None:
            self._process.kill()
            self._reap()

    def _reap(self) -> None:
        assert self._process is not None
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._process = None

    def set_fault(self, path: str, fault: str, seconds: float | None = None) -> None:
        """Give a camera a fault, for `seconds` or until another; returns once it is in force. Raises `SettingsError`."""
        body = msgspec.json.encode(FaultRequest(fault, seconds))
        self._control("POST", f"/faults/{quote(path)}", body)

    def clients(self, path: str) -> int:
        """Return how many clients a camera is playing to."""
        states = msgspec.json.decode(self._control("GET", "/faults", b""), type=dict[str, CameraState])
        return states[path].clients

    def _control(self, method: str, target: str, body: bytes) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._control_port, timeout=_CONTROL_S)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            raise SettingsError("the simulator does not answer") from None
        finally:
            connection.close()
        if response.status != http.client.OK:
            raise SettingsError(_reason(answer))
        return answer


def _reason(answer: bytes) -> str:
    try:
        return msgspec.json.decode(answer, type=dict[str, str])["error"]
    except (msgspec.MsgspecError, KeyError):
        return "the simulator did not start"
