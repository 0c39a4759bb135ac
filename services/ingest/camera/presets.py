"""The forms of URLs under which well-known makers' cameras give their video. `{host}` and `{channel}` are to be filled in."""

from typing import Final, NamedTuple


class Preset(NamedTuple):
    """One maker's URLs: the main stream, and the small sub stream, which is mostly enough for faces; "" when there is none."""

    main: str
    sub: str
    note: str = ""


PRESETS: Final[dict[str, Preset]] = {
    "amcrest": Preset(
        "rtsp://{host}:554/cam/realmonitor?channel={channel}&subtype=0",
        "rtsp://{host}:554/cam/realmonitor?channel={channel}&subtype=1",
    ),
    "axis": Preset(
        "rtsp://{host}:554/axis-media/media.amp?videocodec=h264",
        "rtsp://{host}:554/axis-media/media.amp?videocodec=h264&resolution=640x360",
    ),
    "bosch": Preset("rtsp://{host}:554/rtsp_tunnel?inst=1", "rtsp://{host}:554/rtsp_tunnel?inst=2"),
    "dahua": Preset(
        "rtsp://{host}:554/cam/realmonitor?channel={channel}&subtype=0",
        "rtsp://{host}:554/cam/realmonitor?channel={channel}&subtype=1",
    ),
    "foscam": Preset("rtsp://{host}:88/videoMain", "rtsp://{host}:88/videoSub", "some models use port 554"),
    "hanwha": Preset("rtsp://{host}:554/profile2/media.smp", "rtsp://{host}:554/profile3/media.smp"),
    "hikvision": Preset("rtsp://{host}:554/Streaming/Channels/{channel}01", "rtsp://{host}:554/Streaming/Channels/{channel}02"),
    "onvif": Preset("rtsp://{host}:554/onvif1", "rtsp://{host}:554/onvif2", "many cameras without a name; often UDP only"),
    "reolink": Preset(
        "rtsp://{host}:554/h264Preview_{channel:02d}_main",
        "rtsp://{host}:554/h264Preview_{channel:02d}_sub",
        "RTSP must be switched on in the camera; h265Preview_ on some models",
    ),
    "tapo": Preset(
        "rtsp://{host}:554/stream1", "rtsp://{host}:554/stream2", "needs the camera account of the app, not the cloud's"
    ),
    "unifi": Preset("rtsps://{host}:7441/TOKEN?enableSrtp", "", "copy it from the console, without ?enableSrtp"),
    "uniview": Preset("rtsp://{host}:554/media/video1", "rtsp://{host}:554/media/video2"),
    "vivotek": Preset("rtsp://{host}:554/live.sdp", "rtsp://{host}:554/live2.sdp"),
    "wyze": Preset("rtsp://{host}/live", "", "only with the maker's RTSP firmware"),
}
"""By maker, in lower case."""


def urls_of(maker: str, host: str = "HOST", channel: int = 1) -> tuple[str, str]:
    """Return main and sub URL of a maker's camera. Raises `KeyError` for a maker that is not in `PRESETS`."""
    preset = PRESETS[maker]
    main, sub = (url.format(host=host, channel=channel) if url else "" for url in (preset.main, preset.sub))
    return main, sub
