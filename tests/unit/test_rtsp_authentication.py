import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.services.ingest.camera.input.authentication import Login, best_challenge


def _fields(header: str) -> dict[str, str]:
    return {key: quoted or plain for key, quoted, plain in re.findall(r'(\w+)=(?:"([^"]*)"|([^,\s]*))', header)}


def _answer(challenge: str, username: str = "user", password: str = "pass") -> str:
    login = Login(username, password)
    found = best_challenge([challenge])
    assert found is not None
    login.accept(found)
    return login.header("DESCRIBE", "rtsp://h/p") or ""


def test_basic() -> None:
    assert _answer('Basic realm="x"', "Aladdin", "open sesame") == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="


def test_digest_without_qop_is_that_of_rfc_2617() -> None:
    header = _answer('Digest realm="r", nonce="n"')
    first = hashlib.md5(b"user:r:pass").hexdigest()
    second = hashlib.md5(b"DESCRIBE:rtsp://h/p").hexdigest()
    fields = _fields(header)
    assert fields["response"] == hashlib.md5(f"{first}:n:{second}".encode()).hexdigest()
    assert "qop" not in fields
    assert "algorithm" not in fields


@pytest.mark.parametrize(("name", "make_hash"), [("MD5", hashlib.md5), ("MD5-sess", hashlib.md5), ("SHA-256", hashlib.sha256)])
def test_digest_with_qop(name: str, make_hash) -> None:  # type: ignore[no-untyped-def]
    header = _answer(f'Digest realm="r", nonce="n", qop="auth-int,auth", opaque="o", algorithm={name}')
    fields = _fields(header)
    hashed = lambda text: make_hash(text.encode()).hexdigest()  # noqa: E731
    first = hashed("user:r:pass")
    if name.endswith("sess"):
        first = hashed(f"{first}:n:{fields['cnonce']}")
    expected = hashed(f"{first}:n:00000001:{fields['cnonce']}:auth:{hashed('DESCRIBE:rtsp://h/p')}")
    assert (fields["response"], fields["nc"], fields["opaque"], fields["algorithm"]) == (expected, "00000001", "o", name)


def test_the_count_rises_with_every_request() -> None:
    login = Login("user", "pass")
    found = best_challenge(['Digest realm="r", nonce="n", qop="auth"'])
    assert found is not None
    login.accept(found)
    counts = [_fields(login.header("OPTIONS", "rtsp://h") or "")["nc"] for _ in range(2)]
    assert counts == ["00000001", "00000002"]


def test_the_strongest_that_can_be_answered_is_taken() -> None:
    headers = ['Basic realm="a, Digest b", Digest realm="r", nonce="n"', 'Digest realm="r", nonce="m", algorithm=SHA-256']
    best = best_challenge(headers)
    assert best is not None
    assert (best.algorithm, best.nonce) == ("SHA-256", "m")
    assert best_challenge(['Digest realm="r", nonce="n", algorithm=SHA-512', "Bearer x"]) is None
    plain = best_challenge(['Digest realm="r", nonce="n", qop="auth-int"'])
    assert plain is not None
    assert not plain.auth


def test_a_login_shows_nothing() -> None:
    assert "canary" not in repr(Login("canary1", "canary2"))


@given(st.text(max_size=200), st.text(max_size=20), st.text(max_size=20))
def test_no_challenge_and_no_name_break_a_line(text: str, username: str, password: str) -> None:
    for header in (text, f"Digest {text}", f'Digest realm="{text}", nonce="{text}"', f"Basic {text}"):
        challenge = best_challenge([header])
        if challenge is not None:
            login = Login(username, password)
            login.accept(challenge)
            sent = login.header("OPTIONS", "rtsp://h") or ""
            assert "\r" not in sent
            assert "\n" not in sent


def test_what_stands_in_a_realm_names_no_scheme() -> None:
    found = best_challenge(['Digest realm="Yard, Digest of 1, Basic", nonce="n"', 'Basic realm="x, Digest y"'])
    assert found is not None
    assert (found.algorithm, found.realm, found.nonce) == ("MD5", "Yard, Digest of 1, Basic", "n")
