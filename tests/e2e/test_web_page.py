"""The web page as people use it: a real Chromium on the real embedded service."""

import base64
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from moodline.services.simulator import CameraSimulator
from moodline.shared.streams import StreamState
from tests.support.browser import Visitor, make_capture, open_browser, visit
from tests.support.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SAMPLE = "synthetic://astronaut?seconds=30&fps=25&faces=2&seed=1"
NOON = "2026-05-01T12:00:00Z"
CLIP = "man-expressions.mp4"
SHORT_CLIP = "classroom.mp4"
SOON_MS = 20_000


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("page")
    media = folder / "media"
    media.mkdir()
    shutil.copy(clips / CLIP, media / CLIP)
    with Service(folder, MOODLINE_INGEST_MEDIA_ROOT=str(media)) as service:
        yield service


@pytest.fixture
def service(running: Service) -> Iterator[Service]:
    """The service without streams; those of the test are removed after it."""
    yield running
    for stream in list(running.client.list_streams()):
        running.client.delete_stream(stream.id)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory, clips: Path) -> Iterator[Browser]:
    with open_browser(make_capture(clips / CLIP, tmp_path_factory.mktemp("camera") / "camera.mjpeg")) as browser:
        yield browser


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Visitor]:
    """A tab; whatever the test does, nothing may be asked of another host, and no script may fail."""
    with visit(browser) as visitor:
        yield visitor
        assert visitor.foreign() == []
        assert visitor.complaints == []


@pytest.fixture(scope="module")
def camera(clips: Path) -> Iterator[CameraSimulator]:
    with CameraSimulator([clips / CLIP], paths=1, size="640x360", fps=15) as simulator:
        yield simulator


def card(page: Page, stream_id: str) -> Locator:
    return page.get_by_role("article", name=stream_id, exact=True)


def dialog(page: Page) -> Locator:
    return page.get_by_role("dialog")


def points_text(page: Page) -> Locator:
    return page.get_by_text(re.compile(r"^[\d,]+ points? of "))


def wait_for_points(page: Page, count: int) -> None:
    expect(points_text(page)).to_be_visible(timeout=SOON_MS)
    page.wait_for_function(
        "count => Number(document.querySelector('main').innerText.match(/([\\d,]+) points? of/)[1]) >= count",
        arg=count,
        timeout=30_000,
    )


def play_sample(service: Service, stream_id: str = "sample") -> None:
    service.add(stream_id, SAMPLE, recorded_at=NOON)
    service.wait_for_state(stream_id, StreamState.ENDED)


