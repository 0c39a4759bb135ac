"""Trained artefacts that ship with Moodline, one folder per model."""

from pathlib import Path


def models_dir() -> Path:
    """Return the folder that holds the shipped models."""
    return Path(__file__).parent
