"""`moodline key`: a key to seal camera passwords with."""

import typer


def key() -> None:
    """Print a new key for MOODLINE_SECRETS_KEY, which seals camera passwords."""
    from moodline.shared.seal import new_key

    typer.echo(new_key())
