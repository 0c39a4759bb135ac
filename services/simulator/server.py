"""The simulator's server: cameras, the RTSP port, and small HTTP servers for faults and MJPEG."""

import asyncio
from pathlib import Path

from moodline.services.simulator.auth import Authenticator
from moodline.services.simulator.camera import Camera
from moodline.services.simulator.faults import Fault, parse_fault
from moodline.services.simulator.film import Film
from moodline.services.simulator.http import serve_control, serve_mjpeg
from moodline.services.simulator.options import Options, Ports
from moodline.services.simulator.quirks import parse_quirks
from moodline.services.simulator.rtsp import RtspConnection, Site
from moodline.shared.errors import SettingsError


class SimulatorServer:
    """Everything of one simulator, within a running event loop. An asynchronous context manager."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._films: list[Film] = []
        self.cameras: dict[str, Camera] = {}
        self._connections: set[RtspConnection] = set()
        self._servers: list[asyncio.Server] = []
        self.ports: Ports

    async def __aenter__(self) -> "SimulatorServer":
        """Encode the clips, which takes seconds, and listen.

        Raises:
            SourceError: a clip cannot be served.
            SettingsError: an option cannot be used, or a port is taken.
        """
        options = self._options
        faults = {path: parse_fault(text) for path, text in options.faults.items()}
        await self._make_cameras()
        for path, quirks in parse_quirks(options.quirks).items():
            self._camera(path).quirks = quirks
        for path, fault in faults.items():
            await self.set_fault(path, fault)
        site = Site(
            self.cameras,
            Authenticator(options.user, options.password, options.auth),
            options.session_timeout_s,
            self._connections,
        )
        loop = asyncio.get_running_loop()
        try:
            rtsp = await loop.create_server(lambda: RtspConnection(site), options.host, options.port)
            self._servers.append(rtsp)
            control = await serve_control(self, options.control_port)
            self._servers.append(control)
            http = None
            if options.http_port is not None:
                http = await serve_mjpeg(self.cameras, site.authenticator, options)
                self._servers.append(http)
        except OSError:
            await self.__aexit__()
            raise SettingsError("the simulator cannot listen: an address or port cannot be used, or is taken") from None
        self.ports = Ports(
            rtsp=_port(rtsp), control=_port(control), http=_port(http) if http else None, paths=tuple(self.cameras)
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for camera in self.cameras.values():
            camera.close()
        for connection in list(self._connections):
            connection.close()

    async def set_fault(self, path: str, fault: Fault, seconds: float | None = None) -> None:
        """Give a camera a fault; raises `SettingsError` where there is no such camera."""
        await self._camera(path).set_fault(fault, seconds)

    def _camera(self, path: str) -> Camera:
        camera = self.cameras.get(path.strip("/"))
        if camera is None:
            raise SettingsError(f"there is no camera at this path; there are {', '.join(self.cameras)}")
        return camera

    async def _make_cameras(self) -> None:
        options = self._options
        self._films = [Film(Path(clip)) for clip in options.clips] or [Film(None)]
        for film in self._films:
            await asyncio.to_thread(film.track, options.picture)
        named = [("clip", self._films[0]), *((film.name, film) for film in self._films)]
        named += [(f"cam{number}", self._films[number % len(self._films)]) for number in range(options.paths)]
        for number, (name, film) in enumerate(named):
            # The golden ratio spreads any number of cameras evenly over a frame's time.
            camera = Camera(name, film, options.picture, phase=number * 0.618 % 1)
            self.cameras.setdefault(name, camera)


def _port(server: asyncio.Server) -> int:
    return int(server.sockets[0].getsockname()[1])
