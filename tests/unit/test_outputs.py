"""Outputs are judged before the work, and written whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from moodline.services.report.outputs import STDOUT, Output, check_outputs, replacing, shown, write_output
from moodline.shared.errors import OutputError


def judge(path: Path, *inputs: Path, force: bool = False, suffixes: tuple[str, ...] = (), need_bytes: int = 0) -> str:
    """Return what stands in the way, or nothing."""
    try:
        check_outputs([Output("--json", path, suffixes, need_bytes)], inputs, force=force)
    except OutputError as error:
        return str(error)
    return ""


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "v.mp4"
    path.write_bytes(b"video")
    (tmp_path / "link.mp4").symlink_to(path)
    (tmp_path / "hard.mp4").hardlink_to(path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "linked-folder").symlink_to(tmp_path)
    return path


@pytest.mark.parametrize("name", ["v.mp4", "link.mp4", "hard.mp4", "folder/../v.mp4", "linked-folder/v.mp4"])
def test_the_input_is_never_written_over_whatever_leads_to_it(clip: Path, tmp_path: Path, name: str) -> None:
    assert "is the input itself" in judge(tmp_path / name, clip, force=True)
    assert clip.read_bytes() == b"video"


def test_what_is_there_is_replaced_only_when_told_so(clip: Path, tmp_path: Path) -> None:
    assert judge(tmp_path / "new.json", clip) == ""
    (tmp_path / "old.json").write_text("old")
    assert judge(tmp_path / "old.json", clip).endswith("is there already; --force replaces it")
    assert judge(tmp_path / "old.json", clip, force=True) == ""


def test_places_where_no_file_can_be(clip: Path, tmp_path: Path) -> None:
    assert "is a directory" in judge(tmp_path / "folder", force=True)
    assert "there is no folder" in judge(tmp_path / "absent" / "t.json")
    assert "there is no folder" in judge(clip / "t.json")
    assert "cannot be written" in judge(tmp_path / ("long" * 200))
    assert "the ending must be .png or .svg" in judge(tmp_path / "t.gif", suffixes=(".png", ".svg"))
    assert "MB are needed" in judge(tmp_path / "t.json", need_bytes=1 << 60)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_places_where_this_user_may_not_write(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").chmod(0o555)
    assert "no file can be made" in judge(tmp_path / "folder" / "t.json")
    (tmp_path / "fixed.json").write_text("old")
    (tmp_path / "fixed.json").chmod(0o444)
    assert "may not be written" in judge(tmp_path / "fixed.json", force=True)


def test_every_problem_is_named_at_once(clip: Path, tmp_path: Path) -> None:
    outputs = [Output("--json", clip), Output("--csv", tmp_path / "folder"), Output("--plot", tmp_path / "absent/t.png")]
    with pytest.raises(OutputError, match=r"--json .*; --csv .*; --plot "):
        check_outputs(outputs, [clip], force=True)


def test_two_outputs_are_two_files(tmp_path: Path) -> None:
    same = [Output("--json", tmp_path / "t"), Output("--csv", tmp_path / "." / "t")]
    with pytest.raises(OutputError, match="--json and --csv are the same file"):
        check_outputs(same, [], force=False)
    with pytest.raises(OutputError, match="same file"):
        check_outputs([Output("--json", STDOUT), Output("--csv", STDOUT)], [], force=False)


def test_judging_leaves_nothing_behind(clip: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    judge(tmp_path / "new.json", clip)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as partial:
            partial.write_text("half")
            assert path.read_text() == "old"
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert path.read_text() == "old"
    with replacing(path) as partial:
        partial.write_text("new")
    assert path.read_text() == "new"
    assert [one.name for one in tmp_path.iterdir()] == ["t.json"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real.json").write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to("real.json")
    write_output(link, "new")
    assert link.is_symlink()
    assert (tmp_path / "real.json").read_text() == "new"


def test_what_is_no_file_is_written_as_it_is(tmp_path: Path) -> None:
    assert judge(Path("/dev/null")) == ""
    write_output(Path("/dev/null"), "gone")
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
def test_a_full_disk_is_said(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="No space left"):
        write_output(Path("/dev/full"), "x" * 100_000)


def test_a_name_that_is_no_text_can_be_shown(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.json"))
    assert judge(path) == ""
    write_output(path, "{}")
    assert shown(path).endswith("caf\ufffd.json")
    assert "is there already" in judge(path)
