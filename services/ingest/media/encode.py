"""From a decoded picture to the JPEG that travels on the bus. The same picture always gives the same bytes."""

import cv2

from moodline.services.ingest.media.frames import BgrImage
from moodline.shared.errors import ImageError


def reduce_image(image: BgrImage, max_side_px: int) -> BgrImage:
    """Return the image with its longer side at most `max_side_px`, proportions kept; itself when it is small enough."""
    height, width = image.shape[:2]
    longest = max(width, height)
    if longest <= max_side_px:
        return image
    # Rounded to the nearest px in integers; no side vanishes.
    size = (
        max(1, (2 * width * max_side_px + longest) // (2 * longest)),
        max(1, (2 * height * max_side_px + longest) // (2 * longest)),
    )
    reduced: BgrImage = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return reduced


def encode_jpeg(image: BgrImage, quality: int) -> bytes:
    """Return the image as a JPEG; `quality` is 0 to 100.

    Raises:
        ImageError: the image cannot be encoded.
    """
    try:
        encoded, data = cv2.imencode(".jpg", image, (cv2.IMWRITE_JPEG_QUALITY, quality))
    except cv2.error as error:
        if error.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise ImageError(f"the frame cannot be encoded as JPEG: {error.err}") from None
    if not encoded:
        raise ImageError("the frame cannot be encoded as JPEG")
    return bytes(data)
