"""`moodline camera`: real cameras found and tried, makers' URLs, and clips as cameras for trying Moodline out without one."""

import asyncio
import contextlib
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from moodline.services.cli.camera_onvif import discover, profiles
from moodline.services.cli.camera_probe import probe, urls
from moodline.services.simulator.options import Codec, Options, Picture, Ports, parse_size
from moodline.shared.errors import SettingsError


class Auth(StrEnum):
    """The log-in methods that a simulated camera offers."""

    ANY = "any"
    BASIC = "basic"
    DIGEST = "digest"


class _ServesByDefault(TyperGroup):
    """Takes `moodline camera clip.mp4` for `moodline camera serve clip.mp4`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] != "--help"):
            args = ["serve", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=_ServesByDefault, help="Try cameras, and serve clips as cameras. Without a command: serve.")
app.command()(probe)
app.command()(urls)
app.command()(discover)
app.command()(profiles)


@app.command()
def serve(  # noqa: PLR0913, PLR0917  # one parameter per option
    clips: Annotated[list[Path] | None, typer.Argument(help="Clips to serve; a built-in scene unless given.")] = None,
    port: Annotated[int, typer.Option(help="Port of RTSP; 0 takes a free one.")] = 8554,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    user: Annotated[
        str | None,
        typer.Option(help="Ask for this user; the password comes from --password-stdin.", show_default="nobody is asked"),
    ] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    auth: Annotated[Auth, typer.Option(help="Which ways to log in are offered.")] = Auth.ANY,
    size: Annotated[
        str | None,
        typer.Option(help="Width and height in px, such as 640x360; the clip's own unless given.", show_default="the clip's own"),
    ] = None,
    fps: Annotated[str, typer.Option(help="Frames per second.")] = "25",
    gop: Annotated[str, typer.Option(help="Time from one keyframe to the next, such as 1s.")] = "1s",
    codec: Annotated[Codec, typer.Option(help="How clips are encoded.")] = Codec.H264,
    copy: Annotated[bool, typer.Option("--copy", help="Serve H.264 or H.265 as it is in the file.")] = False,
    seconds: Annotated[float, typer.Option(help="Serve so much of each clip's beginning, in a loop.")] = 20.0,
    paths: Annotated[int, typer.Option(help="How many identical cameras cam0, cam1, ... there are.")] = 1,
    fault: Annotated[
        list[str] | None, typer.Option(help="PATH=FAULT from the start on, such as cam3=silent.", show_default="none")
    ] = None,
    quirk: Annotated[
        list[str] | None, typer.Option(help="PATH=QUIRK for good, such as cam0=markers.", show_default="none")
    ] = None,
    control_port: Annotated[int, typer.Option(help="Port where faults are asked for; 0 takes a free one.")] = 0,
    http_port: Annotated[
        int | None, typer.Option(help="Port of MJPEG over HTTP; the one after RTSP's unless given.", show_default="none")
    ] = None,
) -> None:
    """Serve clips as RTSP cameras in an endless loop, with faults on demand. Ends at SIGINT or SIGTERM."""
    picture = Picture(
        size=parse_size(size, codec) if size else None, fps=fps, gop_s=_seconds(gop), codec=codec, seconds=seconds, copy=copy
    )
    if (user is None) == password_stdin:
        raise SettingsError("--user and --password-stdin go together")
    options = Options(
        clips=tuple(str(clip) for clip in clips or ()),
        host=host,
        port=port,
        control_port=control_port,
        http_port=(port + 1 if port else 0) if http_port is None else http_port,
        user=user,
        password=sys.stdin.readline().rstrip("\r\n") if password_stdin else None,
        auth=auth.value,
        paths=paths,
        picture=picture,
        faults=dict(_fault(text) for text in fault or ()),
        quirks=tuple(quirk or ()),
    )
    asyncio.run(_serve(options))


async def _serve(options: Options) -> None:
    from moodline.services.simulator.server import SimulatorServer

    typer.echo("encoding …", err=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        with contextlib.suppress(NotImplementedError):  # on Windows; Ctrl+C ends it there all the same
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with SimulatorServer(options) as server:
        _show(options, server.ports)
        await stop.wait()


def _show(options: Options, ports: Ports) -> None:
    host = f"[{options.host}]" if ":" in options.host else options.host
    for path in ports.paths:
        typer.echo(f"rtsp://{host}:{ports.rtsp}/{path}")
    if ports.http is not None:
        typer.echo(f"http://{host}:{ports.http}/clip.mjpeg  (and so on: MJPEG over HTTP)")
    typer.echo(f"http://127.0.0.1:{ports.control}/faults  (GET; POST to /faults/{{path}}: faults)")
    sys.stdout.flush()


def _fault(text: str) -> tuple[str, str]:
    path, mark, name = text.partition("=")
    if not mark:
        raise SettingsError("--fault is a path and a fault, such as cam3=silent")
    return path.strip("/"), name


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s"))
    except ValueError:
        value = 0.0
    if not 0 < value <= 60:
        raise SettingsError("--gop is a time of up to 60 s, such as 1s")
    return value
