"""Sealing camera credentials: only the key opens them, and only for their stream."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.shared.camera_url import CameraSecret
from moodline.shared.errors import SealError
from moodline.shared.seal import KEY_FILE, Sealer, new_key, open_sealer
from moodline.shared.settings import SecretsSettings, Settings, StoreSettings

SECRET = CameraSecret(username="admin", password="hunter2", target="/x?token=hunter3")
KEY = new_key()


def sealer(keys: str) -> Sealer:
    return Sealer(lambda _create: keys)


TEXT = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(username=TEXT, password=TEXT, target=TEXT)
def test_what_is_sealed_comes_back(username: str | None, password: str | None, target: str | None) -> None:
    secret = CameraSecret(username=username, password=password, target=target)
    sealed = sealer(KEY).seal("yard", secret)
    assert sealer(KEY).open("yard", sealed) == secret


def test_sealed_text_tells_nothing_and_is_never_the_same() -> None:
    first, second = (sealer(KEY).seal("yard", SECRET) for _ in range(2))
    assert first != second
    assert "hunter" not in first
    assert "hunter" not in repr(SECRET) + repr(sealer(KEY))


def test_nothing_sealed_needs_no_key() -> None:
    assert sealer("").open("yard", "") is None
    assert Sealer("").seal("yard", None) == ""


def test_another_stream_is_refused() -> None:
    with pytest.raises(SealError, match="another stream"):
        sealer(KEY).open("lobby", sealer(KEY).seal("yard", SECRET))


@pytest.mark.parametrize("change", [lambda text: text[:-4], lambda text: "A" + text[1:], lambda _text: "ä", lambda _text: "x"])
def test_altered_text_is_refused(change: object) -> None:
    with pytest.raises(SealError, match="cannot be opened") as caught:
        sealer(KEY).open("yard", change(sealer(KEY).seal("yard", SECRET)))  # type: ignore[operator]
    assert "hunter" not in str(caught.value)


def test_the_first_key_seals_and_all_open() -> None:
    old, new = new_key(), new_key()
    sealed_before = sealer(old).seal("yard", SECRET)
    both = sealer(f"{new}, {old}")
    assert both.open("yard", sealed_before) == SECRET
    assert sealer(new).open("yard", both.seal("yard", SECRET)) == SECRET
    with pytest.raises(SealError):
        sealer(old).open("yard", both.seal("yard", SECRET))


# Named, for the key is a new one in every process, and workers that share the tests must agree on their names.
@pytest.mark.parametrize(
    "keys", ["hunter2", f"{KEY},hunter2", "ä", KEY[:-3]], ids=["text", "second of two", "not ASCII", "too short"]
)
def test_what_is_no_key_is_refused_and_not_repeated(keys: str) -> None:
    with pytest.raises(SealError, match="moodline key") as caught:
        sealer(keys).seal("yard", SECRET)
    assert keys not in str(caught.value)
    with pytest.raises(SealError, match="moodline key"):
        open_sealer(Settings(secrets=SecretsSettings(key=keys)))


def embedded(folder: Path) -> Settings:
    return Settings(data_dir=folder, store=StoreSettings(url=""), secrets=SecretsSettings(key=""))


def test_the_embedded_service_makes_a_key_once(tmp_path: Path) -> None:
    settings = embedded(tmp_path / "data")
    assert open_sealer(settings).open("yard", "") is None
    assert not (tmp_path / "data").exists()
    sealed = open_sealer(settings).seal("yard", SECRET)
    key = tmp_path / "data" / KEY_FILE
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert open_sealer(settings).open("yard", sealed) == SECRET
    assert [path.name for path in key.parent.iterdir()] == [KEY_FILE]


def test_opening_makes_no_key(tmp_path: Path) -> None:
    with pytest.raises(SealError, match="MOODLINE_SECRETS_KEY"):
        open_sealer(embedded(tmp_path)).open("yard", sealer(KEY).seal("yard", SECRET))
    assert list(tmp_path.iterdir()) == []


def test_all_who_come_first_get_the_same_key(tmp_path: Path) -> None:
    settings = embedded(tmp_path)
    with ThreadPoolExecutor(8) as threads:
        sealed = list(threads.map(lambda _n: open_sealer(settings).seal("yard", SECRET), range(16)))
    assert {open_sealer(settings).open("yard", text) for text in sealed} == {SECRET}


def test_a_key_file_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file, not a directory")
    with pytest.raises(SealError, match="permissions"):
        open_sealer(embedded(tmp_path / "data")).seal("yard", SECRET)


def test_a_distributed_service_needs_a_key_once_there_is_something_to_seal() -> None:
    store = StoreSettings(url="redis://127.0.0.1:6379/0")
    without = open_sealer(Settings(store=store, secrets=SecretsSettings(key="")))
    assert without.open("yard", "") is None
    with pytest.raises(SealError, match="same value on the API and ingest"):
        without.seal("yard", SECRET)
    with_key = open_sealer(Settings(store=store, secrets=SecretsSettings(key=KEY)))
    assert with_key.open("yard", with_key.seal("yard", SECRET)) == SECRET
