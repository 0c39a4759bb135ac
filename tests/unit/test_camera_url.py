"""Camera URLs: what is secret is split off, whatever its form; the rest is canonical, and together they are what was given."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.camera_url import HARMLESS_KEYS, CameraSecret, camera_address, register_url, same_host
from shared.errors import InvalidStreamError
from shared.messages import Lane
from shared.streams import StreamSpec, Transport

CANARY = "c4n4ry"


def spec(url: str, **fields: object) -> StreamSpec:
    return StreamSpec(stream_id="cam", url=url, lane=Lane.LIVE, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("given_url", "shown"),
    [
        ("rtsp://cam/1", "rtsp://cam/1"),
        ("RTSP://Cam.Example:554/Live", "rtsp://cam.example/Live"),
        ("rtsps://cam:322", "rtsps://cam/"),
        ("rtsp://cam:8554/a/b", "rtsp://cam:8554/a/b"),
        ("rtsp://[::1]:8554/a", "rtsp://[::1]:8554/a"),
        ("http://cam/v.mjpeg?width=640&channel=2", "http://cam/v.mjpeg?width=640&channel=2"),
        ("http://cam?token=abc", "http://cam/?token=***"),
        ("http://cam/?abc", "http://cam/?***"),
        ("http://cam/?channel=1&user=u&password=p&subtype=0", "http://cam/?channel=1&user=***&password=***&subtype=0"),
        ("http://cam/?channel=not-so-harmless-a-value", "http://cam/?channel=***"),
        ("http://cam/?dG9rZW4rdG9rZW4vdG9rZW4x=", "http://cam/?***=***"),
        ("rtsp://u:p@cam/1", "rtsp://cam/1"),
        ("rtsp://caf\u00e9.example/1", "rtsp://xn--caf-dma.example/1"),
        ("device://0", "device://0"),
        ("device:///dev/video0", "device:///dev/video0"),
    ],
)
def test_what_is_shown_is_canonical_and_holds_no_secret(given_url: str, shown: str) -> None:
    assert register_url(given_url).url == shown
    assert register_url(shown).url == shown, "canonical"


@pytest.mark.parametrize(
    ("userinfo", "username", "password"),
    [
        ("user:pw", "user", "pw"),
        ("user%40corp:pw", "user@corp", "pw"),
        ("jo.hn:p:w", "jo.hn", "p:w"),
        ("token", "token", None),
        ("user:", "user", ""),
        (":pw", "", "pw"),
        ("user:p%23w%2F%3F%40", "user", "p#w/?@"),
        ("user:p@ss", "user", "p@ss"),
        ("us%20er:p%C3%A4ss", "us er", "p\u00e4ss"),
    ],
)
def test_odd_credentials_come_out_as_they_were_meant(userinfo: str, username: str, password: str | None) -> None:
    registered = register_url(f"rtsp://{userinfo}@cam.test:8554/1")
    assert registered.url == "rtsp://cam.test:8554/1"
    address = camera_address(spec(registered.url, transport=Transport.UDP, tls_verify=False), registered.secret)
    assert (address.username, address.password) == (username, password)
    assert (address.host, address.port, address.target) == ("cam.test", 8554, "/1")
    assert (address.transport, address.tls_verify) == (Transport.UDP, False)


@pytest.mark.parametrize(
    "bad",
    [
        f"rtsp://user:{CANARY}#w@cam/1",
        f"rtsp://user:{CANARY}?w@cam/1",
        f"rtsp://user:{CANARY}/w@cam/1",
        f"rtsp://cam/1#{CANARY}",
        f"rtsp://cam/{CANARY}@x",
        f"rtsp://user:{CANARY}@/1",
        f"rtsp://user:{CANARY}@",
        f"rtsp://user:{CANARY}%00@cam",
        f"rtsp://user:{CANARY}%0d%0a@cam",
        f"rtsp://user:{CANARY}%ff@cam",
        f"rtsp://user:{CANARY}@cam/\r\nx",
        f"rtsp://user:{CANARY}@ca m/",
        f"rtsp://user:{CANARY}@cam\\x/",
        f"rtsp://user:{CANARY}@cam:0/",
        f"rtsp://user:{CANARY}@cam:65536/",
        f"rtsp://user:{CANARY}@cam:abc/",
        f"rtsp://user:{CANARY}@cam:/",
        f"rtsp://user:{CANARY}@[::1/",
        f"rtsp://user:{CANARY}@[fe80::1%25eth0]/",
        f"rtsp://user:{CANARY}@a..b/",
        f"rtsp://user:{CANARY}@-/",
        f"rtsp:/{CANARY}",
        f"rtsp:{CANARY}@cam",
        f"rtsp+http://{CANARY}@cam/",
        f"concat:rtsp://{CANARY}@cam/",
        f"subfile,,start,0,end,0,,:rtsp://{CANARY}@cam/",
        f"ftp://{CANARY}@cam/",
        f"device://{CANARY}",
        f"device:///etc/{CANARY}",
        f"device:///dev/../etc/{CANARY}",
        "device://64",
        f"rtsp://{CANARY}@cam/" + "x" * 2048,
        "",
    ],
)
def test_what_cannot_be_meant_is_refused_without_repeating_it(bad: str) -> None:
    with pytest.raises(InvalidStreamError) as refused:
        register_url(bad)
    assert refused.value.field == "url"
    assert CANARY not in str(refused.value)
    assert len(str(refused.value)) > 20


def test_credentials_beside_the_url() -> None:
    registered = register_url("rtsp://cam/1", username="u", password="p@/#?")
    assert registered.secret == CameraSecret("u", "p@/#?")
    with pytest.raises(InvalidStreamError):
        register_url("rtsp://u:p@cam/1", username="u")
    with pytest.raises(InvalidStreamError):
        register_url("device://0", username="u")


def test_a_masked_url_without_its_secret_is_refused() -> None:
    registered = register_url("http://cam/?token=abc")
    with pytest.raises(InvalidStreamError):
        camera_address(spec(registered.url), None)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("rtsp://cam/1", "rtsp://cam/2?token=***", True),
        ("rtsp://cam/1", "rtsp://cam:8554/1", False),
        ("rtsp://cam/1", "rtsps://cam/1", False),
        ("rtsp://cam/1", "rtsp://cam.evil/1", False),
        ("device://0", "device://0", False),
    ],
)
def test_same_host(one: str, other: str, same: bool) -> None:
    assert same_host(one, other) is same


secrets = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\ufffd"), max_size=30)


@given(user=secrets, password=secrets, token=secrets, key=st.sampled_from(["token", "pw", "auth", "x"]))
def test_whatever_the_secrets_are_they_come_back_and_are_not_shown(user: str, password: str, token: str, key: str) -> None:
    user, password, token = (f"{CANARY}{part}" for part in (user, password, token))
    userinfo = f"{quote(user, safe='')}:{quote(password, safe='')}"
    registered = register_url(f"rtsp://{userinfo}@cam.test/live?channel=1&{key}={quote(token, safe='')}")
    assert registered.url == f"rtsp://cam.test/live?channel=1&{key}=***"
    assert CANARY not in repr(registered) + str(registered.secret)
    address = camera_address(spec(registered.url), registered.secret)
    assert CANARY not in repr(address)
    assert (address.username, address.password) == (user, password)
    assert address.target == f"/live?channel=1&{key}={quote(token, safe='')}"


@given(st.text(max_size=60), st.sampled_from(["rtsp://", "http://", "", "device://"]))
def test_no_text_breaks_it(text: str, scheme: str) -> None:
    try:
        registered = register_url(f"{scheme}{text}")
    except InvalidStreamError:
        return
    assert register_url(registered.url).url == registered.url


def test_keys_whose_values_are_shown_are_no_credentials() -> None:
    assert not {"user", "username", "usr", "password", "pwd", "pass", "token", "auth", "key", "sig"} & HARMLESS_KEYS
