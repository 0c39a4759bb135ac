from pathlib import Path

import cv2
import numpy as np
import pytest

from moodline.shared.emotions import EMOTIONS
from moodline.shared.errors import DataError
from moodline.training.speech import Face, Speech, load_speech, read_crops, speech_figures


class GreyModel:
    """Is 80% sure of the class that the crop's grey names, 20 for each class."""

    name = "grey"

    def predict(self, crops: np.ndarray) -> np.ndarray:
        answers = np.full((len(crops), 7), 0.2 / 6, np.float32)
        answers[np.arange(len(crops)), crops[:, 24, 24] // 20] = 0.8
        return answers

    def close(self) -> None:
        """Nothing to release."""


def crops_of(names: list[str]) -> np.ndarray:
    return np.stack([np.full((48, 48), 20 * EMOTIONS.index(name) + 10, np.uint8) for name in names])


def speech_of(labels: list[str]) -> Speech:
    return Speech("made.mp4", 30.0, tuple(Face(6 * index, (0, 0, 40, 40), label) for index, label in enumerate(labels)))


def test_a_short_wrong_answer_is_smoothed_away_and_unclear_frames_only_pass_time() -> None:
    answers = ["neutral", "neutral", "neutral", "neutral", "angry", "neutral", "happy", "neutral"]
    labels = ["neutral", "neutral", "", "neutral", "neutral", "neutral", "", "happy"]
    figures = speech_figures(GreyModel(), speech_of(labels), crops_of(answers), 1000)
    assert figures.frames == {"happy": 1, "neutral": 5}
    assert figures.single == {"happy": 0.0, "neutral": 0.8}
    assert figures.smoothed == {"happy": 0.0, "neutral": 1.0}
    assert figures.answers == {"angry": 1, "neutral": 4}


def test_without_smoothing_a_track_is_its_frames() -> None:
    labels = ["neutral", "happy", "neutral", "happy"]
    figures = speech_figures(GreyModel(), speech_of(labels), crops_of(["neutral", "happy", "angry", "happy"]), 0)
    assert figures.single == figures.smoothed == {"happy": 1.0, "neutral": 0.5}


def test_the_labels_are_whole() -> None:
    speech = load_speech()
    frames = [face.frame for face in speech.faces]
    assert frames == sorted(set(frames))
    assert {face.label for face in speech.faces} == {"", "happy", "neutral"}
    assert all(left < right and top < bottom for left, top, right, bottom in (face.box for face in speech.faces))


def test_faces_are_cut_from_the_frames_that_are_named(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "made.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (64, 64))
    for index in range(20):
        writer.write(np.full((64, 64, 3), 10 * index, np.uint8))
    writer.release()
    crops = read_crops(speech_of(["neutral", "", "happy"]), tmp_path)
    assert crops.shape == (3, 48, 48)
    assert crops[:, 24, 24].astype(int) == pytest.approx([0, 60, 120], abs=6)
    with pytest.raises(DataError, match="ends before frame 24"):
        read_crops(speech_of([""] * 5), tmp_path)
    with pytest.raises(DataError, match="--clips"):
        read_crops(speech_of([""]), tmp_path / "nowhere")
