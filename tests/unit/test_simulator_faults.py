"""Faults, log-in and sizes of simulated cameras, as users write them."""

import base64
import hashlib
import re
from pathlib import Path

import pytest

from moodline.services.simulator.auth import Authenticator
from moodline.services.simulator.faults import Fault, Kind, parse_fault
from moodline.services.simulator.options import Codec, parse_size
from moodline.services.simulator.quirks import Quirk
from moodline.shared.errors import SettingsError

NUMBERED = {"loss", "clock", "clockstep", "flood", "slow"}


@pytest.mark.parametrize("kind", list(Kind))
def test_every_fault_reads_back(kind: Kind) -> None:
    text = f"{kind}:20" if kind in NUMBERED else "redirect:rtsp://127.0.0.1/x" if kind is Kind.REDIRECT else str(kind)
    assert parse_fault(text).kind is kind
    assert str(parse_fault(text)) == text


def test_numbers_are_taken() -> None:
    assert parse_fault("clock:+3600") == Fault(Kind.CLOCK, 3600.0, "+3600")
    assert parse_fault("clockstep:-600").number == -600


@pytest.mark.parametrize(
    "text", ["", "other", "loss", "loss:", "loss:x", "loss:101", "loss:nan", "silent:1", "redirect:", "redirect:a b"]
)
def test_what_is_no_fault_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_fault(text)


def test_every_fault_is_documented(repo: Path) -> None:
    page = (repo / "docs/simulator.md").read_text()
    faults, quirks = page.split("## Quirks")
    assert sorted(re.findall(r"^\| `([a-z]+)", faults, re.MULTILINE)) == sorted(Kind)
    assert sorted(re.findall(r"^\| `([a-z0-9]+)` \|", quirks, re.MULTILINE)) == sorted(Quirk)


def digest(authenticator: Authenticator, user: str, password: str, method: str) -> str:
    challenge = next(text for text in authenticator.challenges() if text.startswith("Digest"))
    realm, nonce = re.findall(r'"([^"]*)"', challenge)
    who = hashlib.md5(f"{user}:{realm}:{password}".encode()).hexdigest()
    what = hashlib.md5(f"{method}:rtsp://h/x".encode()).hexdigest()
    response = hashlib.md5(f"{who}:{nonce}:{what}".encode()).hexdigest()
    return f'Digest username="{user}", realm="{realm}", nonce="{nonce}", uri="rtsp://h/x", response="{response}"'


def test_who_knows_the_password_is_let_in() -> None:
    basic = base64.b64encode(b"viewer:right").decode()
    authenticator = Authenticator("viewer", "right")
    assert authenticator.admits("PLAY", digest(authenticator, "viewer", "right", "PLAY"))
    assert authenticator.admits("PLAY", f"Basic {basic}")
    assert not authenticator.admits("PLAY", None)
    assert not authenticator.admits("PLAY", "Basic x")
    assert not authenticator.admits("PLAY", digest(authenticator, "viewer", "wrong", "PLAY"))
    assert not authenticator.admits("SETUP", digest(authenticator, "viewer", "right", "PLAY")), "an answer holds for its method"
    assert not authenticator.admits("PLAY", digest(Authenticator("viewer", "right"), "viewer", "right", "PLAY")), (
        "and for its server"
    )
    assert Authenticator(None, None).admits("PLAY", None)


def test_only_the_ways_offered_are_taken() -> None:
    basic = f"Basic {base64.b64encode(b'viewer:right').decode()}"
    assert not Authenticator("viewer", "right", "digest").admits("PLAY", basic)
    authenticator = Authenticator("viewer", "right", "basic")
    assert authenticator.admits("PLAY", basic)
    assert [text.split()[0] for text in authenticator.challenges()] == ["Basic"]


@pytest.mark.parametrize("text", ["", "640", "640x361", "2x2", "99999x16", "640 x 360"])
def test_sizes_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_size(text)


def test_a_jpeg_has_whole_blocks() -> None:
    assert parse_size("644x360") == (644, 360)
    with pytest.raises(SettingsError, match="multiples of 8"):
        parse_size("644x360", Codec.MJPEG)
