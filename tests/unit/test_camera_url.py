"""What of a camera's URL may be shown, what is secret, and that nothing gets lost between the two."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.shared.camera import CameraAddress
from moodline.shared.camera_url import (
    URL_LIMIT,
    CameraSecret,
    RegisteredUrl,
    camera_address,
    corrected_url,
    endpoint_of,
    register_url,
)
from moodline.shared.errors import InvalidStreamError
from moodline.shared.messages import StreamClass
from moodline.shared.streams import StreamSpec, Transport


def address_of(registered: RegisteredUrl) -> CameraAddress:
    return camera_address(StreamSpec(stream_id="yard", url=registered.url, lane=StreamClass.LIVE), registered.secret)


def refused(url: str, **fields: str) -> InvalidStreamError:
    with pytest.raises(InvalidStreamError) as caught:
        register_url(url, **fields)
    return caught.value


@pytest.mark.parametrize(
    ("given_url", "shown"),
    [
        ("rtsp://cam/live", "rtsp://cam/live"),
        ("RTSP://CAM.Example:554/Live/CH1", "rtsp://cam.example/Live/CH1"),
        ("rtsps://cam:322", "rtsps://cam/"),
        ("rtsp://cam:322/", "rtsp://cam:322/"),
        ("http://cam:80/mjpg?resolution=640x480&fps=5", "http://cam/mjpg?resolution=640x480&fps=5"),
        ("https://cam:443?channel=1", "https://cam/?channel=1"),
        ("rtsp://[::1]:554", "rtsp://[::1]/"),
        ("rtsp://[2001:DB8:0::1]:8554/a", "rtsp://[2001:db8::1]:8554/a"),
        ("rtsp://my_cam.lan./x", "rtsp://my_cam.lan./x"),
        ("rtsp://bücher.example/x", "rtsp://xn--bcher-kva.example/x"),
        ("rtsp://0x7f.1/x", "rtsp://0x7f.1/x"),
        ("rtsp://2130706433/x", "rtsp://2130706433/x"),
        ("device://0", "device://0"),
        ("DEVICE://007", "device://7"),
        ("device:///dev/video0", "device:///dev/video0"),
        ("rtsp://cam/straße", "rtsp://cam/straße"),
        ("rtsp://@cam/x", "rtsp://cam/x"),
    ],
)
def test_urls_without_secrets(given_url: str, shown: str) -> None:
    registered = register_url(given_url)
    assert registered == RegisteredUrl(shown, None)
    assert register_url(shown) == registered


@pytest.mark.parametrize(
    ("userinfo", "username", "password"),
    [
        ("user%40corp:pw", "user@corp", "pw"),
        ("jo.hn:p:w", "jo.hn", "p:w"),
        ("token", "token", None),
        ("user:", "user", ""),
        (":pw", "", "pw"),
        ("user:p%23w", "user", "p#w"),
        ("user:p@ss", "user", "p@ss"),
        ("user:p%2Fw%3F", "user", "p/w?"),
        ("jürgen:пароль", "jürgen", "пароль"),
        ("user:100%", "user", "100%"),
    ],
)
def test_user_and_password(userinfo: str, username: str, password: str | None) -> None:
    registered = register_url(f"rtsp://{userinfo}@cam/live")
    assert registered.url == "rtsp://cam/live"
    address = address_of(registered)
    assert (address.username, address.password, address.host, address.target) == (username, password, "cam", "/live")


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/a?token=hunter2", "/a?token=***"),
        ("/a?channel=1&pwd=hunter2&subtype=0", "/a?channel=1&pwd=***&subtype=0"),
        ("/a?hunter2", "/a?***"),
        ("/a?hunter2==", "/a?***"),
        ("/a?hunter+2=x", "/a?***"),
        ("/a?channel=1;token=hunter2", "/a?channel=***"),
        ("/a?channel=much-longer-than-a-channel", "/a?channel=***"),
        ("?token=hunter2", "/?token=***"),
        ("/user=admin_password=hunter2_channel=1.sdp", "/user=***"),
        ("/x/TOKEN%3Dhunter2/y?channel=1", "/x/TOKEN%3D***?channel=1"),
    ],
)
def test_secrets_in_path_and_query_are_masked_but_kept(target: str, shown: str) -> None:
    registered = register_url(f"rtsp://cam{target}")
    assert registered.url == f"rtsp://cam{shown}"
    assert address_of(registered).target == (target if target.startswith("/") else f"/{target}")


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("rtsp://user:hun#ter2@cam/x", "percent-encode"),
        ("rtsp://user:hun/ter2@cam/x", "percent-encode"),
        ("rtsp://user:hun?ter2@cam/x", "percent-encode"),
        ("rtsp://cam/x#hunter2", "%23"),
        ("rtsp://user:hunter2%00@cam/x", "control"),
        ("rtsp://user:hunter2%0d%0aX@cam/x", "control"),
        ("rtsp://user:hunter2%ff@cam/x", "UTF-8"),
        ("rtsp://user:hunter2\r\n@cam/x", "printed"),
        ("rtsp://user:hunter2 @cam/x", "space"),
        ("rtsp://user:hunter2\ud800@cam/x", "printed"),
        ("rtsp://user:hunter2@cam\\x", "backslash"),
        ("rtsp://user:hunter2@[fe80::1%25eth0]/x", "zone"),
        ("rtsp://user:hunter2@[fe80::1%eth0]/x", "zone"),
        ("rtsp://user:hunter2@[::1/x", "closed"),
        ("rtsp://user:hunter2@[::1]x/x", "closed"),
        ("rtsp://user:hunter2@[hunter2]/x", "IPv6"),
        ("rtsp://user:hunter2@::1/x", "brackets"),
        ("rtsp://user:hunter2@cam:0/x", "1 to 65535"),
        ("rtsp://user:hunter2@cam:65536/x", "1 to 65535"),
        ("rtsp://user:hunter2@cam:/x", "1 to 65535"),
        ("rtsp://user:hunter2", "1 to 65535"),
        ("rtsp://user:hunter2@cam:٣/x", "1 to 65535"),
        ("rtsp://user:hunter2@/x", "no host"),
        ("rtsp:///hunter2", "no host"),
        ("rtsp://user:hunter2@cam%2e/x", "neither"),
        ("rtsp://user:hunter2@ca..m/x", "neither"),
        ("rtsp://user:hunter2@ca\u2100m/x", "neither"),
        ("rtsp:/hunter2", "looks like"),
        ("rtsp:hunter2", "looks like"),
        ("concat:rtsp://hunter2", "looks like"),
        ("subfile:,,start,0,end,0,,:/hunter2", "looks like"),
        ("rtsp+http://user:hunter2@cam/", "looks like"),
        ("file:///hunter2", "looks like"),
        ("//user:hunter2@cam/", "looks like"),
        ("device://user:hunter2@0", "device"),
        ("device:///etc/hunter2", "device"),
        ("device:///dev/../hunter2", "device"),
        ("rtsp://cam/a?token=***", "masked"),
        ("rtsp://cam/user=***", "masked"),
        ("rtsp://cam/hunter2" + "x" * URL_LIMIT, "characters"),
        ("", "characters"),
    ],
)
def test_what_is_refused_is_never_repeated(url: str, hint: str) -> None:
    error = refused(url)
    assert error.field == "url"
    assert hint in str(error)
    assert "hunter2" not in str(error)


def test_credentials_as_fields_are_taken_as_they_are() -> None:
    address = address_of(register_url("rtsp://cam/x", username="us%40er", password="p/w@#:"))
    assert (address.username, address.password) == ("us%40er", "p/w@#:")


def test_an_empty_user_name_means_none() -> None:
    assert register_url("rtsp://cam/x", username="").secret is None
    assert register_url("rtsp://cam/x", username="", password="pw").secret == CameraSecret(username="", password="pw")


@pytest.mark.parametrize(
    ("url", "fields", "field"),
    [
        ("rtsp://user:hunter2@cam/", {"username": "hunter2"}, "url"),
        ("rtsp://cam/", {"password": "hunter2"}, "username"),
        ("rtsp://cam/", {"username": "hunter2\n"}, "username"),
        ("rtsp://cam/", {"username": "user", "password": "hunter2\0"}, "password"),
        ("rtsp://cam/", {"username": "user", "password": "hunter2" * 200}, "password"),
        ("device://0", {"username": "hunter2"}, "url"),
    ],
)
def test_fields_that_are_refused(url: str, fields: dict[str, str], field: str) -> None:
    error = refused(url, **fields)
    assert error.field == field
    assert "hunter2" not in str(error)


def test_an_address_has_the_streams_transport_and_a_target_fit_for_the_wire() -> None:
    spec = StreamSpec(stream_id="yard", url='rtsps://cam/ä"b%20c', transport=Transport.UDP, tls_verify=False)
    assert camera_address(spec, None) == CameraAddress(
        "rtsps", "cam", 322, "/%C3%A4%22b%20c", transport=Transport.UDP, tls_verify=False
    )
    assert camera_address(StreamSpec(stream_id="yard", url="device:///dev/video1"), None) == CameraAddress(
        "device", "/dev/video1", 0
    )


def test_a_masked_url_without_its_secret_is_refused() -> None:
    registered = register_url("rtsp://cam/x?token=hunter2")
    with pytest.raises(InvalidStreamError, match="missing"):
        address_of(RegisteredUrl(registered.url, None))


def test_endpoints() -> None:
    assert endpoint_of("rtsp://CAM/x") == endpoint_of("rtsp://u:p@cam:554/y") == ("rtsp", "cam", 554)
    assert endpoint_of("rtsps://cam/x") != endpoint_of("rtsp://cam:322/x")


CANARY = "cAnArY9"
# Control characters are refused in credentials; the canary shows where any of the rest ends up.
WORD = st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]), max_size=20).map(lambda text: f"{CANARY}{text}")


@given(user=WORD, password=st.none() | WORD, token=st.none() | WORD)
def test_secrets_are_shown_nowhere_and_come_back_whole(user: str, password: str | None, token: str | None) -> None:
    userinfo = quote(user, safe="") + ("" if password is None else ":" + quote(password, safe=""))
    query = "" if token is None else f"?channel=1&token={quote(token, safe='')}"
    registered = register_url(f"rtsp://{userinfo}@cam:8554/live{query}")
    address = address_of(registered)
    assert CANARY not in repr(registered) + str(registered.secret) + repr(address) + registered.url
    assert (address.username, address.password, address.target) == (user, password, f"/live{query}")


@given(
    before=st.text(max_size=8), after=st.text(max_size=8), place=st.sampled_from(["user:{}@cam/x", "{}@cam", "cam/x?t={}", "{}"])
)
def test_a_secret_that_is_not_encoded_is_refused_or_hidden(before: str, after: str, place: str) -> None:
    url = "rtsp://" + place.format(f"{before}{CANARY}{after}")
    try:
        registered = register_url(url)
    except InvalidStreamError as error:
        said = str(error)
    else:
        # Without an @, what was given is a host or a path, which are shown in any case.
        said = registered.url + repr(registered) if "@" in url or "?t=" in url else ""
    assert CANARY.lower() not in said.lower()


@given(st.text(max_size=60))
def test_anything_at_all_is_taken_or_refused(text: str) -> None:
    for url in (text, f"rtsp://{text}", f"http://user:pw@{text}/x"):
        try:
            registered = register_url(url)
        except InvalidStreamError:
            continue
        assert address_of(registered).scheme in ("rtsp", "http", "https", "rtsps", "device")


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ("rtsp://rtsp://cam.example/live", "rtsp://cam.example/live"),
        ("http://rtsp://cam.example/live", "rtsp://cam.example/live"),
        ("RTSP://RTSP://cam.example/live", "rtsp://cam.example/live"),
        ("rtsp:/cam.example/live", "rtsp://cam.example/live"),
        ("rtsp:///cam.example/live", "rtsp://cam.example/live"),
        ("rtsp;//cam.example/live", "rtsp://cam.example/live"),
        (' "rtsp://cam.example/live?channel=1&amp;subtype=0"\n', "rtsp://cam.example/live?channel=1&subtype=0"),
        ("<rtsp://cam.example/live>", "rtsp://cam.example/live"),
        ("192.0.2.7:8554/live", "rtsp://192.0.2.7:8554/live"),
        ("192.0.2.7", "rtsp://192.0.2.7/"),
        ("192.0.2.7?channel=1", "rtsp://192.0.2.7/?channel=1"),
        ("viewer:hunter2@192.0.2.7:554/live", "rtsp://192.0.2.7/live"),
        ("cam.example:8554/live", "rtsp://cam.example:8554/live"),
        ("rtsp:\\\\cam.example/live", "rtsp://cam.example/live"),
        ("rtsp//cam.example/live", "rtsp://cam.example/live"),
        ("rtsp:cam.example/live", "rtsp://cam.example/live"),
        ("rstp://cam.example/live", "rtsp://cam.example/live"),
        ("rtspt://cam.example/live", "rtsp://cam.example/live"),
        ("rtspx://cam.example:7441/x", "rtsps://cam.example:7441/x"),
        ("rtsp://cam.example/live#backchannel=0#media=video", "rtsp://cam.example/live"),
        ("ffmpeg:rtsp://cam.example/live#video=copy", "rtsp://cam.example/live"),
        ("ffmpeg -i rtsp://cam.example/live", "rtsp://cam.example/live"),
        ("url=http://cam.example/video.mjpg", "http://cam.example/video.mjpg"),
        ("rtsp://rtsp://rtsp://cam.example/live", "rtsp://cam.example/live"),
        ("rtsp://viewer:hunter2@rtsp://cam.example/live", "rtsp://cam.example/live"),
        ("rtsp:// cam.example/live", "rtsp://cam.example/live"),
        ("rtsp://cam.example\\live", "rtsp://cam.example/live"),
        ("rtsp://cam.example/\u200blive", "rtsp://cam.example/live"),
    ],
)
def test_what_people_paste_is_corrected_and_said(given: str, url: str) -> None:
    registered = register_url(given)
    assert registered.url == url
    assert registered.hint.startswith("the url was corrected: ")


@pytest.mark.parametrize("given", ["rtsp://cam.example/live", "rtsp://cam.example/proxy/rtsp://inner", "http://cam.example/?u=a"])
def test_what_is_right_is_left_alone(given: str) -> None:
    assert corrected_url(given) == (given, "")
