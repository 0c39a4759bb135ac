"""An analysis that is told to end keeps what it has, and can be gone on with: the result is that of one undisturbed run."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import av
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 48
"""Of video: several times what a fast machine analyses until the first frames are kept, which happens once a second."""
SCENE = f"synthetic://astronaut?seconds={SECONDS}&fps=25&faces=1&seed=3"
_PAUSE = threading.Event()


def command(tmp_path: Path, *arguments: str) -> tuple[list[str], dict[str, str]]:
    environment = {**os.environ, "MOODLINE_DATA_DIR": str(tmp_path / "data"), "TMPDIR": str(tmp_path / "tmp")}
    (tmp_path / "tmp").mkdir(exist_ok=True)
    return [sys.executable, "-m", "moodline", "analyze", SCENE, "--sample-fps", "5", *arguments], environment


def run(tmp_path: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line, environment = command(tmp_path, *arguments)
    return subprocess.run(line, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200, check=False)


def frames_kept(tmp_path: Path) -> int:
    found = list((tmp_path / "data/analyses").glob("*/*/extent.json"))
    try:
        return max((json.loads(path.read_text())["frames"] for path in found), default=0)
    except (OSError, ValueError):  # just being written
        return 0


def interrupt(tmp_path: Path, number: int, *arguments: str, after_frames: int = 1) -> tuple[int, str]:
    """Run until some frames are in the timeline, send a signal, and return exit code and what was said."""
    line, environment = command(tmp_path, *arguments)
    with subprocess.Popen(
        line, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        while frames_kept(tmp_path) < after_frames:
            assert process.poll() is None, process.communicate()
            _PAUSE.wait(0.02)
        process.send_signal(number)
        said = process.communicate(timeout=120)[1]
        return process.returncode, said


def test_ctrl_c_keeps_what_is_there_and_resume_goes_on(tmp_path: Path) -> None:
    code, said = interrupt(
        tmp_path, signal.SIGINT, "--json", "t.json", "--faces", "f.csv", "--plot", "t.png", "--annotate", "o.mp4"
    )
    assert code == 130, said
    assert "interrupted after" in said
    assert "--resume goes on from there" in said
    partial = json.loads((tmp_path / "t.json").read_text())
    assert 0 < partial["summary"]["sampled"] < 5 * SECONDS
    assert (tmp_path / "f.csv").read_text().count("\n") == partial["summary"]["sampled"] + 1
    assert (tmp_path / "t.png").stat().st_size > 1000
    assert not (tmp_path / "o.mp4").exists()

    done = run(tmp_path, "--json", "t.json", "--faces", "f.csv", "--annotate", "o.mp4")
    assert done.returncode == 1
    assert "is there already" in done.stderr

    done = run(tmp_path, "--json", "t.json", "--faces", "f.csv", "--annotate", "o.mp4", "--resume")
    assert done.returncode == 0, done.stderr
    assert "goes on after" in done.stderr
    whole = run(tmp_path, "--json", "whole.json", "--faces", "whole.csv")
    assert whole.returncode == 0, whole.stderr
    assert (tmp_path / "t.json").read_bytes() == (tmp_path / "whole.json").read_bytes()
    assert (tmp_path / "f.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    with av.open(str(tmp_path / "o.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 25 * SECONDS
    assert not any((tmp_path / "data/analyses").iterdir()), "nothing is kept of what is complete"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_keep_it_too_and_leave_nothing_behind(tmp_path: Path, number: int, code: int) -> None:
    ended, said = interrupt(tmp_path, number, "--csv", "t.csv")
    assert ended == code, said
    assert (tmp_path / "t.csv").read_text().count("\n") > 1
    assert not any((tmp_path / "tmp").iterdir())
    assert frames_kept(tmp_path) > 0


def test_an_output_that_fails_takes_no_other_along_and_is_written_later(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is Linux's")
    done = run(tmp_path, "--csv", "/dev/full", "--json", "t.json")
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "the analysis is kept" in done.stderr
    assert json.loads((tmp_path / "t.json").read_text())["summary"]["sampled"] == 5 * SECONDS
    done = run(tmp_path, "--csv", "t.csv", "--json", "again.json", "--resume")
    assert done.returncode == 0, done.stderr
    assert "frames/s" not in done.stderr, "nothing is analysed again"
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "t.json").read_bytes()
    assert (tmp_path / "t.csv").exists()


def test_standard_output_takes_one_of_them_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "--json", "-", "--sample-fps", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["summary"]["sampled"] == SECONDS
    assert "mostly" in done.stderr
