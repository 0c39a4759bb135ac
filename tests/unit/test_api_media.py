"""Which addresses may be registered."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.api.media import checked_url
from moodline.shared.errors import InvalidStreamError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    media = tmp_path / "media"
    (media / "day 1").mkdir(parents=True)
    (media / "day 1" / "50% #1?.mp4").write_bytes(b"x")
    (media / "clip.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").write_bytes(b"x")
    return media


def refused(given_url: str, root: Path) -> str:
    with pytest.raises(InvalidStreamError) as caught:
        checked_url(given_url, root)
    assert caught.value.field == "url"
    return str(caught.value)


def test_a_path_becomes_a_file_url(root: Path) -> None:
    assert checked_url(str(root / "clip.mp4"), root) == (root / "clip.mp4").as_uri()


def test_a_relative_path_counts_from_the_media_root(root: Path) -> None:
    assert checked_url("clip.mp4", root) == (root / "clip.mp4").as_uri()


def test_a_file_url_is_decoded_and_encoded_again(root: Path) -> None:
    path = root / "day 1" / "50% #1?.mp4"
    assert checked_url(path.as_uri(), root) == path.as_uri()
    assert checked_url(str(path), root) == path.as_uri()
    assert checked_url(path.as_uri().replace("file:///", "file://localhost/"), root) == path.as_uri()


def test_the_media_root_may_be_a_link_itself(root: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(root)
    assert checked_url(str(link / "clip.mp4"), link) == (root / "clip.mp4").as_uri()


def test_a_link_within_the_media_root_is_resolved(root: Path) -> None:
    (root / "latest.mp4").symlink_to(root / "clip.mp4")
    assert checked_url("latest.mp4", root) == (root / "clip.mp4").as_uri()


@pytest.mark.parametrize(
    "url",
    [
        "../secret.mp4",
        "day 1/../../secret.mp4",
        "{parent}/secret.mp4",
        "file://{parent}/secret.mp4",
        "file://{root}/../secret.mp4",
        "file://{root}/%2e%2e/secret.mp4",
        "file://{root}/%2E%2E%2Fsecret.mp4",
        "/etc/passwd",
        "/",
        "{root}-other/clip.mp4",
    ],
)
def test_nothing_outside_of_the_media_root(root: Path, url: str) -> None:
    (root.parent / "media-other").mkdir()
    (root.parent / "media-other" / "clip.mp4").write_bytes(b"x")
    assert "below the media root" in refused(url.format(root=root, parent=root.parent), root)


def test_no_link_out_of_the_media_root(root: Path) -> None:
    (root / "innocent.mp4").symlink_to(root.parent / "secret.mp4")
    (root / "up").symlink_to(root.parent)
    assert "only below the media root" in refused("innocent.mp4", root)
    assert "only below the media root" in refused("up/secret.mp4", root)


def test_whether_a_file_elsewhere_exists_is_not_told(root: Path) -> None:
    assert refused(str(root.parent / "secret.mp4"), root) == refused(str(root.parent / "absent.mp4"), root)


@pytest.mark.parametrize("url", ["absent.mp4", "day 1", ".", "loop.mp4", "pipe.mp4", "x" * 300 + ".mp4", "clip.mp4/more"])
def test_only_files_that_are_there(root: Path, url: str) -> None:
    (root / "loop.mp4").symlink_to(root / "loop.mp4")
    os.mkfifo(root / "pipe.mp4")
    assert "no such file" in refused(url, root) or "cannot be resolved" in refused(url, root)


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://admin:hunter2@camera/1",
        "synthetic://admin:hunter2@scene",
        "file://admin:hunter2@/clip.mp4",
        "http://hunter2@[::1]/a",
    ],
)
def test_credentials_are_refused_and_never_repeated(root: Path, url: str) -> None:
    message = refused(url, root)
    assert "this kind of url takes none" in message
    assert "hunter2" not in message
    assert "admin" not in message


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("rtsp://camera/1", "scheme that is not supported"),
        ("HTTP://camera/1", "scheme that is not supported"),
        ("http://[::1", "not well-formed"),
        ("file://server/share/clip.mp4", "no host"),
        ("file:clip.mp4", "absolute path"),
        ("file:///media/clip.mp4?x=1", "no query"),
        ("file:///media/clip.mp4#t=1", "no query"),
        ("file:///media/clip%00.mp4", "control character"),
        ("clip\x00.mp4", "control character"),
        ("clip\n.mp4", "control character"),
        ("", "1 to 2048 characters"),
        ("x" * 2049, "1 to 2048 characters"),
        ("synthetic://", "looks like"),
        ("synthetic://Face", "looks like"),
        ("synthetic://face/../x", "looks like"),
        ("synthetic://face?a=<b>", "looks like"),
    ],
)
def test_what_else_is_refused(root: Path, url: str, says: str) -> None:
    message = refused(url, root)
    assert says in message
    assert "camera" not in message


@pytest.mark.parametrize("url", ["synthetic://astronaut", "synthetic://two-faces?seconds=10&fps=30000/1001"])
def test_synthetic_scenes_stay_as_they_are(root: Path, url: str) -> None:
    assert checked_url(url, root) == url


@given(st.text(max_size=200))
def test_any_text_is_refused_or_stays_below_the_root(text: str) -> None:
    root = Path(__file__).parent
    try:
        url = checked_url(text, root)
    except InvalidStreamError:
        return
    assert url.startswith((root.as_uri() + "/", "synthetic://"))
