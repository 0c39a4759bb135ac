"""Print the faces of pictures and what they show, without a service: `python examples/emotions_in_pictures.py a.jpg b.png`."""

import sys

import moodline


def main(paths: list[str]) -> None:
    """Print one line for each face: file, place in px, leading emotion and its probability."""
    for path, faces in zip(paths, moodline.detect_emotions(paths), strict=True):
        for face in faces:
            left, top, width, height = face.box.xywh
            shown = face.dominant or "not readable"
            print(f"{path}: {width:.0f} x {height:.0f} px at {left:.0f}, {top:.0f}: {shown} {face.emotions.get(shown, 0):.0%}")
        if not faces:
            print(f"{path}: no face")


if __name__ == "__main__":
    main(sys.argv[1:])
