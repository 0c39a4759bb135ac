"""`moodline keys`: API keys. Works on the store itself, so that the first key can be made before the service starts."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from moodline.services.auth.audit import Change, append_change
from moodline.services.auth.callers import Role
from moodline.services.auth.keyring import KeyInfo, KeyRecord, Keyring
from moodline.services.cli.console import TableConsole, echo_json, fitted
from moodline.services.cli.data_dir import DataDir, report_store, settings_with
from moodline.services.cli.streams import AsJson
from moodline.services.report.moments import iso, to_datetime, to_us
from moodline.services.runtime.bootstrap import retention
from moodline.shared.clock import SystemClock
from moodline.shared.store import Store, open_store

app = typer.Typer(
    name="keys",
    help="See, make and remove API keys. Works on the store, with or without a running service.",
    no_args_is_help=True,
)

COMMAND_LINE = "command line"
Name = Annotated[str, typer.Argument(help="Name of the key.", show_default=False)]


@app.command()
def add(
    name: Name,
    role: Annotated[Role, typer.Option(help="What its holder may do.")] = Role.VIEWER,
    stream: Annotated[
        list[str] | None, typer.Option(help="Limit it to this stream; several add up.", show_default="all streams")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Limit it to streams with this label (KEY=VALUE, or KEY); several add up.", show_default="all streams"),
    ] = None,
    days: Annotated[
        int | None, typer.Option(min=1, max=36_500, help="Days until it expires.", show_default="it does not")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it. It is shown this once; only its hash is kept."""
    expires_at_us = None if days is None else to_us(datetime.now(UTC) + timedelta(days=days))
    with open_keys(data_dir) as (store, keyring):
        record = KeyRecord(
            name=name,
            role=role,
            digest="",
            streams=tuple(stream) if stream else None,
            labels=tuple(label) if label else None,
            expires_at_us=expires_at_us,
        )
        kept, key = keyring.add(record)
        _audit(store, "POST /keys", kept.name)
    typer.echo(key)


@app.command("ls")
def list_keys(as_json: AsJson = False, data_dir: DataDir = None) -> None:
    """List the keys. What is secret of them is kept nowhere."""
    with open_keys(data_dir) as (_, keyring):
        found = keyring.list_keys()
    if as_json:
        rows = [{**_shown(info), "streams": info.record.streams, "labels": info.record.labels} for info in found]
        echo_json(msgspec.json.format(msgspec.json.encode({"keys": rows}), indent=2).decode())
        return
    table = Table(box=None, pad_edge=False)
    titles = ("name", "role", "only", "prefix", "created_at", "expires_at", "last_used")
    for title in titles:
        table.add_column(title.replace("_", " "), overflow="fold", no_wrap=title != "only")
    for info in found:
        only = ", ".join((*(info.record.streams or ()), *(info.record.labels or ())))
        row = {**_shown(info), "only": only or "all streams"}
        row |= {title: _short(row[title]) for title in ("created_at", "expires_at", "last_used")}
        table.add_row(*(Text(str(row[title] or "-")) for title in titles))
    console = TableConsole()
    console.print(fitted(table, console.width))


@app.command("rm")
def remove(name: Name, data_dir: DataDir = None) -> None:
    """Remove a key, and end the sessions that it opened. A running service refuses it within 2 s."""
    with open_keys(data_dir) as (store, keyring):
        keyring.remove(name)
        _audit(store, "DELETE /keys/{name}", name)
    typer.echo(f"{name} is removed")


@contextmanager
def open_keys(data_dir: Path | None = None) -> Iterator[tuple[Store, Keyring]]:
    """Yield the store of the settings, or of a data directory, and the keys in it; says which store it is."""
    settings, clock = settings_with(data_dir), SystemClock()
    report_store(settings)
    store = open_store(settings.store_url(), retention(settings))
    try:
        yield store, Keyring(store, clock)
    finally:
        store.close()


def _audit(store: Store, what: str, name: str) -> None:
    append_change(store, Change(to_us(datetime.now(UTC)), COMMAND_LINE, Role.ADMIN, what, {"name": name}))


def _shown(info: KeyInfo) -> dict[str, str | None]:
    record = info.record
    return {
        "name": record.name,
        "role": record.role,
        "prefix": record.prefix,
        "created_at": _moment(record.created_at_us),
        "expires_at": _moment(record.expires_at_us),
        "last_used": _moment(info.last_used_us),
    }


def _moment(us: int | None) -> str | None:
    return None if us is None else iso(to_datetime(us))


def _short(moment: str | None) -> str | None:
    """Return a time of ISO 8601 to the minute, for people."""
    return None if moment is None else moment[:16].replace("T", " ")
