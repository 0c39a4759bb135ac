"""ONVIF against a small camera over loopback: log-in, clock, choice of a stream, and answers that mean harm."""

import socket
import threading

import pytest
from typer.testing import CliRunner

from moodline.services.cli.app import app
from moodline.services.ingest.camera.input.egress import PolicyEgress
from moodline.services.ingest.camera.onvif import Device, Profile, best_profile, device_address, read_device
from moodline.services.ingest.camera.onvif_discovery import discover
from moodline.shared.errors import SourceError
from moodline.shared.net_policy import net_policy_of
from moodline.shared.streams import FailureReason
from tests.support.onvif_camera import ENVELOPE, FAULT, OnvifCamera

POLICY = net_policy_of("rtsp,http", True, "", "10.66.0.0/16")
EGRESS = PolicyEgress(POLICY)


def read(camera: OnvifCamera, password: str | None = "hunter2", egress: PolicyEgress = EGRESS) -> Device:
    user = None if password is None else camera.user
    return read_device(device_address(f"127.0.0.1:{camera.port}", user, password), egress, 5.0)


def refused(camera: OnvifCamera, password: str | None = "hunter2", egress: PolicyEgress = EGRESS) -> SourceError:
    with pytest.raises(SourceError) as caught:
        read(camera, password, egress)
    assert "hunter2" not in str(caught.value)
    return caught.value


@pytest.mark.parametrize("digest_over_http", [False, True])
@pytest.mark.parametrize("clock_off_s", [0.0, -86_400.0 * 365, 3_600.0])
def test_streams_of_a_camera_whatever_its_clock_says(clock_off_s: float, digest_over_http: bool) -> None:
    with OnvifCamera(clock_off_s=clock_off_s, digest_over_http=digest_over_http) as camera:
        device = read(camera)
    assert (device.maker, device.model, device.firmware) == ("Acme", "Dome 4K", "1.2")
    assert device.clock_off_s == pytest.approx(clock_off_s, abs=2.5)
    assert [(each.name, each.codec, each.width, each.height, each.fps) for each in device.profiles] == [
        ("Main", "H264", 3840, 2160, 25),
        ("Sub", "H264", 640, 360, 15),
        ("Tiny", "JPEG", 320, 180, 5),
    ]
    assert device.profiles[0].url == "rtsp://127.0.0.1/main?channel=1"
    assert best_profile(device.profiles) is device.profiles[1]


def test_the_smallest_stream_that_is_large_enough() -> None:
    def of(*sizes: tuple[int, int]) -> tuple[Profile, ...]:
        return tuple(Profile(str(size), "H264", *size, 25, "rtsp://cam/") for size in sizes)

    assert best_profile(of((3840, 2160), (1280, 720), (640, 360)), 720).name == "(1280, 720)"  # type: ignore[union-attr]
    assert best_profile(of((320, 180), (352, 288))).name == "(352, 288)"  # type: ignore[union-attr]
    assert best_profile(of((360, 640), (1080, 1920))).name == "(360, 640)"  # type: ignore[union-attr]
    assert best_profile(of((0, 0))).name == "(0, 0)"  # type: ignore[union-attr]
    assert best_profile(()) is None


@pytest.mark.parametrize("password", [None, "wrong"])
@pytest.mark.parametrize("digest_over_http", [False, True])
def test_a_log_in_that_is_refused(password: str | None, digest_over_http: bool) -> None:
    with OnvifCamera(digest_over_http=digest_over_http) as camera:
        assert refused(camera, password).reason is FailureReason.AUTH


def test_old_firmware_that_knows_capabilities_alone() -> None:
    capabilities = "<tt:Media><tt:XAddr>http://0.0.0.0/odd/media</tt:XAddr></tt:Media>"
    with OnvifCamera(media_path="/odd/media") as camera:
        camera.answers["GetServices"] = ENVELOPE.format(FAULT.format("ter:ActionNotSupported", "Optional Action Not Implemented"))
        camera.answers["GetCapabilities"] = ENVELOPE.format(capabilities)
        assert len(read(camera).profiles) == 3


def test_addresses_in_answers_lead_nowhere_else() -> None:
    with OnvifCamera(uri=lambda _, token: f"rtsp://169.254.169.254:8554/{token}?token=hunter2") as camera:
        profile = read(camera).profiles[0]
    assert profile.url == "rtsp://127.0.0.1:8554/main?token=***"
    assert profile.is_masked
    assert "another address" in profile.note


@pytest.mark.parametrize("uri", ["", "file:///etc/passwd", "rtsp://", "\x1b]0;x", "javascript:alert(1)", "device://0"])
def test_addresses_that_make_no_sense(uri: str) -> None:
    with OnvifCamera(uri=lambda *_: uri.replace("\x1b", "&#27;")) as camera:
        assert {(each.url, bool(each.note)) for each in read(camera).profiles} == {("", True)}


BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">' + "".join(
    f'<!ENTITY {chr(98 + n)} "{f"&{chr(97 + n)};" * 10}">' for n in range(12)
)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"no xml",
        b"\x00" * 100,
        f"{BOMB}]><s>&m;</s>".encode(),
        b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]><x>&e;</x>',
        b"<a>" * 100_000,
        ENVELOPE.format("<x/>").encode(),
        ENVELOPE.format('<p><Profiles token="a"><VideoEncoderConfiguration><RateControl><FrameRateLimit>1e999</FrameRateLimit>'
                        "</RateControl></VideoEncoderConfiguration></Profiles></p>").encode(),
    ],
)  # fmt: skip
def test_answers_that_mean_harm_are_refused(answer: bytes) -> None:
    with OnvifCamera() as camera:
        camera.answers["GetProfiles"] = answer
        assert refused(camera).reason in (FailureReason.CORRUPT, FailureReason.NO_VIDEO)


def test_an_answer_that_is_too_large() -> None:
    with OnvifCamera() as camera:
        camera.answers["GetProfiles"] = b" " * 3_000_000
        assert refused(camera).reason is FailureReason.TOO_LARGE


def test_absurd_numbers_and_texts_are_not_believed() -> None:
    with OnvifCamera() as camera:
        camera.profiles = [
            {"token": "t", "name": "&#x202e;\u009bX" * 90, "codec": "H264", "width": 10**9, "height": -4, "fps": 0}
        ]
        (profile,) = read(camera).profiles
    assert (profile.width, profile.height, profile.fps) == (0, 0, None)
    assert len(profile.name) == 64
    assert profile.name.isprintable()


def test_a_thousand_profiles_are_not_all_asked_for() -> None:
    with OnvifCamera() as camera:
        camera.profiles *= 100
        assert len(read(camera).profiles) == 32


def test_the_address_policy_holds() -> None:
    with OnvifCamera() as camera:
        strict = PolicyEgress(net_policy_of("http", False, "", ""))
        assert refused(camera, egress=strict).reason is FailureReason.FORBIDDEN_URL
        assert camera.asked == []


# Commands


def test_profiles_by_command() -> None:
    with OnvifCamera(clock_off_s=-600) as camera:
        command = ["camera", "profiles", f"127.0.0.1:{camera.port}", "--user", "viewer", "--password-stdin"]
        result = CliRunner().invoke(app, command, input="hunter2\n")
    assert result.exit_code == 0, result.output
    assert "Acme Dome 4K" in result.output
    assert "clock is -60" in result.output
    assert "* Sub                  H264 640x360 15 frames/s\n    rtsp://127.0.0.1/sub?channel=1" in result.output
    assert "hunter2" not in result.output


MATCH = (
    '<e:Envelope xmlns:e="http://www.w3.org/2003/05/soap-envelope" xmlns:d="http://schemas.xmlsoap.org/ws/2005/04/discovery">'
    "<e:Body><d:ProbeMatches>{}</d:ProbeMatches></e:Body></e:Envelope>"
)
ONE = (
    "<d:ProbeMatch><d:Scopes>onvif://www.onvif.org/name/Dome onvif://www.onvif.org/hardware/D4K</d:Scopes>"
    "<d:XAddrs>{}</d:XAddrs></d:ProbeMatch>"
)


@pytest.mark.parametrize(
    ("addresses", "service", "note"),
    [
        ("http://192.0.2.7/onvif/device_service", "http://192.0.2.7/onvif/device_service", ""),
        ("http://169.254.3.4/x http://192.0.2.7/x", "http://192.0.2.7/x", ""),
        ("http://10.66.1.1/x", "", "DENY"),
        ("http://169.254.169.254/x", "", "link-local"),
        ("http://u:hunter2@192.0.2.7/x", "http://192.0.2.7/x", ""),
    ],
)
def test_what_answers_a_probe_is_judged(addresses: str, service: str, note: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as camera:
        camera.bind(("127.0.0.1", 0))
        answers = [MATCH.format(ONE.format(addresses)), f"{BOMB}]><s>&m;</s>", "\x00", MATCH.format(ONE.format("file:///x"))]

        def answer() -> None:
            asked, sender = camera.recvfrom(65_535)
            assert b"NetworkVideoTransmitter" in asked
            for each in answers:
                camera.sendto(each.encode(), sender)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        found = discover(POLICY, 0.5, host="127.0.0.1", port=camera.getsockname()[1])
        thread.join(5)
    assert len(found) == 1
    assert (found[0].name, found[0].hardware, found[0].service) == ("Dome", "D4K", service)
    assert note in found[0].note
    assert bool(found[0].note) is bool(note)


def test_nobody_answers() -> None:
    result = CliRunner().invoke(app, ["camera", "discover", "127.0.0.1", "--seconds", "0.1"])
    assert result.exit_code == 1
    assert "no camera answers" in result.output
