"""Opens what is in a file: a photo in tiles, or whatever FFmpeg reads."""

import os

from moodline.services.ingest.file.heif import HeifPicture, photo_in
from moodline.services.ingest.file.video import open_video
from moodline.services.ingest.media.frames import Cancelled, Source


def open_content(descriptor: int, max_pixels: int, cancelled: Cancelled) -> Source:
    """Open the video or picture that a file descriptor is at the beginning of; closes the descriptor.

    Args and errors: as of `open_video`.
    """
    try:
        photo = photo_in(descriptor)
        if photo is not None:
            return HeifPicture(descriptor, photo, max_pixels)
    except BaseException:
        os.close(descriptor)
        raise
    return open_video(descriptor, max_pixels, cancelled)
