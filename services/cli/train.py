"""`moodline train`: one training run, with a progress bar, that can be stopped and gone on with."""

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


def train(
    config: Annotated[Path, typer.Option(help="What to do: a TOML file, such as training/configs/shipped.toml.")],
    data: Annotated[
        Path | None, typer.Option(help="Image folder or fer2013.csv.", show_default="the configuration's data.path")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run.", show_default="training/runs/NAME")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the last epoch that was finished.")] = False,
    fetch_weights: Annotated[
        bool, typer.Option("--fetch-weights", help="Let a transfer network download the weights it starts from.")
    ] = False,
) -> None:
    """Train the emotion classifier."""
    # By name: the services never need the training project, only this command does.
    session = import_module("moodline.training.session")
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("reading images", total=None)

        def show(now: Any) -> None:
            bar.update(task, description=f"epoch {now.epoch + 1}", completed=now.step, total=now.steps)
            if now.line is not None:
                accuracy, loss = 100 * now.line.val_accuracy, now.line.val_loss
                console.print(
                    f"epoch {now.epoch + 1}: {accuracy:.2f}% of validation right, loss {loss:.4f}, {now.line.seconds:.0f} s"
                )

        summary = session.train_from_files(config, data, out, resume=resume, fetch_weights=fetch_weights, on_progress=show)
    typer.echo(summary)
