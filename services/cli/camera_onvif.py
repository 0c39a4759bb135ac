"""`moodline camera discover` and `profiles`: ONVIF cameras on the local network, and the streams that one offers."""

import sys
from typing import Annotated

import typer

from moodline.shared.settings import load_settings


def discover(
    host: Annotated[str | None, typer.Argument(help="Ask this address alone; the whole local network unless given.")] = None,
    seconds: Annotated[float, typer.Option(help="How long answers are waited for.", min=0.1, max=60.0)] = 3.0,
    interface: Annotated[
        str | None, typer.Option(help="Address of the network interface to ask from; all by default.", show_default="all")
    ] = None,
) -> None:
    """Find ONVIF cameras on the local network. Ends with 1 when none answers."""
    from moodline.services.ingest.camera.onvif_discovery import discover as found_by
    from moodline.shared.net_policy import net_policy_of

    settings = load_settings().ingest
    policy = net_policy_of(settings.schemes, settings.allow_loopback, settings.allow_networks, settings.deny_networks)
    found = found_by(policy, seconds, interface=interface, host=host)
    for each in found:
        about = " ".join(text for text in (each.name, each.hardware) if text) or "(no name)"
        typer.echo(f"{each.service or '-':<48} {about}")
        if each.note:
            typer.echo(f"{'':<4} -> {each.note}")
    if not found:
        typer.echo(
            "moodline: no camera answers; switch ONVIF on in the camera, run this in the camera's own network and not in a "
            "container's, or name the camera: moodline camera discover HOST",
            err=True,
        )
        raise typer.Exit(1)
    typer.echo("next: moodline camera profiles HOST --user USER --password-stdin", err=True)


def profiles(
    host: Annotated[str, typer.Argument(help="The camera: HOST, HOST:PORT, or the URL of its device service.")],
    user: Annotated[
        str | None, typer.Option(help="Log in as this user; the password comes from --password-stdin.", show_default="none")
    ] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from standard input.")] = False,
    enough: Annotated[
        int, typer.Option(help="The smallest stream whose shorter side has so many px is chosen.", min=16, max=8192)
    ] = 360,
) -> None:
    """List the streams that a camera offers over ONVIF; the one to take is marked with *."""
    from moodline.services.ingest.camera.input.egress import PolicyEgress
    from moodline.services.ingest.camera.onvif import best_profile, device_address, read_device
    from moodline.shared.net_policy import net_policy_of

    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else None
    settings = load_settings().ingest
    policy = net_policy_of(settings.schemes, settings.allow_loopback, settings.allow_networks, settings.deny_networks)
    device = read_device(
        device_address(host, user, password), PolicyEgress(policy, ca_file=settings.tls_ca_file), settings.open_timeout_s
    )
    typer.echo(f"camera     {' '.join(text for text in (device.maker, device.model, device.firmware) if text)}")
    if device.clock_off_s is not None and abs(device.clock_off_s) > settings.clock_tolerance_s:
        typer.echo(f"note       its clock is {device.clock_off_s:+.0f} s off; set it by NTP")
    best = best_profile(device.profiles, enough)
    for profile in device.profiles:
        size = f"{profile.width}x{profile.height}" if profile.width else "size unknown"
        fps = "" if profile.fps is None else f" {profile.fps} frames/s"
        typer.echo(f"{'*' if profile is best else ' '} {profile.name:<20} {profile.codec or '?'} {size}{fps}")
        typer.echo(f"    {profile.url or '-'}")
        if profile.is_masked:
            typer.echo("    -> *** stands for what may be a secret; see it in the camera's own pages")
        if profile.note:
            typer.echo(f"    -> {profile.note}")
