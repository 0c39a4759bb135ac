"""Every frame's result in a file, in order, so that an analysis may be as long as it likes, and can be gone on with."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from moodline.shared.errors import MessageError
from moodline.shared.messages import Emotions, decode, encode

_LENGTH_BYTES: Final = 4


class FrameLog:
    """Appends frames to a file; use as a context manager. One thread writes; others may read what was written."""

    def __init__(self, path: Path) -> None:
        """Open the file and go on after the last whole frame in it; what follows a frame that is cut or missing is dropped."""
        self._path = path
        self.next_seq, end = 0, 0
        for message, end in _entries(path):  # noqa: B007  # the last ones count
            self.next_seq = message.seq + 1
        self._file = path.open("ab")
        self._file.truncate(end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._file.close()

    def append(self, messages: Iterable[Emotions]) -> None:
        """Write what is next in order; frames that are there already are passed over, and so is what follows a hole."""
        for message in messages:
            if message.seq == self.next_seq:
                value = encode(message)
                self._file.write(len(value).to_bytes(_LENGTH_BYTES, "big") + value)
                self.next_seq += 1
        self._file.flush()

    def clear(self) -> None:
        """Drop everything."""
        self._file.truncate(0)
        self.next_seq = 0

    def frames(self) -> Iterator[Emotions]:
        """Yield all frames from the first on."""
        return (message for message, _ in _entries(self._path))


def _entries(path: Path) -> Iterator[tuple[Emotions, int]]:
    """Yield each frame with where it ends in the file, as far as they are whole and follow one another."""
    if not path.exists():
        return
    end, next_seq = 0, 0
    with path.open("rb") as file:
        while len(head := file.read(_LENGTH_BYTES)) == _LENGTH_BYTES:
            value = file.read(int.from_bytes(head, "big"))
            end += _LENGTH_BYTES + int.from_bytes(head, "big")
            try:
                message = decode(value)
            except MessageError:
                return
            if not isinstance(message, Emotions) or message.seq != next_seq:
                return
            next_seq += 1
            yield message, end
