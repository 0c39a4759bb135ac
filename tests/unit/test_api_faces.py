"""Each face of each frame: from the aggregator's messages to the answer, whatever restarts in between."""

import io
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from moodline.services.report.faces import FACE_FIELDS
from tests.support.api import ApiWorld
from tests.support.faces import KEPT_FACES, keep_faces


def rows(world: ApiWorld, **asked: Any) -> list[dict[str, Any]]:
    answer = world.get("/streams/lobby/faces", **asked)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["faces"]
    return found


@pytest.mark.parametrize("restart_every", [100, 1, 3, 7])
def test_every_sampled_frame_has_its_rows_whatever_restarts(tmp_path: Path, restart_every: int) -> None:
    with ApiWorld(tmp_path, overrides=KEPT_FACES) as world:
        keep_faces(world, restart_every=restart_every)
        found = rows(world)
        assert [row["frame"] for row in found] == sorted(row["frame"] for row in found)
        assert {row["frame"] for row in found} == set(range(30)), "no frame is missing in silence"
        empty = [row for row in found if row["track"] is None]
        assert [row["frame"] for row in empty] == [4, 7, 9, 14, 19, 24, 29]
        assert [row["skipped"] for row in empty if row["skipped"]] == ["corrupt"]
        assert all(row["box"] is row["raw"] is row["smoothed"] is row["score"] is None for row in empty)
        first, second = found[:2]
        assert (first["track"], second["track"]) == (1, 2)
        assert first["box"] == [0.0, 0.0, 160.0, 180.0]
        assert (first["raw"]["happy"], second["smoothed"]["sad"], first["score"], first["quality"]) == (1.0, 1.0, 1.0, 1.0)
        assert (found[2]["frame"], found[2]["position_s"], found[2]["time"]) == (1, 0.2, "2026-05-01T12:00:00.200000Z")
        assert {row["model"] for row in found if not row["skipped"]} == {"fer-seed"}


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
def test_pages_give_every_row_once(tmp_path: Path, limit: int) -> None:
    with ApiWorld(tmp_path, overrides=KEPT_FACES) as world:
        keep_faces(world)
        whole, found, cursor = rows(world), [], None
        while True:
            page = world.get("/streams/lobby/faces", limit=limit, **({"cursor": cursor} if cursor else {})).json()
            found += page["faces"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert found == whole


def test_a_window_and_the_formats(tmp_path: Path) -> None:
    with ApiWorld(tmp_path, overrides=KEPT_FACES) as world:
        keep_faces(world)
        window = {"from": "2026-05-01T12:00:01Z", "to": "2026-05-01T12:00:02Z"}
        assert {row["frame"] for row in rows(world, **window)} == {5, 6, 7, 8, 9}
        text = world.get("/streams/lobby/faces", format="csv", **window).text.splitlines()
        assert text[0] == ",".join(FACE_FIELDS)
        assert len(text) - 1 == len(rows(world, **window))
        parquet = pytest.importorskip("pyarrow.parquet")
        table = parquet.read_table(io.BytesIO(world.get("/streams/lobby/faces", format="parquet").content)).to_pylist()
        assert [row["frame"] for row in table] == [row["frame"] for row in rows(world)]
        assert table[0]["raw_happy"] == 1.0
        assert (table[0]["x2"], table[0]["readable"], table[8]["readable"]) == (160.0, True, None)
        stream = world.get("/streams/lobby/faces", format="arrow").content
        assert pytest.importorskip("pyarrow").ipc.open_stream(stream).read_all().to_pylist() == table
        lines = [json.loads(line) for line in world.get("/streams/lobby/faces", format="ndjson").text.splitlines()]
        assert [list(line) for line in lines] == [list(FACE_FIELDS)] * len(table)
        assert [{**line, "time": datetime.fromisoformat(line["time"])} for line in lines] == table
        for cursor in ("x", "AAAA"):
            assert world.get("/streams/lobby/faces", cursor=cursor).status_code == 422
        other = world.get("/streams", limit=1)
        assert other.status_code == 200


def test_without_a_retention_nothing_is_kept_and_the_answer_says_so(tmp_path: Path) -> None:
    with ApiWorld(tmp_path) as world:
        keep_faces(world, keeps=False)
        answer = world.get("/streams/lobby/faces")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "faces_not_kept")
        assert "MOODLINE_STORE_RETENTION_FACES_S" in answer.json()["error"]["message"]
        assert world.store.read("lobby", "faces", 2, 0, 2**53) == []


def test_deleting_a_stream_deletes_its_faces(tmp_path: Path) -> None:
    with ApiWorld(tmp_path, overrides=KEPT_FACES) as world:
        keep_faces(world)
        assert world.store.read("lobby", "faces", 2, 0, 2**53)
        world.http.delete("/api/v1/streams/lobby")
        assert world.store.read("lobby", "faces", 2, 0, 2**53) == []
