"""`moodline demo`: the main job on a built-in sample, from registration to timeline, in one process and without a server."""

import tempfile
from itertools import count
from pathlib import Path
from typing import Annotated

import typer

from moodline import Client
from moodline.services.cli.streams import wait_until_ended
from moodline.services.cli.timeline import Format, document_of, judge_plot, print_timeline
from moodline.services.cli.trouble import Verbose, is_verbose, logs_only_if_wanted, note_verbose
from moodline.services.report import plot_timeline
from moodline.shared.log import configure_logging
from moodline.shared.sample import SAMPLE_URL
from moodline.shared.settings import Settings, load_settings

_TABLE_POINTS = 30


def demo(
    context: typer.Context,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the timeline into this file.", show_default="demo.png, or a name that is free")
    ] = None,
    url: Annotated[str, typer.Option(help="What to analyse.")] = SAMPLE_URL,
    *,
    force: Annotated[bool, typer.Option("--force", help="Replace a picture that is there.")] = False,
    verbose: Verbose = False,
) -> None:
    """Start the embedded service, register a built-in sample through its API, show the timeline, and end."""
    note_verbose(context, verbose)
    settings = load_settings()
    configure_logging("warning" if settings.log.level == "info" else settings.log.level, settings.log.format)
    picture = _free_name(Path.cwd()) if plot is None else plot
    picture.parent.mkdir(parents=True, exist_ok=True)
    judge_plot(picture, force=force)
    with logs_only_if_wanted(is_verbose() or settings.log.level != "info"):
        _demo(settings, picture, url)


def _free_name(folder: Path) -> Path:
    """Return demo.png, or demo-2.png where that is there, and so on."""
    names = (Path("demo.png" if number == 1 else f"demo-{number}.png") for number in count(1))
    return next(name for name in names if not (folder / name).exists())


def _demo(settings: Settings, plot: Path, url: str) -> None:
    from moodline.services.api.app import create_app
    from moodline.services.api.server import ApiServer
    from moodline.services.runtime.embedded import EmbeddedService

    with tempfile.TemporaryDirectory(prefix="moodline-demo-") as directory:
        settings = settings.model_copy(
            update={
                "data_dir": Path(directory),
                "bus": type(settings.bus)(),
                "store": type(settings.store)(),
                "api": type(settings.api)(),
            }
        )
        typer.echo("starting the service: ingest, detector, classifier, aggregator, API; no Kafka, no Redis …")
        with EmbeddedService(settings) as service:
            resources = service.resources
            app = create_app(resources.store, settings, resources.metrics, resources.clock, readiness=service.alive)
            with ApiServer(app, "127.0.0.1", 0) as server, Client(server.url, "") as client:
                typer.echo(f"POST {server.url}/api/v1/streams  {url}")
                client.add_stream("sample", url)
                wait_until_ended(client, "sample", service.require_no_defect)
                typer.echo(f"GET  {server.url}/api/v1/streams/sample/timeline")
                print_timeline(document_of(client.timeline("sample", max_points=_TABLE_POINTS)), Format.TABLE)
                plot_timeline(document_of(client.timeline("sample", max_points=600)), plot)
            service.require_no_defect()
    typer.echo(f"drawn into {plot}")
    typer.echo("next: `moodline analyze YOUR_CLIP.mp4 --plot t.png --annotate out.mp4`, or keep a service up with `moodline run`")
