"""Choose the store that a command opens: the one of the settings, or that of a data directory."""

from pathlib import Path
from typing import Annotated

import typer

from moodline.shared.settings import Settings, load_settings

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the embedded service keeps streams, timelines and keys.",
        show_default="MOODLINE_DATA_DIR, or ~/.local/share/moodline",
    ),
]


def settings_with(data_dir: Path | None) -> Settings:
    """Return the settings, with the store of a data directory where one is given."""
    settings = load_settings()
    if data_dir is None:
        return settings
    return settings.model_copy(update={"data_dir": data_dir, "store": settings.store.model_copy(update={"url": _NO_URL})})


_NO_URL = type(Settings().store.url)("")


def report_store(settings: Settings) -> None:
    """Say on standard error which store is used, without its secrets, and whether it is a new one: perhaps another was meant."""
    url = settings.store_url()
    if not url.startswith("sqlite:///"):
        typer.echo(f"store: {url.partition('://')[0]}://…", err=True)
        return
    path = url.removeprefix("sqlite:///")
    typer.echo(f"store: {path}{'' if Path(path).exists() else ' (new: there was none)'}", err=True)
