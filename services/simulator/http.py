"""Two small HTTP servers of the simulator: faults on demand, and clips as MJPEG (multipart/x-mixed-replace)."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

import msgspec

from moodline.services.simulator.auth import Authenticator
from moodline.services.simulator.faults import Fault, Kind, parse_fault
from moodline.services.simulator.options import JPEG_SIDE_MAX_PX, Codec, Options, Picture
from moodline.services.simulator.quirks import Quirk
from moodline.shared.errors import MoodlineError, SettingsError

if TYPE_CHECKING:
    from moodline.services.simulator.camera import Camera
    from moodline.services.simulator.film import Track

_BODY_LIMIT_BYTES: Final = 64 * 1024
_REQUEST_S: Final = 10.0
_SECONDS_MAX: Final = 86_400.0
_BOUNDARY: Final = "moodline-frame"


class FaultRequest(msgspec.Struct, frozen=True):
    """Body of `POST /faults/{path}`: a fault, and for how many seconds (else until another one is asked for)."""

    fault: str
    seconds: float | None = None


class CameraState(msgspec.Struct, frozen=True):
    """One camera in the answer of `GET /faults`. `left_s` is None for a fault without an end."""

    fault: str
    left_s: float | None
    clients: int


class Controlled(Protocol):
    """The objects that the control server works on."""

    @property
    def cameras(self) -> Mapping[str, "Camera"]: ...

    async def set_fault(self, path: str, fault: Fault, seconds: float | None = None) -> None: ...


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


_Handler = Callable[[_Request, asyncio.StreamWriter], Awaitable[None]]


async def serve_control(server: Controlled, port: int) -> asyncio.Server:
    """Listen on the loopback address alone: whoever reaches this port decides what cameras do. Raises `OSError`."""

    async def handle(request: _Request, writer: asyncio.StreamWriter) -> None:
        if request.method == "GET" and request.path == "/faults":
            _answer(writer, HTTPStatus.OK, msgspec.json.encode({name: _state(camera) for name, camera in server.cameras.items()}))
        elif request.method == "POST" and request.path.startswith("/faults/"):
            await _set_fault(server, request, writer)
        else:
            _refuse(writer, HTTPStatus.NOT_FOUND, "there are GET /faults and POST /faults/{path}")

    return await asyncio.start_server(_with_request(handle), "127.0.0.1", port)


async def _set_fault(server: Controlled, request: _Request, writer: asyncio.StreamWriter) -> None:
    name = request.path.removeprefix("/faults/").strip("/")
    if name not in server.cameras:
        _refuse(writer, HTTPStatus.NOT_FOUND, "there is no camera at this path")
        return
    try:
        fault_request = msgspec.json.decode(request.body, type=FaultRequest)
        if fault_request.seconds is not None and not 0 < fault_request.seconds <= _SECONDS_MAX:
            raise SettingsError(f"seconds is a number above 0 and up to {_SECONDS_MAX:g}")
        await server.set_fault(name, parse_fault(fault_request.fault), fault_request.seconds)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        _refuse(writer, HTTPStatus.BAD_REQUEST, 'the body is JSON such as {"fault": "silent", "seconds": 5}')
    except MoodlineError as error:
        _refuse(writer, HTTPStatus.BAD_REQUEST, str(error))
    else:
        _answer(writer, HTTPStatus.OK, msgspec.json.encode(_state(server.cameras[name])))


def _state(camera: "Camera") -> CameraState:
    ends_s = camera.fault_ends_s
    left_s = None if ends_s is None else max(0.0, ends_s - asyncio.get_running_loop().time())
    return CameraState(str(camera.fault), left_s, len(camera.players))


async def serve_mjpeg(cameras: Mapping[str, "Camera"], authenticator: Authenticator, options: Options) -> asyncio.Server:
    """Serve every camera at `/{path}.mjpeg`. Of the faults, those that end, deny or silence a camera work here too."""

    async def handle(request: _Request, writer: asyncio.StreamWriter) -> None:
        camera = cameras.get(request.path.strip("/").removesuffix(".mjpeg"))
        if not authenticator.admits(request.method, request.headers.get("authorization")):
            challenges = "\r\nWWW-Authenticate: ".join(authenticator.challenges())
            _answer(writer, HTTPStatus.UNAUTHORIZED, b"", f"WWW-Authenticate: {challenges}\r\n")
        elif camera is None or camera.fault.kind is Kind.MISSING:
            _refuse(writer, HTTPStatus.NOT_FOUND, "there is no camera at this path")
        elif camera.fault.kind is Kind.UNAUTHORIZED:
            _answer(writer, HTTPStatus.UNAUTHORIZED, b"", f"WWW-Authenticate: {authenticator.challenges()[0]}\r\n")
        elif request.method == "GET":
            picture = _jpeg_picture(camera.track, options.picture)
            await _play(camera, await asyncio.to_thread(camera.film.track, picture), writer)
        else:
            _refuse(writer, HTTPStatus.METHOD_NOT_ALLOWED, "only GET is answered here")

    return await asyncio.start_server(_with_request(handle), options.host, options.http_port or 0)


def _jpeg_picture(track: "Track", usual: Picture) -> Picture:
    size = tuple(min(side, JPEG_SIDE_MAX_PX) // 8 * 8 for side in (track.width, track.height))
    return Picture(size=(size[0], size[1]), fps=str(track.fps), codec=Codec.MJPEG, seconds=usual.seconds)


async def _play(camera: "Camera", track: "Track", writer: asyncio.StreamWriter) -> None:
    loop = asyncio.get_running_loop()
    if camera.fault.kind is not Kind.HANG:
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
        if Quirk.HEADERS in camera.quirks:
            sloppy = (
                "ICY 200 OK",
                "Content-Type : text/html",
                "no colon here",
                "Transfer-Encoding: identity",
                "Content-Length: -1",
            )
            head = "\r\n".join([*sloppy, "", ""])
        writer.write(head.encode())
    began_s, number = loop.time(), 0
    while not writer.is_closing() and camera.fault.kind not in (Kind.DROP, Kind.RESET, Kind.UNAUTHORIZED, Kind.MISSING):
        if camera.fault.kind not in (Kind.SILENT, Kind.HANG):
            jpeg = track.units[number % len(track.units)].whole
            if Quirk.NO_END in camera.quirks:
                jpeg = jpeg.removesuffix(b"\xff\xd9")
            part = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            if Quirk.BOUNDARY in camera.quirks:
                part = "--another\r\nContent-Type: image/jpeg\r\n\r\n"
            writer.write(part.encode())
            writer.write(jpeg + b"\r\n")
            await writer.drain()
        # Never behind: frames whose time has passed while the client did not read are left out.
        number = max(number, int((loop.time() - began_s) * track.fps)) + 1
        await asyncio.sleep(max(0.0, began_s + number / float(track.fps) - loop.time()))


def _with_request(handle: _Handler) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    """Return what asyncio calls for a connection: one request, one answer, and the end."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await asyncio.wait_for(_read(reader), _REQUEST_S)
            if request is None:
                _refuse(writer, HTTPStatus.BAD_REQUEST, "this is no HTTP request that can be answered")
            else:
                await handle(request, writer)
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            pass
        except asyncio.CancelledError:
            # The server ends; passed on, asyncio would complain about every client that was still there.
            return
        finally:
            writer.close()

    return serve


async def _read(reader: asyncio.StreamReader) -> _Request | None:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    first = head[0].split(" ")
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
    length = headers.get("content-length", "0")
    if len(first) != 3 or not first[1].startswith("/") or not length.isdecimal() or int(length) > _BODY_LIMIT_BYTES:
        return None
    return _Request(first[0], unquote(urlsplit(first[1]).path), headers, await reader.readexactly(int(length)))


def _refuse(writer: asyncio.StreamWriter, status: HTTPStatus, message: str) -> None:
    _answer(writer, status, msgspec.json.encode({"error": message}))


def _answer(writer: asyncio.StreamWriter, status: HTTPStatus, body: bytes, headers: str = "") -> None:
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    writer.write(f"{head}{headers}Connection: close\r\n\r\n".encode() + body)
