"""What `moodline run` really writes: JSON alone, the vocabulary alone, stream and session, and no camera's password."""

import json
from pathlib import Path

import pytest

from moodline.services.simulator import CameraSimulator
from moodline.shared.log_events import EVENTS, FIELDS, FOREIGN
from moodline.shared.streams import StreamState
from tests.support.service import Service

pytestmark = [pytest.mark.slow, pytest.mark.timeout(200)]

PASSWORD, WRONG = "c4n4ry-s3cr3t", "wr0ng-c4n4ry"
ALWAYS = {"ts", "level", "logger", "event"}


def test_everything_that_is_logged_is_json_of_the_vocabulary_without_passwords(tmp_path: Path) -> None:
    environment = {"MOODLINE_LOG_FORMAT": "json", "MOODLINE_LOG_LEVEL": "debug", "MOODLINE_INGEST_BACKOFF_MIN_S": "0.3"}
    with (
        CameraSimulator(None, paths=1, size="640x360", user="viewer", password=PASSWORD) as cameras,
        Service(tmp_path, **environment) as service,
    ):
        service.add("right", cameras.url("cam0", "viewer", PASSWORD))
        service.add("wrong", cameras.url("cam0", "viewer", WRONG))
        service.add("film", "synthetic://astronaut?seconds=1&fps=5&faces=1&seed=1")
        service.wait_for_state("right", StreamState.LIVE)
        service.wait_for_state("wrong", StreamState.BACKING_OFF)
        service.wait_for_state("film", StreamState.ENDED)
    written = service.log.read_text()
    assert PASSWORD not in written
    assert WRONG not in written
    lines = [json.loads(line) for line in written.splitlines()]
    own = [line for line in lines if line["event"] != FOREIGN]
    assert len(own) > 10
    for line in own:
        assert line["event"] in EVENTS
        assert line.keys() - ALWAYS - {"exception"} <= FIELDS.keys(), line
    by_event = {(line["event"], line.get("stream_id")): line for line in own}
    for place in (
        ("camera.live", "right"),
        ("camera.backing_off", "wrong"),
        ("stream.playing", "film"),
        ("stream.ended", "film"),
    ):
        assert by_event[place]["session"] > 0
    assert by_event["camera.backing_off", "wrong"]["reason"] == "auth"
