"""Every file in examples/ runs as its first line says."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from moodline import Client
from moodline.services.ingest.file.open import open_source
from moodline.services.ingest.media.encode import encode_jpeg
from moodline.shared.sample import SAMPLE_URL
from moodline.shared.settings import IngestSettings
from tests.support.service import Service

REPO = Path(__file__).resolve().parents[2]
EXAMPLES = REPO / "examples"


def run_example(name: str, *arguments: str, url: str = "") -> str:
    environment = {**os.environ, "MOODLINE_API_URL": url, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    command = [sys.executable, str(EXAMPLES / name), *arguments]
    done = subprocess.run(command, cwd=REPO, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("examples"), MOODLINE_ALERTS_WEBHOOK_ALLOW_LOOPBACK="true") as service:
        yield service


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first picture of the built-in sample, with faces."""
    path = tmp_path_factory.mktemp("picture") / "faces.jpg"
    source = open_source(SAMPLE_URL, IngestSettings())
    try:
        path.write_bytes(encode_jpeg(next(source.frames()).to_bgr(), 90))
    finally:
        source.close()
    return path


def film(path: Path, picture: Path) -> Path:
    """Write two seconds of one picture."""
    image = cv2.imread(str(picture))
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10, (image.shape[1], image.shape[0]))
    for _ in range(20):
        writer.write(image)
    writer.release()
    return path


def test_all_examples_are_run_here_and_are_in_the_list() -> None:
    names = {path.name for path in EXAMPLES.glob("*.py")}
    assert all(f"`{name}`" in (EXAMPLES / "README.md").read_text() for name in names)
    assert all(name in Path(__file__).read_text() for name in names)


def test_emotions_in_pictures(picture: Path) -> None:
    assert re.search(r"faces.jpg: \d+ x \d+ px at \d+, \d+: \w+ \d+%", run_example("emotions_in_pictures.py", str(picture)))


def test_the_notebook_runs(picture: Path, tmp_path: Path) -> None:
    """`coming_from_fer_and_deepface.ipynb`, with a picture and a clip beside it."""
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    (tmp_path / "faces.jpg").write_bytes(picture.read_bytes())
    film(tmp_path / "clip.mp4", picture)
    notebook = nbformat.read(EXAMPLES / "coming_from_fer_and_deepface.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=240, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = json.dumps(notebook)
    assert "dominant_emotion" in printed
    assert (tmp_path / "boxes.mp4").stat().st_size > 1000


def test_analyse_a_file(tmp_path: Path, picture: Path) -> None:
    said = run_example("analyse_a_file.py", str(film(tmp_path / "clip.mp4", picture)))
    assert "0.0 s" in said
    assert " faces" in said


def test_register_and_query(service: Service, picture: Path) -> None:
    film(service.directory / "clip.mp4", picture)
    assert "the whole file: {" in run_example("register_and_query.py", "clip.mp4", url=service.url)


def test_push_frames(service: Service, picture: Path) -> None:
    assert "faces, the first: Face(" in run_example("push_frames.py", str(picture), url=service.url)


def test_webhook_receiver(service: Service) -> None:
    done = threading.Event()
    empty = encode_jpeg(np.zeros((120, 160, 3), np.uint8), 80)

    def push() -> None:
        with Client(service.url, "") as client:
            while not done.wait(0.2):
                client.push_frame("hall", empty)

    service.add("hall", "push://", sample_fps="5")
    pushing = threading.Thread(target=push)
    pushing.start()
    try:
        assert "nobody-there on hall: firing" in run_example("webhook_receiver.py", "hall", url=service.url)
    finally:
        done.set()
        pushing.join()


def test_train_a_small_model() -> None:
    assert "are right after 2 epochs" in run_example("train_a_small_model.py")
