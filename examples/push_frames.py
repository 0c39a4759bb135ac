"""Bring pictures of your own as a live stream and print which faces are seen: `python examples/push_frames.py picture.jpg`.

A robot, a phone or a program that renders would do the same with its own pictures.
The address of the service is MOODLINE_API_URL.
"""

import sys
import threading
from pathlib import Path

from moodline import Client, FacesEvent


def push(jpeg: bytes, done: threading.Event) -> None:
    """Push one picture again and again, five times a second."""
    with Client() as moodline:
        while not done.wait(0.2):
            moodline.push_frame("robot", jpeg)


def main(picture: str) -> None:
    """Push in the background; print the first answer with faces."""
    done = threading.Event()
    pushing = threading.Thread(target=push, args=(Path(picture).read_bytes(), done))
    with Client() as moodline:
        moodline.add_stream("robot", "push://", sample_fps="5")
        pushing.start()
        try:
            for event in moodline.events(streams="robot", faces=True, patience_s=30):
                if isinstance(event, FacesEvent) and event.faces:
                    print(f"{len(event.faces)} faces, the first: {event.faces[0]}")
                    break
        finally:
            done.set()
            pushing.join()
            moodline.delete_stream("robot")


if __name__ == "__main__":
    main(sys.argv[1])
