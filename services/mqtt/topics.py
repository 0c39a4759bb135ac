"""Topics and payloads, near to what Frigate's users know, and Home Assistant's discovery.

Below the prefix (`moodline`): `available` (`online` or `offline`), `events` (all alerts), and for each stream `<id>/state`,
`<id>/status`, `<id>/emotion`, `<id>/faces`, `<id>/point`, `<id>/alert`. Everything but `events` is retained, so that whoever
comes sees the present.
"""

import json
import re
import zlib
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from moodline.shared.emotions import EMOTIONS

ONLINE: Final = "online"
OFFLINE: Final = "offline"
NOBODY: Final = "none"
"""The emotion where nobody is there, or nobody looked."""
OF_A_STREAM: Final = ("state", "status", "emotion", "faces", "point", "alert")
_PLAIN: Final = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


class Message(NamedTuple):
    """A message to publish; an empty payload of a retained message removes it from the broker."""

    topic: str
    payload: str
    is_retained: bool = True


class Topics:
    """Makes messages below a prefix."""

    def __init__(self, prefix: str, discovery_prefix: str, version: str) -> None:
        self._prefix = prefix.strip("/")
        self._discovery = discovery_prefix.strip("/")
        self._version = version

    @property
    def available(self) -> str:
        """Return the topic that tells whether Moodline is there."""
        return f"{self._prefix}/available"

    @property
    def home_assistant(self) -> str | None:
        """Return the topic on which Home Assistant says that it has started; None without discovery."""
        return f"{self._discovery}/status" if self._discovery else None

    def of_state(self, stream_id: str, answer: dict[str, Any]) -> list[Message]:
        """Return what a stream's description tells: the word, and all of its status as JSON."""
        status = answer["status"]
        payload = {**status, "progress": answer["progress"], "video": answer["video"], "labels": answer["labels"]}
        return [
            Message(self._topic(stream_id, "state"), str(status["state"])),
            Message(self._topic(stream_id, "status"), _json(payload)),
        ]

    def of_point(self, stream_id: str, point: dict[str, Any]) -> list[Message]:
        """Return what a final point tells: the leading emotion, the mean number of faces in a frame, and all of it as JSON."""
        looked = point["classified"]
        faces = round(point["faces"] / looked, 2) if looked else 0
        return [
            Message(self._topic(stream_id, "emotion"), point["dominant"] or NOBODY),
            Message(self._topic(stream_id, "faces"), f"{faces:g}"),
            Message(self._topic(stream_id, "point"), _json(point)),
        ]

    def of_alert(self, stream_id: str, alert: dict[str, Any]) -> list[Message]:
        """Return what an alert that began or ended tells, for its stream and for all."""
        return [
            Message(self._topic(stream_id, "alert"), _json(alert)),
            Message(f"{self._prefix}/events", _json(alert), is_retained=False),
        ]

    def removal(self, stream_id: str) -> list[Message]:
        """Return what makes a broker and Home Assistant forget a stream."""
        configs = [Message(config.topic, "") for config in self.discovery(stream_id)]
        return [*configs, *(Message(self._topic(stream_id, name), "") for name in OF_A_STREAM)]

    def discovery(self, stream_id: str) -> list[Message]:
        """Return the descriptions of a stream's entities for Home Assistant; none without discovery."""
        if not self._discovery:
            return []
        node = _node(stream_id)
        device = {
            "identifiers": [f"moodline_{node}"],
            "name": f"Moodline {stream_id}",
            "manufacturer": "Moodline",
            "sw_version": self._version,
        }
        shared = {"availability_topic": self.available, "device": device}
        return [
            Message(
                f"{self._discovery}/{kind}/moodline_{node}/{name}/config",
                _json({**config, **shared, "unique_id": f"moodline_{node}_{name}", "object_id": f"moodline_{node}_{name}"}),
            )
            for kind, name, config in self._entities(stream_id)
        ]

    def _entities(self, stream_id: str) -> Iterator[tuple[str, str, dict[str, Any]]]:
        def topic(name: str) -> str:
            return self._topic(stream_id, name)

        options = [*EMOTIONS, NOBODY]
        yield (
            "sensor",
            "emotion",
            {"name": "Emotion", "state_topic": topic("emotion"), "device_class": "enum", "options": options},
        )
        yield "sensor", "faces", {"name": "Faces", "state_topic": topic("faces"), "state_class": "measurement"}
        yield "sensor", "state", {"name": "State", "state_topic": topic("state"), "entity_category": "diagnostic"}
        on = "{{ 'ON' if value in ('live', 'playing') else 'OFF' }}"
        yield (
            "binary_sensor",
            "connected",
            {"name": "Connected", "state_topic": topic("state"), "device_class": "connectivity", "value_template": on},
        )
        firing = "{{ 'ON' if value_json.kind == 'firing' else 'OFF' }}"
        yield (
            "binary_sensor",
            "alert",
            {
                "name": "Alert",
                "state_topic": topic("alert"),
                "device_class": "problem",
                "value_template": firing,
                "json_attributes_topic": topic("alert"),
            },
        )
        for emotion in EMOTIONS:
            share = f"{{{{ ((value_json.shares or {{}}).get('{emotion}', 0) * 100) | round(1) }}}}"
            yield (
                "sensor",
                f"share_{emotion}",
                {
                    "name": f"Share {emotion}",
                    "state_topic": topic("point"),
                    "value_template": share,
                    "unit_of_measurement": "%",
                    "state_class": "measurement",
                    "enabled_by_default": False,
                },
            )

    def _topic(self, stream_id: str, name: str) -> str:
        return f"{self._prefix}/{stream_id}/{name}"


def _node(stream_id: str) -> str:
    """Return an id in the letters that Home Assistant takes; two streams never get the same."""
    if _PLAIN.fullmatch(stream_id):
        return stream_id
    return f"{stream_id.replace('.', '_')}-{zlib.crc32(stream_id.encode()):08x}"


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
