"""`moodline models`: which classifier models there are, and which is active. Asks the API."""

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from moodline import Model, Models
from moodline.services.cli.connection import open_client
from moodline.services.cli.console import TableConsole, echo_json, fitted
from moodline.services.cli.streams import AsJson

app = typer.Typer(name="models", help="See and change the classifier's model.", no_args_is_help=True)


@app.command("ls")
def list_models(as_json: AsJson = False) -> None:
    """List the installed models."""
    with open_client() as client:
        page = client.list_models()
    if as_json:
        echo_json(page.to_json())
        return
    console = TableConsole()
    console.print(fitted(_table(page.models), console.width))
    _report_refusal(page)


@app.command()
def activate(
    name: Annotated[str, typer.Argument(help="Name of an installed model.", show_default=False)],
) -> None:
    """Let all classifiers use another model, without a restart."""
    with open_client() as client:
        page = client.activate_model(name)
    typer.echo(f"{page.active} is active; classifiers load it within seconds")


def _table(models: list[Model]) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("name", "active", "parameters", "accuracy", "from"):
        table.add_column(title, justify="right" if title in ("parameters", "accuracy") else "left", overflow="fold")
    for model in models:
        accuracy = "-" if model.accuracy is None else f"{model.accuracy:.1%}"
        # As text: a folder's name may look like markup.
        source = Text(model.problem or model.source, style="red" if model.problem else "")
        table.add_row(Text(model.name), "yes" if model.active else "", f"{model.parameters:,}", accuracy, source)
    return table


def _report_refusal(page: Models) -> None:
    if page.refused is not None:
        typer.echo(f"a classifier could not load {page.refused.name} and uses the one before: {page.refused.reason}", err=True)
