"""The built-in sample: a scene with two faces that needs no file and no camera."""

from typing import Final

SAMPLE_URL: Final = "synthetic://astronaut?seconds=30&fps=25&faces=2&seed=1"