def test_an_empty_service_invites(service: Service, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(service.url)
    for way in ("Add a camera", "Try the sample", "Use my webcam", "Drop a file"):
        expect(page.get_by_role("button", name=way)).to_be_visible()
    expect(page.get_by_role("button", name="Add stream")).to_be_hidden()
    visitor.picture("empty")
    page.get_by_role("button", name="Try the sample").click()
    page.wait_for_url("**/streams/sample")
    expect(page.get_by_role("status").filter(has_text="complete")).to_be_visible(timeout=60_000)
    expect(page.get_by_label("Totals")).to_contain_text("happy")


def test_a_camera_is_added_seen_live_paused_changed_and_deleted(
    service: Service, visitor: Visitor, camera: CameraSimulator
) -> None:
    page = visitor.page
    page.goto(service.url)
    page.get_by_role("button", name="Add a camera").click()
    dialog(page).get_by_label("Name", exact=True).fill("Lobby!")
    dialog(page).get_by_role("button", name="Add").click()
    expect(dialog(page)).to_contain_text("letters, digits")
    expect(dialog(page)).to_contain_text("this is required")
    dialog(page).get_by_label("Name", exact=True).fill("lobby")
    dialog(page).get_by_label("Address").fill("gopher://somewhere")
    dialog(page).get_by_role("button", name="Add").click()
    expect(dialog(page)).to_contain_text("scheme that is not supported")
    dialog(page).get_by_label("Address").fill(camera.url("cam0"))
    dialog(page).get_by_role("button", name="Add").click()
    expect(dialog(page)).to_be_hidden()

    lobby = card(page, "lobby")
    expect(lobby.locator(".chip")).to_have_text("live", timeout=SOON_MS)
    expect(lobby).to_contain_text(re.compile(r"last frame\d\.\d s ago"))
    expect(lobby.locator("svg path").first).to_be_attached(timeout=SOON_MS)
    mood = lobby.get_by_role("img")
    expect(mood).to_have_attribute("aria-label", re.compile("mood: "))

    lobby.get_by_role("button", name="Change lobby").click()
    dialog(page).get_by_text("More").click()
    dialog(page).get_by_label("Labels").fill("site=berlin")
    dialog(page).get_by_role("button", name="Save").click()
    expect(dialog(page)).to_be_hidden()
    assert service.client.get_stream("lobby").labels == {"site": "berlin"}

    lobby.get_by_role("button", name="Pause lobby").click()
    expect(lobby.locator(".chip")).to_have_text("paused")
    lobby.get_by_role("button", name="Resume lobby").click()
    expect(lobby.locator(".chip")).to_have_text("live", timeout=SOON_MS)

    lobby.get_by_role("button", name="Delete lobby").click()
    dialog(page).get_by_role("button", name="Keep it").click()
    expect(lobby).to_be_visible()
    lobby.get_by_role("button", name="Delete lobby").click()
    dialog(page).get_by_role("button", name="Delete", exact=True).click()
    expect(lobby).to_have_count(0)
    assert list(service.client.list_streams()) == []


def test_a_camera_is_tried_before_it_is_added(service: Service, visitor: Visitor, camera: CameraSimulator) -> None:
    page = visitor.page
    page.goto(service.url)
    page.get_by_role("button", name="Add a camera").click()
    test, steps = dialog(page).get_by_role("button", name="Test the camera"), dialog(page).get_by_role("status")
    test.click()
    expect(dialog(page)).to_contain_text("url is required")
    dialog(page).get_by_label("Address").fill("rtsp://viewer:hunter2@127.0.0.1:9/none")
    test.click()
    expect(steps).to_contain_text("nothing listens at the camera's address and port", timeout=SOON_MS)
    expect(steps).to_contain_text("check address and port")
    expect(steps).not_to_contain_text("hunter2")
    dialog(page).get_by_label("Address").fill(f"rtsp://{camera.url('cam0')}")
    test.click()
    expect(steps).to_contain_text("This camera works.", timeout=SOON_MS)
    expect(steps).to_contain_text("its scheme was there twice")
    expect(steps).to_contain_text("first keyframe: h264, 640x360")
    visitor.picture("tested")
    assert list(service.client.list_streams()) == []
    dialog(page).get_by_label("Name", exact=True).fill("lobby")
    dialog(page).get_by_role("button", name="Add").click()
    expect(page.locator(".q-notification").get_by_text("the url was corrected")).to_be_visible()
    assert service.client.get_stream("lobby").url == camera.url("cam0")


def test_a_live_timeline_grows_without_reload(service: Service, visitor: Visitor, camera: CameraSimulator) -> None:
    service.add("lobby", camera.url("cam0"))
    service.wait_for_state("lobby", StreamState.LIVE)
    page = visitor.page
    page.goto(f"{service.url}/streams/lobby")
    expect(page.get_by_label("Faces")).to_contain_text("Face 1", timeout=SOON_MS)
    expect(page.get_by_role("heading", name="Faces now")).to_be_visible()
    before = visitor.chart()["max"]
    wait_for_points(page, 12)
    assert visitor.chart()["max"] > before
    visitor.picture("stream", full=True)


def test_a_failing_camera_says_why(service: Service, visitor: Visitor) -> None:
    service.add("yard", "rtsp://127.0.0.1:9/none")
    page = visitor.page
    page.goto(service.url)
    expect(card(page, "yard").locator(".chip")).to_have_text("trying again", timeout=SOON_MS)
    expect(card(page, "yard")).to_contain_text("unreachable")


def test_zoom_lets_the_server_pick_the_resolution(service: Service, visitor: Visitor) -> None:
    service.add("long", "synthetic://astronaut?seconds=7200&fps=1&faces=1&seed=1", sample_fps="0.05", recorded_at=NOON)
    service.wait_for_state("long", StreamState.ENDED, timeout_s=120)
    page = visitor.page
    page.goto(f"{service.url}/streams/long")
    expect(points_text(page)).to_have_text("120 points of 1 min")
    page.get_by_role("button", name="1 h", exact=True).click()
    expect(points_text(page)).to_have_text(re.compile("36[01] points of 10 s"))
    page.get_by_role("button", name="1 min", exact=True).click()
    expect(points_text(page)).to_have_text(re.compile("6[01] points of 1 s"))
    page.get_by_role("button", name="10 s", exact=True).click()
    expect(points_text(page)).to_have_text(re.compile("1[01] points of 1 s"))
    shown = visitor.chart()
    page.get_by_role("button", name="Zoom out").click()
    expect(points_text(page)).to_have_text(re.compile("2[012] points of 1 s"))
    assert visitor.chart()["max"] - visitor.chart()["min"] > shown["max"] - shown["min"]
    page.get_by_role("button", name="Newest").click()
    expect(page.get_by_role("button", name="Newest")).to_be_hidden()


def test_gaps_are_gaps_with_their_reason(service: Service, visitor: Visitor) -> None:
    service.add("door", "synthetic://astronaut?seconds=30&fps=25&faces=1&seed=5", recorded_at=NOON)
    service.wait_for_state("door", StreamState.ENDED)
    page = visitor.page
    page.goto(f"{service.url}/streams/door")
    expect(points_text(page)).to_have_text("30 points of 1 s")
    shown = visitor.chart()
    areas = [area for series in shown["series"] if series.get("markArea") for area in series["markArea"]["data"]]
    assert {area[0]["label"]["formatter"] for area in areas} == {"no face"}
    spans = [(start["xAxis"], end["xAxis"]) for start, end in areas]
    assert [end - start for start, end in spans] == [1000] * 4, "the face leaves four times, for a second each"
    for series in shown["series"][:7]:
        inside = [value for at, value in series["data"] for start, end in spans if start < at < end]
        assert inside == [], f"{series['name']} is drawn where nobody was seen"
        assert any(value is None for _, value in series["data"]), "the area is cut at the gap"
    page.goto(service.url)
    expect(card(page, "door").locator("rect.gap title")).to_have_text(["no face"] * 4)


def test_a_click_on_a_point_tells_its_time_and_faces(service: Service, visitor: Visitor) -> None:
    play_sample(service)
    page = visitor.page
    page.goto(f"{service.url}/streams/sample")
    expect(points_text(page)).to_be_visible()
    box = page.locator(".chart").bounding_box()
    assert box is not None
    # The middle of the picture is second 15 of 30.
    page.mouse.click(box["x"] + 46 + (box["width"] - 60) * (15.5 / 30), box["y"] + 100)
    expect(page.locator(".picked")).to_contain_text(re.compile("0:15 . 0:16 · "))
    expect(page.locator(".picked")).to_contain_text(re.compile(r"\d(\.\d+)? faces? per frame · mostly happy \(\d+%\)"))


def test_exports(service: Service, visitor: Visitor) -> None:
    play_sample(service)
    page = visitor.page
    page.goto(f"{service.url}/streams/sample")
    expect(points_text(page)).to_be_visible()
    with page.expect_download() as csv:
        page.get_by_role("link", name="Save as CSV").click()
    lines = csv.value.path().read_text().splitlines()
    assert lines[0].startswith("start,position_s,")
    assert len(lines) == 31
    with page.expect_download() as png:
        page.get_by_role("button", name="Save as PNG").click()
    assert png.value.suggested_filename == "sample.png"
    assert png.value.path().read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert png.value.path().stat().st_size > 20_000


def test_light_and_dark(service: Service, browser: Browser) -> None:
    play_sample(service)
    with visit(browser, color_scheme="dark") as visitor:
        page = visitor.page
        page.goto(f"{service.url}/streams/sample")
        expect(page.locator("body")).to_have_css("background-color", "rgb(18, 22, 28)")
        expect(points_text(page)).to_be_visible()
        visitor.picture("dark")
        page.get_by_role("button", name="Light or dark").click()
        expect(page.locator("body")).to_have_css("background-color", "rgb(245, 246, 248)")
        page.reload()
        expect(page.locator("body")).to_have_css("background-color", "rgb(245, 246, 248)")
        page.get_by_role("button", name="Light or dark").click()
        expect(page.locator("body")).to_have_css("background-color", "rgb(18, 22, 28)")


@pytest.mark.parametrize("width", [360, 390])
def test_phone_width(service: Service, browser: Browser, width: int) -> None:
    play_sample(service)
    with visit(browser, viewport={"width": width, "height": 780}, is_mobile=True, has_touch=True) as visitor:
        page = visitor.page
        for path in ("/", "/streams/sample"):
            page.goto(service.url + path)
            expect(page.get_by_role("link", name="Moodline")).to_be_visible()
            expect(page.locator("svg.strip path").first if path == "/" else points_text(page)).to_be_attached()
            assert page.evaluate("document.documentElement.scrollWidth") == width, f"{path} is wider than the phone"
            for control in page.locator("button:visible").all():
                box = control.bounding_box()
                assert box is not None
                assert box["height"] >= 24, "large enough for a finger"
        visitor.picture("phone")


def test_with_the_keyboard_alone(service: Service, visitor: Visitor) -> None:
    play_sample(service)
    page = visitor.page
    page.goto(service.url)
    expect(card(page, "sample")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    tab_to(page, page.get_by_role("button", name="Add stream"))
    page.keyboard.press("Enter")
    expect(dialog(page).get_by_label("Name", exact=True)).to_be_focused()
    page.keyboard.type("second")
    page.keyboard.press("Tab")
    page.keyboard.type(SAMPLE)
    page.keyboard.press("Enter")
    expect(card(page, "second")).to_be_visible()
    expect(dialog(page)).to_be_hidden()
    tab_to(page, card(page, "sample").get_by_role("link", name="sample"))
    page.keyboard.press("Enter")
    page.wait_for_url("**/streams/sample")
    expect(points_text(page)).to_be_visible()
    tab_to(page, page.locator(".chart"))
    before = visitor.chart()
    page.keyboard.press("+")
    expect(points_text(page)).to_have_text(re.compile("1[567] points of 1 s"))
    after = visitor.chart()
    assert after["max"] - after["min"] == pytest.approx((before["max"] - before["min"]) / 2, abs=2000)
    page.keyboard.press("ArrowRight")
    expect(page.locator(".picked")).to_contain_text("per frame")
    told = page.locator(".picked").inner_text()
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".picked")).not_to_have_text(told)


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until the target has the focus; a page that cannot be left or reached by it fails."""
    for _ in range(40):
        if target.evaluate("element => element === document.activeElement"):
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"{target} cannot be reached with the Tab key")


def test_less_motion_where_it_is_asked_for(service: Service, browser: Browser) -> None:
    play_sample(service)
    with visit(browser, reduced_motion="reduce") as visitor:
        page = visitor.page
        page.goto(f"{service.url}/streams/sample")
        expect(page.locator(".bars .track i").first).to_have_css("transition-duration", "0s")


def test_names_and_paths_that_are_not_there(service: Service, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(f"{service.url}/streams/nobody")
    expect(page.get_by_role("heading", name="There is no such stream")).to_be_visible()


def test_an_uploaded_file_becomes_a_timeline(service: Service, visitor: Visitor, clips: Path) -> None:
    page = visitor.page
    page.goto(service.url)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Drop a file").click()
    chooser.value.set_files(clips / CLIP)
    page.wait_for_url("**/streams/man-expressions")
    expect(page.locator(".chip")).to_have_text("complete", timeout=60_000)
    expect(points_text(page)).to_have_text("20 points of 1 s")
    assert "/uploads/" in service.client.get_stream("man-expressions").url


def drop(page: Page, **files: bytes) -> None:
    """Drag files over the page, see that it says so, and drop them; by name without its ending."""
    transfer = page.evaluate_handle(
        """files => {
          const transfer = new DataTransfer();
          for (const [name, base64] of Object.entries(files)) {
            const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
            transfer.items.add(new File([bytes], `${name}.mp4`, { type: "video/mp4" }));
          }
          return transfer;
        }""",
        {name: base64.b64encode(data).decode() for name, data in files.items()},
    )
    fire = "([type, dataTransfer]) => window.dispatchEvent(new DragEvent(type, { dataTransfer, cancelable: true }))"
    page.evaluate(fire, ["dragenter", transfer])
    page.evaluate(fire, ["dragover", transfer])
    expect(page.locator(".drop-all")).to_be_visible()
    page.evaluate(fire, ["drop", transfer])
    expect(page.locator(".drop-all")).to_be_hidden()


def test_files_that_are_dropped_become_streams(service: Service, visitor: Visitor, clips: Path) -> None:
    page = visitor.page
    page.goto(service.url)
    expect(page.get_by_role("button", name="Drop a file")).to_be_visible()
    drop(page, first=(clips / SHORT_CLIP).read_bytes(), second=(clips / SHORT_CLIP).read_bytes())
    for stream_id in ("first", "second"):
        expect(card(page, stream_id)).to_be_visible(timeout=SOON_MS)
    assert urlsplit(page.url).path == "/", "nobody is led away while files are still being sent"
    for stream_id in ("first", "second"):
        expect(card(page, stream_id).locator(".chip")).to_have_text("complete", timeout=60_000)
    drop(page, third=(clips / SHORT_CLIP).read_bytes())
    page.wait_for_url("**/streams/third")


def test_a_dropped_file_that_is_no_video_is_refused_in_words(service: Service, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(service.url)
    expect(page.get_by_role("button", name="Drop a file")).to_be_visible()
    drop(page, dead_letter=b"no video at all")
    expect(page.get_by_role("alert").filter(has_text="video")).to_be_visible(timeout=SOON_MS)
    assert list(service.client.list_streams()) == []
    # The browser itself notes the refused request.
    assert all("422" in text for text in visitor.complaints)
    visitor.complaints.clear()


def test_progress_and_time_left_while_a_file_is_read(service: Service, visitor: Visitor) -> None:
    service.add("film", "synthetic://astronaut?seconds=600&fps=25&faces=2&seed=1", sample_fps="15")
    page = visitor.page
    page.goto(service.url)
    bar = card(page, "film").get_by_role("progressbar")
    expect(bar).to_be_visible(timeout=SOON_MS)
    expect(card(page, "film")).to_contain_text(re.compile(r"\d+% read, about \d+ (s|min) left"), timeout=SOON_MS)
    before = int(bar.get_attribute("aria-valuenow") or 0)
    page.goto(f"{service.url}/streams/film")
    expect(page.get_by_role("progressbar")).not_to_have_attribute("aria-valuenow", str(before), timeout=SOON_MS)


def test_the_webcam_is_sent_after_consent_and_stops_when_asked(service: Service, visitor: Visitor) -> None:
    page = visitor.page
    page.goto(service.url)
    page.get_by_role("button", name="Use my webcam").click()
    page.wait_for_url("**/streams/webcam")
    expect(page.get_by_label("Camera", exact=True)).to_contain_text("are not kept")
    assert service.client.get_stream("webcam").progress.frames == 0, "nothing is sent before the visitor starts it"
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator(".chip")).to_have_text("live", timeout=SOON_MS)
    expect(page.get_by_label("Faces")).to_contain_text("Face 1", timeout=SOON_MS)
    expect(page.get_by_text(re.compile(r"\d+ pictures sent"))).to_be_visible()
    expect(page.get_by_role("heading", name="Faces now")).to_be_visible()
    wait_for_points(page, 8)
    visitor.picture("webcam")
    page.get_by_role("button", name="Stop the camera").click()
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()
    service.wait(lambda: service.state("webcam") is not StreamState.LIVE, 30, "the stream to notice that nothing comes")


def test_alerts_that_fire_are_shown(service: Service, visitor: Visitor, camera: CameraSimulator) -> None:
    service.add("lobby", camera.url("cam0"))
    service.add("yard", "rtsp://127.0.0.1:9/none")
    play_sample(service)
    rule = {"id": "not-neutral", "stream": "lobby", "kind": "share", "emotion": "neutral", "direction": "under", "threshold": 0.9}
    times = {"for_s": 2, "window_s": 2, "min_faces": 2}
    with httpx.Client(base_url=service.url) as http:
        made = http.post("/api/v1/alerts/rules", json=rule | times)
        assert made.status_code == 201, made.text
        try:
            page = visitor.page
            page.goto(service.url)
            expect(page.get_by_label("Alerts")).to_contain_text("not-neutral", timeout=30_000)
            expect(card(page, "sample").locator("svg.strip path").first).to_be_attached()
            expect(card(page, "yard").locator(".chip")).to_have_text("trying again", timeout=SOON_MS)
            visitor.picture("streams")
            page.get_by_label("Alerts").get_by_role("link", name="lobby").click()
            page.wait_for_url("**/streams/lobby")
            expect(page.get_by_label("Alerts")).to_contain_text("not-neutral")
        finally:
            http.delete("/api/v1/alerts/rules/not-neutral")
        expect(page.get_by_label("Alerts")).not_to_contain_text("not-neutral", timeout=SOON_MS)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service that asks for a key: where one was made, it does so for good."""
    with Service(tmp_path_factory.mktemp("guarded")) as service:
        yield service


