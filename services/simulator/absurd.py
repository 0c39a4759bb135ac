"""Parameter sets that are valid by their syntax and ask for absurd pictures, to try a decoder's limits."""

from moodline.services.simulator.options import Codec
from moodline.services.simulator.packets import PARAMETER_SETS, nal_kind

ABSURD_BLOCKS = 60_000
"""Side of the picture in blocks of 16 px: nearly a million pixels wide and high."""


class _Bits:
    def __init__(self) -> None:
        self._text = ""

    def put(self, value: int, width: int) -> None:
        self._text += f"{value:0{width}b}"

    def golomb(self, *values: int) -> None:
        """Append unsigned Exp-Golomb codes, ue(v)."""
        for value in values:
            code = f"{value + 1:b}"
            self._text += "0" * (len(code) - 1) + code

    def rbsp(self) -> bytes:
        """Return the bits with the stop bit, and with emulation prevention."""
        text = self._text + "1"
        text += "0" * (-len(text) % 8)
        out = bytearray()
        for byte in int(text, 2).to_bytes(len(text) // 8, "big"):
            if out[-2:] == b"\x00\x00" and byte <= 3:
                out.append(3)
            out.append(byte)
        return bytes(out)


def absurd_sps(codec: Codec) -> bytes:
    """Return an SPS of H.264 (baseline, level 6.2) or H.265 (main) for a picture of 960,000 x 960,000 px."""
    bits = _Bits()
    if codec is Codec.H264:
        bits.put(66, 8)
        bits.put(0, 8)
        bits.put(62, 8)
        # Id 0, log2_max_frame_num 4, pic_order_cnt_type 2, 16 reference frames.
        bits.golomb(0, 0, 2, 16)
        bits.put(0, 1)
        bits.golomb(ABSURD_BLOCKS - 1, ABSURD_BLOCKS - 1)
        # Frames only, direct 8x8, no cropping, no VUI.
        bits.put(0b1100, 4)
        return b"\x67" + bits.rbsp()
    # VPS 0, one sub-layer, nested; main profile with its compatibility flags, level 6.2.
    bits.put(0b0000_000_1, 8)
    bits.put(1, 8)
    bits.put(0x60000000, 32)
    bits.put(0x900000000000, 48)
    bits.put(186, 8)
    # Id 0, 4:2:0, width, height; no window; 8 bit; 8 bits of order count.
    bits.golomb(0, 1, 16 * ABSURD_BLOCKS, 16 * ABSURD_BLOCKS)
    bits.put(0, 1)
    bits.golomb(0, 0, 4)
    bits.put(1, 1)
    # 16 frames are kept; blocks of 8 to 64 px, transforms of 4 to 32 px.
    bits.golomb(15, 0, 0, 0, 3, 0, 3, 0, 0)
    bits.put(0, 4)
    bits.golomb(0)
    bits.put(0, 4)
    return b"\x42\x01" + bits.rbsp()


def with_absurd_sps(payloads: tuple[bytes, ...], codec: Codec) -> tuple[bytes, ...]:
    """Return a frame's payloads with its SPS replaced; a JPEG gets the greatest size that RTP can say."""
    if codec is Codec.MJPEG:
        return tuple(payload[:6] + b"\xff\xff" + payload[8:] for payload in payloads)
    sps = PARAMETER_SETS[codec][-2]
    return tuple(absurd_sps(codec) if nal_kind(payload, codec) == sps else payload for payload in payloads)
