"""docs/messages.md names every topic, message, field, reason and retention."""

import re
from pathlib import Path

import msgspec
import pytest

from moodline.shared.bus.retention import retention_of
from moodline.shared.emotions import EMOTIONS
from moodline.shared.messages import (
    ALL_TOPICS,
    SCHEMA_VERSION,
    DeadLetter,
    DropReason,
    Emotions,
    End,
    Face,
    FaceEmotion,
    Faces,
    Frame,
    Header,
)

STRUCTS = (Header, Frame, Faces, Face, Emotions, FaceEmotion, DeadLetter)
_GiB = 1024**3


@pytest.fixture(scope="module")
def page(repo: Path) -> str:
    return (repo / "docs" / "messages.md").read_text()


def section(page: str, title: str) -> str:
    found = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/messages.md has no section {title}"
    return found[1]


def rows(text: str) -> dict[str, str]:
    """The table's rows by what stands in backquotes in their first column."""
    return {found[1]: found[2] for found in re.finditer(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)}


def own_fields(struct: type[msgspec.Struct]) -> list[str]:
    inherited = set(Header.__struct_encode_fields__) if issubclass(struct, Header) and struct is not Header else set()
    return [name for name in struct.__struct_encode_fields__ if name not in inherited]


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_field_is_described_and_no_other(page: str, struct: type[msgspec.Struct]) -> None:
    table = rows(section(page, struct.__name__))
    assert list(table) == own_fields(struct)
    for name, rest in table.items():
        kind, meaning = (cell.strip() for cell in rest.split("|", 1))
        assert kind, name
        assert meaning, name
        if name.endswith("_us"):
            assert "microseconds" in meaning


@pytest.mark.parametrize("struct", [Frame, Faces, Emotions, End, DeadLetter], ids=lambda struct: struct.__name__)
def test_every_message_says_its_kind(page: str, struct: type[msgspec.Struct]) -> None:
    tag = struct.__struct_config__.tag
    assert f"`kind` is `{tag}`" in section(page, struct.__name__)
    assert f"`{tag}`" in section(page, "Encoding")


def test_every_topic_is_listed_with_what_kafka_keeps(page: str) -> None:
    table = rows(section(page, "Topics"))
    assert set(table) == set(ALL_TOPICS)
    for name, rest in table.items():
        kept = rest.rsplit("|", 1)[1]
        retention = retention_of(name)
        days, minutes = divmod(retention.keep_s, 86_400)
        assert re.search(rf"\b{days} days?\b" if days else rf"\b{minutes // 60} min\b", kept), name
        bound = retention.partition_bytes
        assert (f"{bound // _GiB} GiB per partition" in kept) if bound else ("GiB" not in kept), name


def test_every_skip_reason_is_described(page: str) -> None:
    assert list(rows(section(page, "Skip reasons"))) == list(DropReason)


def test_version_and_order_of_emotions(page: str) -> None:
    assert f"now {SCHEMA_VERSION}." in rows(section(page, "Header"))["v"]
    assert ", ".join(EMOTIONS) in rows(section(page, "FaceEmotion"))["probabilities"]


def test_links_lead_somewhere(page: str) -> None:
    anchors = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", page, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", page)) <= anchors
