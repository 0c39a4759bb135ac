"""Moodline in a Python program, without a service: pictures, files and cameras, in this process.

`import moodline` has the same names. Needs `pip install 'moodline[embedded]'`; models are loaded once, when first used.
"""

from moodline.library._analysis import Result, analyze
from moodline.library._faces import Box, Face
from moodline.library._images import detect_emotions
from moodline.library._rows import Rows
from moodline.library._stream import LiveFrame, Stream, stream

__all__ = ["Box", "Face", "LiveFrame", "Result", "Rows", "Stream", "analyze", "detect_emotions", "stream"]