@pytest.fixture(scope="module")
def keys(guarded: Service) -> dict[str, str]:
    """Keys of an admin and of a viewer who may see one label."""
    service = guarded
    service.add("hall", SAMPLE, labels={"site": "berlin"})
    service.add("vault", SAMPLE, labels={"site": "zurich"})
    with httpx.Client(base_url=service.url) as http:
        made = {}
        for name, body in {"chief": {"role": "admin"}, "guest": {"role": "viewer", "labels": ["site=berlin"]}}.items():
            answer = http.post("/api/v1/keys", json={"name": name} | body, headers=_bearer(made.get("chief")))
            assert answer.status_code == 201, answer.text
            made[name] = answer.json()["key"]
    return made


def _bearer(key: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} if key else {}


def test_who_has_a_key_signs_in_and_sees_what_it_may_see(guarded: Service, browser: Browser, keys: dict[str, str]) -> None:
    service = guarded
    with visit(browser) as visitor:
        page = visitor.page
        page.goto(f"{service.url}/streams/hall")
        page.wait_for_url("**/sign-in?next=%2Fstreams%2Fhall")
        page.get_by_label("Key", exact=True).fill("mdl_wrong")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert").filter(has_text="not known")).to_be_visible()
        visitor.picture("sign-in")
        page.get_by_label("Key", exact=True).fill(keys["guest"])
        page.keyboard.press("Enter")
        page.wait_for_url("**/streams/hall")
        expect(page.get_by_role("heading", name="hall")).to_be_visible()
        for act in ("Pause", "Change", "Delete"):
            expect(page.get_by_role("button", name=act)).to_be_hidden()
        page.goto(f"{service.url}/streams/vault")
        expect(page.get_by_role("heading", name="There is no such stream")).to_be_visible()
        page.goto(service.url)
        expect(card(page, "hall")).to_be_visible()
        expect(card(page, "vault")).to_have_count(0)
        expect(page.get_by_role("button", name="Delete hall")).to_have_count(0)
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")
        page.goto(service.url)
        page.wait_for_url("**/sign-in?next=%2F")
        page.goto(f"{service.url}/sign-in?next=//elsewhere.example")
        page.get_by_label("Key", exact=True).fill(keys["chief"])
        page.keyboard.press("Enter")
        page.wait_for_url(f"{service.url}/")
        expect(card(page, "vault")).to_be_visible()
        assert visitor.foreign() == []


