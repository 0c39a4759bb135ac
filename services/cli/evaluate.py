"""`moodline evaluate`: figures, plots and a report of a model on labelled images."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console


def evaluate(
    model: Annotated[str, typer.Argument(help="A shipped model's name, an artefact's folder, or a training run's folder.")],
    data: Annotated[Path, typer.Argument(help="Image folder or fer2013.csv.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the report.", show_default="out/evaluate/MODEL")] = None,
    votes: Annotated[
        Path | None, typer.Option(help="FER+ votes CSV, to compare with what people see as well.", show_default="none")
    ] = None,
    split: Annotated[str, typer.Option(help="Part to measure on: train, validation or test.")] = "validation",
) -> None:
    """Measure a model on labelled images: metrics.json, plots, and one HTML page with everything."""
    # By name: the services never need the training project, only this command does.
    session = import_module("moodline.training.session")
    with Console(stderr=True).status("reading images and loading the model") as status:
        summary = session.evaluate_from_files(model, data, out, split, votes, on_progress=status.update)
    typer.echo(summary)
