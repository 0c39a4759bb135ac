"""Sealed credentials: only the right key opens them, and only for their stream."""

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from shared.camera_url import CameraSecret
from shared.errors import SealError
from shared.seal import KEY_FILE, Sealer, new_key, open_sealer
from shared.settings import SecretsSettings, Settings, StoreSettings

SECRET = CameraSecret("user", "c4n4ry", "/live?token=c4n4ry")


def test_what_is_sealed_opens_again_and_shows_nothing() -> None:
    sealer = Sealer(new_key())
    sealed = sealer.seal("cam", SECRET)
    assert sealer.open("cam", sealed) == SECRET
    assert "c4n4ry" not in sealed + repr(SECRET)
    assert sealed != sealer.seal("cam", SECRET), "equal passwords do not show as equal"
    assert sealer.seal("cam", None) == ""
    assert sealer.open("cam", "") is None


def test_another_stream_another_key_and_altered_bytes_are_refused() -> None:
    sealer = Sealer(new_key())
    sealed = sealer.seal("cam", SECRET)
    altered = sealed[:-6] + ("A" if sealed[-6] != "A" else "B") + sealed[-5:]
    for other, stream_id, value in (
        (sealer, "other", sealed),
        (Sealer(new_key()), "cam", sealed),
        (sealer, "cam", altered),
        (sealer, "cam", "no seal"),
        (Sealer(""), "cam", sealed),
    ):
        with pytest.raises(SealError) as refused:
            other.open(stream_id, value)
        assert "c4n4ry" not in str(refused.value)


def test_keys_are_rotated_by_putting_a_new_one_first() -> None:
    old, new = new_key(), new_key()
    sealed = Sealer(old).seal("cam", SECRET)
    both = Sealer(f"{new}, {old}")
    assert both.open("cam", sealed) == SECRET
    assert Sealer(new).open("cam", both.seal("cam", SECRET)) == SECRET


def test_no_key_is_an_error_only_when_one_is_needed() -> None:
    sealer = Sealer("")
    assert sealer.seal("cam", None) == ""
    with pytest.raises(SealError, match="MOODLINE_SECRETS_KEY"):
        sealer.seal("cam", SECRET)
    with pytest.raises(SealError, match="MOODLINE_SECRETS_KEY") as refused:
        Sealer("c4n4ry-is-no-key")
    assert "c4n4ry" not in str(refused.value)


def test_the_embedded_service_makes_a_key_that_only_its_user_may_read(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "data")
    sealed = open_sealer(settings).seal("cam", SECRET)
    path = tmp_path / "data" / KEY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert open_sealer(settings).open("cam", sealed) == SECRET
    assert [file.name for file in path.parent.iterdir()] == [KEY_FILE]


def test_a_given_key_comes_before_the_file_and_a_distributed_service_makes_none(tmp_path: Path) -> None:
    key = new_key()
    given = Settings(data_dir=tmp_path, secrets=SecretsSettings(key=SecretStr(key)))
    assert Sealer(key).open("cam", open_sealer(given).seal("cam", SECRET)) == SECRET
    redis = Settings(data_dir=tmp_path, store=StoreSettings(url=SecretStr("redis://host/0")))
    with pytest.raises(SealError):
        open_sealer(redis).seal("cam", SECRET)
    assert list(tmp_path.iterdir()) == []
