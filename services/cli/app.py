"""The command `moodline`."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from moodline import __version__
from moodline.services.cli.alerts import app as alerts_app
from moodline.services.cli.analyze import analyze
from moodline.services.cli.audit import audit
from moodline.services.cli.camera import app as camera_app
from moodline.services.cli.connection import API_KEY_HELP, API_URL_HELP, remember_target
from moodline.services.cli.data_dir import DataDir
from moodline.services.cli.demo import demo
from moodline.services.cli.evaluate import evaluate
from moodline.services.cli.examples import examples_text
from moodline.services.cli.interruption import cleaning_up
from moodline.services.cli.key import key
from moodline.services.cli.keys import app as keys_app
from moodline.services.cli.models import app as models_app
from moodline.services.cli.push import push
from moodline.services.cli.setup import setup
from moodline.services.cli.streams import app as streams_app
from moodline.services.cli.timeline import timeline
from moodline.services.cli.top import top
from moodline.services.cli.train import train
from moodline.services.cli.trouble import Verbose, end_with, note_verbose
from moodline.shared.log import configure_logging
from moodline.shared.settings import Settings, load_settings

app = typer.Typer(
    name="moodline",
    help="Per-stream emotion timelines from video, in one process or on Kafka and Redis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(streams_app, name="streams")
app.add_typer(models_app, name="models")
app.add_typer(alerts_app, name="alerts")
app.add_typer(keys_app, name="keys")
app.add_typer(camera_app, name="camera")
for _command in (timeline, top, push, key, audit, analyze, demo, train, evaluate, setup):
    app.command()(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def moodline(
    context: typer.Context,
    api_url: Annotated[str | None, typer.Option(help=API_URL_HELP)] = None,
    api_key: Annotated[str | None, typer.Option(help=API_KEY_HELP)] = None,
    *,
    verbose: Verbose = False,
    _version: Annotated[
        bool, typer.Option("--version", help="Print the version, and end.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Say which API the commands below ask."""
    remember_target(context, api_url, api_key)
    note_verbose(context, verbose)


def _start(**overrides: object) -> Settings:
    settings = load_settings(**overrides)
    configure_logging(settings.log.level, settings.log.format)
    # Others may not read the files of a service; files that others need get their mode where they are written.
    os.umask(0o077)
    return settings


@app.command()
def run(
    data_dir: DataDir = None,
    media_root: Annotated[
        Path | None, typer.Option(help="Files may be registered only below this directory.", show_default="the current one")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address that the API listens on.", show_default="MOODLINE_API_HOST, or 127.0.0.1")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the API.", show_default="MOODLINE_API_PORT, or 8000", min=0, max=65_535)
    ] = None,
) -> None:
    """Run everything in this process: API, ingest, detector, classifier and aggregator."""
    from moodline.services.runtime.processes import run_embedded

    settings = _start()
    changes: dict[str, object] = {}
    if data_dir is not None:
        changes["data_dir"] = data_dir
    if media_root is not None:
        changes["ingest"] = settings.ingest.model_copy(update={"media_root": media_root})
    listens = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    if listens:
        changes["api"] = settings.api.model_copy(update=listens)
    run_embedded(settings.model_copy(update=changes))


@app.command()
def ingest() -> None:
    """Run one ingest worker (needs MOODLINE_BUS_URL and MOODLINE_STORE_URL)."""
    _run_worker("ingest")


@app.command()
def detector() -> None:
    """Run one detector worker."""
    _run_worker("detector")


@app.command()
def classifier() -> None:
    """Run one classifier worker."""
    _run_worker("classifier")


@app.command()
def aggregator() -> None:
    """Run one aggregator worker."""
    _run_worker("aggregator")


@app.command()
def api() -> None:
    """Run the HTTP API alone."""
    from moodline.services.runtime.processes import run_api

    run_api(_start())


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _run_worker(kind: str) -> None:
    from moodline.services.runtime.processes import run_worker

    run_worker(kind, _start())


def main() -> None:
    """Run the command line; whatever goes wrong is one line on standard error and exit code 1."""
    try:
        with cleaning_up():
            app()
    except Exception as error:  # noqa: BLE001  # the last one who can say it in one line
        sys.exit(end_with(error, _command_name()))


def _add_examples(group: typer.Typer, prefix: str = "") -> None:
    for command in group.registered_commands:
        name = command.name or (command.callback.__name__ if command.callback else "")
        command.epilog = examples_text(f"{prefix}{name}")
    for child in group.registered_groups:
        if child.typer_instance is not None:
            _add_examples(child.typer_instance, f"{prefix}{child.name} ")


_add_examples(app)


def _command_name() -> str:
    """Return the name of the command that was asked for: the first word that is one."""
    names = {command.name or command.callback.__name__ for command in app.registered_commands if command.callback}
    names |= {group.name for group in app.registered_groups if group.name}
    return next((word for word in sys.argv[1:] if word in names), "")
