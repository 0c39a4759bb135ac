"""What nobody foresaw ends a command with one line and exit code 1, and so does a package that is not installed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

# Every package that an extra brings.
EXTRAS = [
    *(
        "av",
        "h11",
        "m3u8",
        "cv2",
        "openvino",
        "fastapi",
        "starlette",
        "uvicorn",
        "nicegui",
        "websockets",
        "matplotlib",
        "skimage",
    ),
    *("confluent_kafka", "redis", "opentelemetry", "pandas", "tensorflow", "keras", "torch", "onnx", "onnxruntime"),
]

BROKEN_READER = """
import moodline.services.ingest.file.open as source
def broken(*_):
    raise TypeError("rtsp://user:c4n4ry@camera")
source.SCHEMES = dict.fromkeys(source.SCHEMES, broken)
"""
BROKEN_STAGE = """
from moodline.services.detector.stage import DetectorStage
def broken(*_):
    raise TypeError("c4n4ry")
DetectorStage.process = broken
"""


def moodline(prelude: str, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process in which something else was done before."""
    start = f"sys.argv = ['moodline', *{list(arguments)!r}]\nfrom moodline.services.cli.app import main\nmain()\n"
    code = f"import sys\n{prelude}\n{start}"
    environment = {**os.environ, "MOODLINE_DATA_DIR": str(cwd / "data")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


@pytest.mark.parametrize("command", [("analyze", "synthetic://astronaut?seconds=2"), ("demo",)], ids=["analyze", "demo"])
@pytest.mark.parametrize(
    ("prelude", "said"),
    [(BROKEN_READER, r"reading crashed \(TypeError at <string>:\d+\)"), (BROKEN_STAGE, "a worker failed on a frame")],
    ids=["reader", "stage"],
)
def test_the_unexpected_is_over_in_one_line(prelude: str, said: str, command: tuple[str, ...], tmp_path: Path) -> None:
    done = moodline(prelude, *command, cwd=tmp_path)

    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert re.match(f"moodline: {said}", done.stderr)
    assert "c4n4ry" not in done.stderr


def test_verbose_shows_the_trace(tmp_path: Path) -> None:
    done = moodline(BROKEN_READER, "analyze", "synthetic://astronaut?seconds=2", "--verbose", cwd=tmp_path)

    assert done.returncode == 1
    assert "Traceback (most recent call last)" in done.stderr
    assert "in broken" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("moodline: reading crashed (TypeError")


def test_an_error_of_a_command_itself_tells_type_and_place(tmp_path: Path) -> None:
    prelude = "import moodline.services.cli.timeline as t\ndef broken():\n    raise KeyError('c4n4ry')\nt.open_client = broken"
    done = moodline(prelude, "timeline", "lobby", cwd=tmp_path)

    assert done.returncode == 1
    assert re.fullmatch(
        r"moodline: unexpected KeyError at <string>:\d+; this is a defect, please report it; "
        r"`moodline --verbose timeline …` shows the trace\n",
        done.stderr,
    )


BLOCKED = f"sys.modules.update(dict.fromkeys({EXTRAS!r}))"


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (("run",), "embedded"),
        (("demo",), "embedded"),
        (("analyze", "synthetic://astronaut"), "embedded"),
        (("camera",), "embedded"),
        (("push", "clip.mp4", "--stream", "robot"), "embedded"),
        (("api",), "api"),
        (("ingest",), "redis"),
        (("detector",), "redis"),
        (("classifier",), "redis"),
        (("aggregator",), "redis"),
        (("setup",), "kafka"),
        (("train", "--config", "c.toml"), "train"),
        (("evaluate", "fer-1", "data"), "train"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else value,
)
def test_a_command_names_the_extra_that_it_lacks(command: tuple[str, ...], extra: str, tmp_path: Path) -> None:
    distributed = (
        "import os\nos.environ.update(MOODLINE_BUS_URL='kafka://127.0.0.1:1', MOODLINE_STORE_URL='redis://127.0.0.1:1/0')\n"
    )
    (tmp_path / "c.toml").write_text("")
    (tmp_path / "clip.mp4").write_bytes(b"")
    done = moodline((distributed if extra in ("redis", "kafka") else "") + BLOCKED, *command, cwd=tmp_path)

    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert f"'moodline[{extra}]'" in done.stderr


@pytest.mark.parametrize("command", ["--help", "--version", "streams --help", "alerts --help"])
def test_help_needs_no_extra(command: str, tmp_path: Path) -> None:
    done = moodline(BLOCKED, *command.split(), cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


def test_the_module_is_the_command(tmp_path: Path) -> None:
    import moodline as package

    done = subprocess.run([sys.executable, "-m", "moodline", "--version"], capture_output=True, text=True, check=True, timeout=60)

    assert done.stdout.strip() == package.__version__