def test_a_page_that_is_open_ends_with_its_key(guarded: Service, browser: Browser, keys: dict[str, str]) -> None:
    service = guarded
    headers = _bearer(keys["chief"])
    with visit(browser) as visitor, httpx.Client(base_url=service.url, headers=headers) as http:
        page = visitor.page
        made = http.post("/api/v1/keys", json={"name": "brief", "role": "viewer"}).json()["key"]
        page.goto(f"{service.url}/sign-in")
        page.get_by_label("Key", exact=True).fill(made)
        page.keyboard.press("Enter")
        expect(card(page, "hall")).to_be_visible()
        page.wait_for_function("() => window.socket?.connected")
        assert http.delete("/api/v1/keys/brief").status_code == 204
        page.wait_for_url("**/sign-in?next=%2F")


def test_web_sockets_of_other_sites_are_refused(service: Service) -> None:
    ask = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    path = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
    with httpx.Client(base_url=service.url) as http:
        assert http.get(path, headers=ask | {"Origin": "https://elsewhere.example"}).status_code == 403
        assert http.get(path, headers=ask | {"Origin": service.url}).status_code == 101


def test_the_api_keeps_its_errors_and_assets_may_be_cached(service: Service, browser: Browser) -> None:
    with httpx.Client(base_url=service.url) as http:
        assert http.get("/api/v1/nothing").json()["error"]["code"] == "not_found"
        assert http.put("/api/v1/streams").json()["error"]["code"] == "method_not_allowed"
        assert http.get("/api/v1/streams").headers["cache-control"] == "no-store"
        assert http.get("/").headers["cache-control"] == "no-store"
        with visit(browser) as visitor:
            visitor.page.goto(service.url)
            asset = next(url for url in visitor.asked if "quasar" in url)
        assert "immutable" in http.get(asset).headers["cache-control"]
