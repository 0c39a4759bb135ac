"""Payloads of MPEG-4 part 2 (RFC 3016, RFC 6416). Pure; never raises."""

from typing import Final

from moodline.services.ingest.camera.input.access_unit import AccessUnit, Depacketiser

_PICTURE: Final = b"\0\0\1\xb6"


class Mpeg4Depacketiser(Depacketiser):
    """MP4V-ES: the payloads of a time stamp, one after the other."""

    def _add(self, payload: bytes, extension: bytes) -> bool:  # noqa: ARG002  # no extension belongs to it
        begins = bool(self._parts) or not self._after_loss or payload.startswith(b"\0\0\1")
        return bool(payload) and self._keep(payload) and begins

    def _finish(self) -> list[AccessUnit]:
        units = super()._finish()
        if not units:
            return units
        place = units[0].data.find(_PICTURE)
        if place < 0 and not units[0].damaged:
            # Headers alone: they go in front of the picture.
            self._keep(units[0].data)
            self._after_loss = units[0].after_loss
            return []
        # Two bits after the start code say how the picture is coded; 0 is intra.
        intra = place >= 0 and place + 4 < len(units[0].data) and units[0].data[place + 4] < 0x40
        return [units[0]._replace(keyframe=intra)]
