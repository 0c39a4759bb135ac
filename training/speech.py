"""Is a neutral speaker called neutral? `python -m moodline.training.speech --model fer-2 --clips clips`.

An open mouth is easily taken for anger, sadness or surprise. `speech.json` names frames of a clip in which a woman speaks, five a
second, with the box of her face and what it shows, labelled by eye: neutral, happy where she smiles, nothing where it is not
clear. It holds no pictures; the clip is handed over apart. One speaker for 15 s: it shows a fault, it does not measure a
population.

Figures are for single frames and for the track as a timeline shows it, smoothed over event time.
"""

import argparse
from pathlib import Path
from typing import Final

import cv2
import msgspec
import numpy as np

from moodline.services.aggregator.smoothing import advance, start
from moodline.services.classifier.model import Crops, Model
from moodline.services.classifier.quantise import quantised
from moodline.services.detector.crop import cut_square, square_around
from moodline.services.detector.own import OwnDetector
from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import DataError
from moodline.shared.settings import AggregatorSettings
from moodline.training.predictor import open_predictor

FILE: Final = Path(__file__).with_name("speech.json")


class Face(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One frame: its number from 0, the face's box x1, y1, x2, y2 in px, and its label, empty where it is not clear."""

    frame: int
    box: tuple[int, int, int, int]
    label: str


class Speech(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `speech.json`."""

    clip: str
    frames_per_s: float
    faces: tuple[Face, ...]


class SpeechFigures(msgspec.Struct, frozen=True):
    """Shares from 0 to 1 of the labelled frames that are called what they show, alone and in the smoothed track.

    Attributes:
        frames: Labelled frames by label.
        single: Recall by label, each frame alone.
        smoothed: Recall by label, of the smoothed track at that moment.
        answers: How many neutral frames, alone, are called what.
    """

    frames: dict[str, int]
    single: dict[str, float]
    smoothed: dict[str, float]
    answers: dict[str, int]


def load_speech(path: Path = FILE) -> Speech:
    """Read the frames and labels."""
    return msgspec.json.decode(path.read_bytes(), type=Speech)


def read_crops(speech: Speech, clips: Path) -> Crops:
    """Return the faces as the service cuts them, uint8 (N, 48, 48).

    Raises:
        DataError: the clip is missing, cannot be read, or is shorter than the labels say.
    """
    path = clips / speech.clip
    video = cv2.VideoCapture(str(path))
    if not path.is_file() or not video.isOpened():
        raise DataError(f"{path} cannot be read: name the folder of the clips with --clips")
    crops, number = [], -1
    try:
        for face in speech.faces:
            image = None
            while number < face.frame:
                there, image = video.read()
                if not there or image is None:
                    raise DataError(f"{path} ends before frame {face.frame}")
                number += 1
            left, top, right, bottom = face.box
            square = square_around((left, top, right, bottom), OwnDetector.square_from)
            crops.append(cut_square(np.asarray(image, np.uint8), *square))
    finally:
        video.release()
    return np.stack(crops)


def speech_figures(model: Model, speech: Speech, crops: Crops, smoothing_ms: int) -> SpeechFigures:
    """Return how a model answers for the labelled frames.

    Args:
        model: What to measure.
        speech: Frames and labels.
        crops: The faces, uint8 (N, 48, 48), in the same order.
        smoothing_ms: Time constant of the track's smoothing, as the aggregator has it.
    """
    answers = quantised(model.predict(crops)).tolist()
    state = start(tuple(answers[0]))
    smoothed, before = [], speech.faces[0].frame
    for face, answer in zip(speech.faces, answers, strict=True):
        passed_us = round(1e6 * (face.frame - before) / speech.frames_per_s)
        state, before = advance(state, tuple(answer), passed_us, 1000 * smoothing_ms), face.frame
        smoothed.append(EMOTIONS[int(np.argmax(state))])
    single = [EMOTIONS[int(np.argmax(answer))] for answer in answers]
    labels = [face.label for face in speech.faces]
    frames = {name: labels.count(name) for name in EMOTIONS if name in labels}
    neutral = [answer for answer, label in zip(single, labels, strict=True) if label == "neutral"]
    return SpeechFigures(
        frames=frames,
        single={name: _recall(single, labels, name) for name in frames},
        smoothed={name: _recall(smoothed, labels, name) for name in frames},
        answers={name: neutral.count(name) for name in EMOTIONS if name in neutral},
    )


def measured_speech(model: Model, clips: Path) -> SpeechFigures:
    """Return a model's figures on the labelled clip, smoothed as the aggregator does by default. Raises as `read_crops`."""
    speech = load_speech()
    return speech_figures(model, speech, read_crops(speech, clips), AggregatorSettings().smoothing_ms)


def _recall(answers: list[str], labels: list[str], name: str) -> float:
    of = [answer for answer, label in zip(answers, labels, strict=True) if label == name]
    return round(of.count(name) / len(of), 4)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", required=True, help="a model or a run; may be given several times")
    parser.add_argument("--clips", type=Path, required=True, help="folder of the clips")
    arguments = parser.parse_args()
    for name in arguments.model:
        model = open_predictor(name)[0]
        figures = measured_speech(model, arguments.clips)
        print(f"{model.name}: {msgspec.json.encode(figures).decode()}")
        model.close()


if __name__ == "__main__":
    main()
