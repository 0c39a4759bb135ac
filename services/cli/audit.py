"""`moodline audit`: who changed what. Reads the store itself."""

from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from moodline.services.auth.audit import read_changes
from moodline.services.cli.console import TableConsole, echo_json, fitted
from moodline.services.cli.data_dir import DataDir
from moodline.services.cli.keys import open_keys
from moodline.services.cli.streams import AsJson
from moodline.services.report.moments import iso, to_datetime
from moodline.shared.printable import printable


def audit(
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="Most changes to show, the newest.")] = 50,
    as_json: AsJson = False,
    data_dir: DataDir = None,
) -> None:
    """Show who changed streams, models, keys and alerts, newest first. Works on the store, as `moodline keys` does."""
    with open_keys(data_dir) as (store, _):
        found = read_changes(store, limit)
    if as_json:
        rows = [
            {
                "number": number,
                "at": iso(to_datetime(one.at_us)),
                "who": one.who,
                "role": one.role,
                "what": one.what,
                "ids": one.ids,
            }
            for number, one in found
        ]
        echo_json(msgspec.json.format(msgspec.json.encode({"changes": rows}), indent=2).decode())
        return
    table = Table(box=None, pad_edge=False)
    for title in ("at", "who", "role", "what", "ids"):
        table.add_column(title, overflow="fold", no_wrap=title == "at")
    for _, one in found:
        ids = " ".join(f"{name}={value}" for name, value in one.ids.items())
        # As text: names may look like markup.
        table.add_row(*(Text(printable(cell)) for cell in (iso(to_datetime(one.at_us)), one.who, one.role or "-", one.what, ids)))
    console = TableConsole()
    console.print(fitted(table, console.width))
