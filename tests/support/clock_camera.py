"""An RTSP camera that draws the time at which a frame was taken into it: 16 squares, black or white, in steps of 10 ms."""

import contextlib
import socket
import struct
import threading
import time
from fractions import Fraction
from typing import Any, Self

import av
import numpy as np

SIDE_PX = 16
STEP_S = 0.01
_BITS = 16
_SDP = (
    "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=clock\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:track1\r\n"
)


def drawn(at_s: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return a picture with a time in it: uint8 (32, 128, 3)."""
    number = round(at_s / STEP_S) % 2**_BITS
    bits = np.array([255 * (number >> place & 1) for place in range(_BITS)], np.uint8).reshape(2, _BITS // 2)
    return np.repeat(np.kron(bits, np.ones((SIDE_PX, SIDE_PX), np.uint8))[:, :, None], 3, axis=2)


def age_of(image: np.ndarray[Any, np.dtype[np.uint8]], now_s: float) -> float:
    """Return how long ago the picture was taken, in s; up to 655 s."""
    means = image[:, :, 1].reshape(2, SIDE_PX, _BITS // 2, SIDE_PX).mean(axis=(1, 3)).ravel()
    number = sum(1 << place for place, mean in enumerate(means) if mean > 127)
    return float((round(now_s / STEP_S) - number) % 2**_BITS) * STEP_S


class ClockCamera:
    """A context manager. Sends over the RTSP connection, as fast as frames are due and the socket takes them."""

    def __init__(self, fps: int, keyframe_s: float = 1.0) -> None:
        self._fps, self._gop = fps, round(fps * keyframe_s)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connected,), daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        held = b""
        with connected, contextlib.suppress(OSError):
            while data := connected.recv(65_536):
                held += data
                # Reports of the receiver stand between requests.
                while held.startswith(b"$") and len(held) >= 4 + held[3]:
                    held = held[4 + held[3] :]
                while b"\r\n\r\n" in held and not held.startswith(b"$"):
                    head, held = held.split(b"\r\n\r\n", 1)
                    lines = head.decode().split("\r\n")
                    self._answer(connected, lines[0].split(" ")[0], next(line for line in lines if line.startswith("CSeq")))

    def _answer(self, connected: socket.socket, method: str, number: str) -> None:
        body = _SDP if method == "DESCRIBE" else ""
        fields = [number, f"Content-Length: {len(body)}"]
        if method == "SETUP":
            fields += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1;timeout=600"]
        connected.sendall("\r\n".join(["RTSP/1.0 200 OK", *fields, "", body]).encode())
        if method == "PLAY":
            threading.Thread(target=self._play, args=(connected,), daemon=True).start()

    def _play(self, connected: socket.socket) -> None:
        encoder = av.CodecContext.create("libx264", "w")
        encoder.width, encoder.height, encoder.pix_fmt = SIDE_PX * _BITS // 2, 2 * SIDE_PX, "yuv420p"
        encoder.time_base, encoder.gop_size = Fraction(1, self._fps), self._gop
        encoder.options = {"preset": "ultrafast", "tune": "zerolatency"}
        began_s, sequence = time.monotonic(), 0
        with contextlib.suppress(OSError):
            for number in range(10**9):
                self._ended.wait(max(0.0, began_s + number / self._fps - time.monotonic()))
                if self._ended.is_set():
                    return
                frame = av.VideoFrame.from_ndarray(drawn(time.time()), format="bgr24")
                frame.pts = number
                for packet in encoder.encode(frame):
                    nals = [nal for nal in bytes(packet).replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if nal]
                    for place, nal in enumerate(nals):
                        marker = 0x80 if place == len(nals) - 1 else 0
                        stamp = number * 90_000 // self._fps % 2**32
                        rtp = struct.pack(">BBHII", 0x80, 96 | marker, sequence % 65_536, stamp, 7) + nal
                        connected.sendall(struct.pack(">BBH", 0x24, 0, len(rtp)) + rtp)
                        sequence += 1
