"""The codec: what goes in comes out, and bytes that are no message raise `MessageError` and nothing else."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from moodline.shared.errors import MessageError
from moodline.shared.messages import (
    ALL_TOPICS,
    DLQ_TOPIC,
    STREAMS_TOPIC,
    AnyMessage,
    DeadLetter,
    DropReason,
    Emotions,
    End,
    Face,
    FaceEmotion,
    Faces,
    Frame,
    Message,
    PipelineStep,
    StreamClass,
    decode,
    decode_dead_letter,
    encode,
    stream_class_of,
    topic,
)

CROP = bytes(48 * 48)
HEADER = {
    "stream_id": "lobby",
    "epoch": 3,
    "seq": 7,
    "event_time_us": 1_700_000_000_000_000,
    "captured_at_us": 5,
    "lane": "live",
}

numbers = st.integers(0, 2**53 - 1)
times = st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999)
sizes = st.integers(0, 65_535)
header = {
    "stream_id": st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
    "epoch": numbers,
    "seq": numbers,
    "event_time_us": times,
    "captured_at_us": times,
    "lane": st.sampled_from(StreamClass),
}
image = {"width": sizes, "height": sizes, "skip": st.none() | st.sampled_from(DropReason)}
spans = st.lists(st.integers(0, 65_536), min_size=2, max_size=2, unique=True).map(sorted)
boxes = st.builds(lambda x, y: (x[0], y[0], x[1], y[1]), spans, spans)
scores = st.integers(0, 65_535)


@st.composite
def shares(draw: st.DrawFn) -> tuple[int, ...]:
    cuts = sorted(draw(st.lists(st.integers(0, 65_535), min_size=6, max_size=6)))
    return tuple(high - low for low, high in zip([0, *cuts], [*cuts, 65_535], strict=True))


faces = st.builds(Face, box=boxes, score=scores, crop=st.binary(min_size=4, max_size=4).map(lambda part: part * 576))
emotions = st.builds(FaceEmotion, box=boxes, score=scores, probabilities=shares())
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Frame, **header, **image, jpeg=st.binary(max_size=200)),
    st.builds(Faces, **header, **image, faces=st.lists(faces, max_size=4).map(tuple)),
    st.builds(Emotions, **header, **image, faces=st.lists(emotions, max_size=4).map(tuple), model=st.text(max_size=10)),
    st.builds(End, **header),
)
dead_letters = st.builds(DeadLetter, offset=numbers, partition=numbers, failed_at_us=times)


@given(messages)
def test_what_goes_in_comes_out(message: Message) -> None:
    assert decode(encode(message)) == message


@given(dead_letters)
def test_dead_letters_too(letter: DeadLetter) -> None:
    assert decode_dead_letter(encode(letter)) == letter


def fields_of(message: AnyMessage) -> dict[str, object]:
    return msgspec.msgpack.decode(encode(message))


def rebuilt(message: AnyMessage, **changes: object) -> bytes:
    return msgspec.msgpack.encode(fields_of(message) | changes)


@given(messages, st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), min_size=20), st.booleans() | st.binary()))
def test_unknown_fields_are_ignored(message: Message, extra: dict[str, object]) -> None:
    assert decode(msgspec.msgpack.encode({**extra, **fields_of(message)})) == message


@given(messages, st.integers(-5, 100).filter(lambda version: version != 1))
def test_another_schema_version_is_refused_even_if_it_looks_alike(message: Message, version: int) -> None:
    with pytest.raises(MessageError, match=f"version {version}") as caught:
        decode(rebuilt(message, v=version))
    assert caught.value.reason == "version"


def test_another_schema_version_is_named_as_such_even_if_its_fields_are_strange() -> None:
    with pytest.raises(MessageError) as caught:
        decode(msgspec.msgpack.encode({"v": 2, "kind": "something new", "payload": [1, 2]}))
    assert caught.value.reason == "version"


def only_a_message_error(value: bytes) -> None:
    reasons = set()
    for read in (decode, decode_dead_letter):
        try:
            read(value)
        except MessageError as error:
            reasons.add(error.reason)
    assert reasons <= {"malformed", "version", "invalid"}


@given(messages, st.data())
def test_a_message_cut_short_is_malformed(message: Message, data: st.DataObject) -> None:
    value = encode(message)
    with pytest.raises(MessageError) as caught:
        decode(value[: data.draw(st.integers(0, len(value) - 1))])
    assert caught.value.reason == "malformed"


@given(st.binary(max_size=300))
def test_random_bytes_raise_nothing_else(value: bytes) -> None:
    only_a_message_error(value)


@given(messages, st.data())
def test_flipped_bytes_raise_nothing_else(message: Message, data: st.DataObject) -> None:
    value = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 4))):
        value[data.draw(st.integers(0, min(len(value) - 1, 300)))] = data.draw(st.integers(0, 255))
    only_a_message_error(bytes(value))


@given(messages, st.sampled_from(sorted(HEADER)), st.none() | st.floats() | st.lists(st.booleans()))
def test_fields_of_another_type_raise_nothing_else(message: Message, name: str, value: object) -> None:
    only_a_message_error(rebuilt(message, **{name: value}))


@pytest.mark.parametrize(
    "value",
    [
        b"\x82\xa1v\x01\xa5extra" + b"\x91" * 100_000 + b"\x00",
        b"\x82\xa1v\x01\xa4kind\xa5\xff\xff\xff\xff\xff",
        b"\x81\xa1\xff\x01",
        b"\x81\xa1v\xcf" + b"\xff" * 8,
        b"",
    ],
    ids=["endless nesting", "kind is not text", "key is not text", "enormous version", "empty"],
)
def test_hostile_bytes_raise_nothing_else(value: bytes) -> None:
    only_a_message_error(value)
    with pytest.raises(MessageError):
        decode(value)


FRAME = Frame(**HEADER | {"lane": StreamClass.LIVE}, width=640, height=480, jpeg=b"jpeg")
FACES = Faces(**HEADER | {"lane": StreamClass.LIVE}, width=640, height=480)
EMOTIONS_MESSAGE = Emotions(**HEADER | {"lane": StreamClass.LIVE}, width=640, height=480)
EVEN = [9362] * 6 + [9363]


@pytest.mark.parametrize(
    "value",
    [
        rebuilt(FRAME, stream_id=""),
        rebuilt(FRAME, seq=-1),
        rebuilt(FRAME, session=-1),
        rebuilt(FRAME, seq=2**53),
        rebuilt(FRAME, session=2**63),
        rebuilt(FRAME, event_time_us=2**62),
        rebuilt(FRAME, event_time_us=-(2**62)),
        rebuilt(FRAME, captured_at_us=2**62),
        rebuilt(FRAME, width=-1),
        rebuilt(FACES, height=65_536),
        rebuilt(EMOTIONS_MESSAGE, width=2**40),
        *(
            rebuilt(FACES, faces=[{"box": box, "score": 100, "crop": CROP}])
            for box in (
                [5, 5, 5, 9],
                [5, 5, 9, 5],
                [9, 5, 5, 9],
                [-1, 0, 5, 5],
                [0, -1, 5, 5],
                [0, 0, 65_537, 5],
                [0, 0, 5, 65_537],
            )
        ),
        rebuilt(FACES, faces=[{"box": [0, 0, 5, 5], "score": 65_536, "crop": CROP}]),
        rebuilt(FACES, faces=[{"box": [0, 0, 5, 5], "score": -1, "crop": CROP}]),
        rebuilt(FACES, faces=[{"box": [0, 0, 5, 5], "score": 1, "crop": CROP[1:]}]),
        rebuilt(FACES, faces=[{"box": [0, 0, 5, 5], "score": 1, "crop": CROP + b"x"}]),
        *(
            rebuilt(EMOTIONS_MESSAGE, faces=[{"box": [0, 0, 5, 5], "score": 1, "probabilities": values}])
            for values in (
                [0] * 7,
                [*EVEN[:6], 9362],
                [*EVEN[:6], 9364],
                [-1, 1, *EVEN[2:6], 9363 + 2 * 9362],
                [65_536, -1, 0, 0, 0, 0, 0],
            )
        ),
    ],
)
def test_fields_out_of_range_are_invalid(value: bytes) -> None:
    with pytest.raises(MessageError) as caught:
        decode(value)
    assert caught.value.reason == "invalid"


def test_the_limits_themselves_are_valid() -> None:
    box = [0, 0, 65_536, 65_536]
    decode(rebuilt(FRAME, seq=2**53 - 1, session=0, width=0, height=65_535))
    decode(rebuilt(FACES, faces=[{"box": box, "score": 65_535, "crop": CROP}]))
    decode(rebuilt(EMOTIONS_MESSAGE, faces=[{"box": box, "score": 0, "probabilities": [0] * 6 + [65_535]}]))


@pytest.mark.parametrize("values", [[1] * 6, [1] * 8, "angry", None, [0.5] * 7])
def test_seven_integers_and_nothing_else(values: object) -> None:
    with pytest.raises(MessageError) as caught:
        decode(rebuilt(EMOTIONS_MESSAGE, faces=[{"box": [0, 0, 5, 5], "score": 1, "probabilities": values}]))
    assert caught.value.reason == "malformed"


def test_errors_never_carry_the_content() -> None:
    secret = b"secret picture"
    for value in (rebuilt(FRAME, jpeg=secret, seq=-1), rebuilt(FRAME, jpeg=secret, lane="x"), encode(FRAME)[:-3] + secret):
        with pytest.raises(MessageError) as caught:
            decode(value)
        assert "secret" not in str(caught.value)


def test_topics_of_the_hops_know_their_lane() -> None:
    steps = {topic(step, lane): lane for step in PipelineStep for lane in StreamClass}
    assert len(steps) == 6
    assert {name: stream_class_of(name) for name in steps} == steps
    assert stream_class_of(STREAMS_TOPIC) is stream_class_of(DLQ_TOPIC) is None
    assert set(ALL_TOPICS) == {*steps, STREAMS_TOPIC, DLQ_TOPIC}
