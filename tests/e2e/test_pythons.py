"""The embedded service on other Pythons: a clean environment from the lock, executed, with timelines equal to this Python's.

One Python that is newer than this one is tried always; `make test-pythons` (MOODLINE_TEST_PYTHONS=all) tries all that are found.
"""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from shutil import which

import av
import pytest

from moodline.services.ingest.file.open import open_source
from moodline.services.simulator import CameraSimulator
from moodline.shared.settings import load_settings
from moodline.shared.streams import StreamState
from tests.support.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

REPO = Path(__file__).resolve().parents[2]
SUPPORTED = ("3.11", "3.12", "3.13", "3.14")
OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"
ALL = os.environ.get("MOODLINE_TEST_PYTHONS") == "all"
SMALL = {"MOODLINE_INGEST_BACKOFF_MIN_S": "0.3", "MOODLINE_INGEST_BACKOFF_MAX_S": "1.5"}


def works(python: Path) -> bool:
    """Say whether a Python is there; pyenv's commands are there for versions that are not chosen, too."""
    return subprocess.run([python, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode == 0


def found() -> dict[str, Path]:
    """Return the interpreters of this machine that Moodline supports, by version."""
    pythons: dict[str, Path] = {}
    for version in SUPPORTED:
        on_path = which(f"python{version}")
        candidates = [Path(on_path)] if on_path else []
        candidates += sorted((Path.home() / ".pyenv" / "versions").glob(f"{version}.*/bin/python"))
        for python in candidates:
            if works(python):
                pythons[version] = python
                break
    return pythons


def tried() -> list[str]:
    pythons = found()
    others = [version for version in pythons if version != OWN]
    return list(pythons) if ALL else others[-1:]


class Environment:
    """A virtual environment as `make demo` makes it."""

    def __init__(self, directory: Path) -> None:
        self.bin = directory / "bin"
        self.moodline = self.bin / "moodline"

    def run(self, *arguments: object, cwd: Path) -> None:
        """Run a command; it must succeed."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("MOODLINE_", "PYTHON"))}
        done = subprocess.run(
            [*map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, f"{arguments}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module", params=tried() or [pytest.param("", marks=pytest.mark.skip(reason="no other Python is here"))])
def environment(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    directory = tmp_path_factory.mktemp(f"python{request.param}") / "venv"
    environment = Environment(directory)
    environment.run(REPO / "deploy/local/virtual-environment.sh", found()[request.param], directory, cwd=REPO)
    install = [environment.bin / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    environment.run(*install, "--require-hashes", "-r", REPO / "requirements-embedded.lock", cwd=REPO)
    environment.run(*install, "--no-deps", "--no-build-isolation", "--no-index", "-e", REPO, cwd=REPO)
    return environment


@pytest.fixture(scope="module")
def own() -> Environment:
    return Environment(Path(sys.prefix))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoded video with a face: the built-in scene in H.264."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    scene = open_source("synthetic://astronaut?seconds=6&fps=10", load_settings().ingest)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height = scene.info.width, scene.info.height
        for frame in scene.frames():
            image = frame.to_bgr()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode())
    scene.close()
    return path


@pytest.fixture(scope="module")
def reference(own: Environment, clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("reference")
    own.run(own.moodline, "analyze", clip, "--json", "t.json", "--csv", "t.csv", cwd=directory)
    return directory


@pytest.fixture(scope="module")
def playlist(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve the clip as HLS."""
    directory = tmp_path_factory.mktemp("hls")
    options = {"hls_time": "1", "hls_list_size": "0", "hls_segment_type": "mpegts"}
    with av.open(str(clip)) as source, av.open(str(directory / "live.m3u8"), "w", format="hls", options=options) as written:
        video = source.streams.video[0]
        copy = written.add_stream_from_template(video)
        for packet in source.demux(video):
            if packet.dts is not None:
                packet.stream = copy
                written.mux(packet)
    handler = partial(SimpleHTTPRequestHandler, directory=str(directory))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/live.m3u8"
        server.shutdown()


def test_the_demo_runs(environment: Environment, tmp_path: Path) -> None:
    environment.run(environment.moodline, "demo", "--plot", "demo.png", cwd=tmp_path)

    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")


def test_a_clip_gives_the_same_bytes(environment: Environment, clip: Path, reference: Path, tmp_path: Path) -> None:
    outputs = ("--json", "t.json", "--csv", "t.csv", "--plot", "t.png", "--annotate", "t.mp4")
    environment.run(environment.moodline, "analyze", clip, *outputs, cwd=tmp_path)

    for name in ("t.json", "t.csv"):
        assert (tmp_path / name).read_bytes() == (reference / name).read_bytes()
    assert json.loads((tmp_path / "t.json").read_text())["summary"]["frames_with_faces"] > 0
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")
    with av.open(str(tmp_path / "t.mp4")) as annotated:
        assert sum(1 for _ in annotated.decode(video=0)) > 0


def test_the_service_reads_cameras_hls_and_uploads(
    environment: Environment, clip: Path, playlist: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.support.service.MOODLINE", str(environment.moodline))
    with CameraSimulator(None, size="320x180", fps=10) as simulator, Service(tmp_path, **SMALL) as service:
        service.add("rtsp", f"rtsp://127.0.0.1:{simulator.port}/cam0")
        service.add("hls", playlist)
        service.client.upload(clip, stream_id="upload")
        for stream in ("rtsp", "hls"):
            service.wait(lambda stream=stream: service.frames(stream, start="-1h")[0] > 3, 60, f"frames of {stream}")
        service.wait_for_state("upload", StreamState.ENDED)
        assert service.frames("upload")[0] > 3
        assert service.metric("moodline_reader_restarts_total", cause="crash") == 0
    assert not re.search(r"Traceback|DeprecationWarning", service.log.read_text())
