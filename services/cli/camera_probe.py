"""`moodline camera probe` and `urls`: what works with a camera, what to change, and where makers put their video."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from moodline.shared.errors import InvalidStreamError
from moodline.shared.messages import StreamClass
from moodline.shared.settings import load_settings
from moodline.shared.streams import StreamSpec, Transport


def probe(  # one parameter per option
    url: Annotated[str, typer.Argument(help="The camera's URL, such as rtsp://user:password@host/path.")],
    user: Annotated[
        str | None, typer.Option(help="Log in as this user; the password comes from --password-stdin.", show_default="none")
    ] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    transport: Annotated[Transport, typer.Option(help="How RTSP sends its media.")] = Transport.TCP,
    insecure: Annotated[bool, typer.Option("--insecure", help="Take any TLS certificate.")] = False,
    seconds: Annotated[float, typer.Option(help="How long frames are watched.", min=1.0, max=300.0)] = 5.0,
) -> None:
    """Say step by step what works with a camera, and what to change. Ends with 1 when something does not work."""
    from moodline.services.ingest.camera.input.egress import PolicyEgress
    from moodline.services.ingest.camera.input.frames import LiveLimits
    from moodline.services.ingest.camera.probe import probe as steps_of
    from moodline.shared.camera_url import camera_address, register_url
    from moodline.shared.net_policy import net_policy_of

    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    registered = register_url(url, username=user, password=password)
    typer.echo(f"camera     {registered.url}")
    if registered.hint:
        typer.echo(f"note       {registered.hint}")
    spec = StreamSpec(stream_id="probe", url=registered.url, lane=StreamClass.LIVE, transport=transport, tls_verify=not insecure)
    settings = load_settings().ingest
    policy = net_policy_of(settings.schemes, settings.allow_loopback, settings.allow_networks, settings.deny_networks)
    egress = PolicyEgress(policy, ca_file=None if settings.tls_ca_file is None else Path(settings.tls_ca_file))
    limits = LiveLimits(settings.open_timeout_s, settings.read_timeout_s, settings.max_pixels, settings.first_frame_timeout_s)
    good = True
    for step in steps_of(camera_address(spec, registered.secret), egress, limits, seconds):
        good &= step.good
        typer.echo(f"{'ok ' if step.good else 'NO '} {step.name:<24} {step.found}")
        if step.cure:
            typer.echo(f"    {'':<24} -> {step.cure}")
    if not good:
        raise typer.Exit(1)


def urls(
    maker: Annotated[str | None, typer.Argument(help="A maker, such as hikvision; all unless given.")] = None,
    host: Annotated[str, typer.Option(help="The camera's name or address, to fill in.")] = "HOST",
    channel: Annotated[int, typer.Option(help="The channel of a recorder, to fill in.", min=1, max=99)] = 1,
) -> None:
    """List the URLs of well-known makers' cameras: main stream and sub stream."""
    from moodline.services.ingest.camera.presets import PRESETS, urls_of

    if maker is not None and maker.lower() not in PRESETS:
        raise InvalidStreamError("maker", f"{maker!r} is no maker that is known here; known: {', '.join(PRESETS)}")
    for name in PRESETS if maker is None else [maker.lower()]:
        main, sub = urls_of(name, host, channel)
        typer.echo(f"{name:<10} main  {main}")
        if sub:
            typer.echo(f"{'':<10} sub   {sub}")
        if PRESETS[name].note:
            typer.echo(f"{'':<10} note  {PRESETS[name].note}")
