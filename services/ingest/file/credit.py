"""The read-ahead credit of a file: frames and bytes that may be sent beyond its timeline. Counts only, never waits."""

from collections import deque


class Credit:
    """Counts frames and bytes that were sent and are not in the timeline yet, against a window.

    Memory is bounded by the window: one small entry per frame on its way.
    """

    def __init__(self, next_seq: int, window_frames: int, window_bytes: int) -> None:
        """Start with nothing on its way; `next_seq` is the first frame that will be sent."""
        self._window_frames = window_frames
        self._window_bytes = window_bytes
        self._high_water_seq = next_seq - 1
        self._next_seq = next_seq
        self._sizes: deque[tuple[int, int]] = deque()
        self._bytes = 0

    @property
    def next_seq(self) -> int:
        """The first frame that was not sent."""
        return self._next_seq

    @property
    def frames_out(self) -> int:
        """Frames on their way."""
        return self._next_seq - 1 - self._high_water_seq

    @property
    def bytes_out(self) -> int:
        """Bytes on their way."""
        return self._bytes

    def sent(self, seq: int, size: int) -> None:
        """Note that frame `seq` of `size` bytes was sent."""
        self._next_seq = seq + 1
        self._sizes.append((seq, size))
        self._bytes += size

    def settle(self, high_water_seq: int) -> None:
        """Note that the timeline stands at `high_water_seq`; lower than before when the store lost its last writes."""
        self._high_water_seq = high_water_seq
        while self._sizes and self._sizes[0][0] <= high_water_seq:
            self._bytes -= self._sizes.popleft()[1]

    def has_room(self) -> bool:
        """Say whether another frame may be sent. With nothing on its way it always may, however large it is."""
        return self.frames_out < self._window_frames and (self._bytes < self._window_bytes or not self._sizes)

    def has_slack(self) -> bool:
        """Say whether a quarter of the window is free: what to wait for, so that a reader does not stop at every frame."""
        return 4 * self.frames_out <= 3 * self._window_frames and 4 * self._bytes <= 3 * self._window_bytes
