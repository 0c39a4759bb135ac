#!/usr/bin/env bash
# Install the Debian packages that Moodline's tests and local services need: Redis, a Java runtime, Maven, FFmpeg's tools,
# Chromium, Prometheus with promtool, faketime, and GStreamer's RTSP server, an implementation other than our own to test against.
# Only what is missing; no system service is started. Without root or apt it says what to install.
set -euo pipefail

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v java >/dev/null || missing+=(default-jre-headless)
command -v mvn >/dev/null || missing+=(maven)
command -v ffmpeg >/dev/null || missing+=(ffmpeg)
command -v chromium >/dev/null || missing+=(chromium)
command -v promtool >/dev/null || missing+=(prometheus)
command -v faketime >/dev/null || missing+=(faketime)
command -v mosquitto >/dev/null || [[ -x /usr/sbin/mosquitto ]] || missing+=(mosquitto)
command -v nginx >/dev/null || [[ -x /usr/sbin/nginx ]] || missing+=(nginx-light)
has_rtsp_server='import gi; gi.require_version("Gst", "1.0"); gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
assert all(map(Gst.ElementFactory.find, ("videoconvert", "rtph264pay", "jpegenc", "x264enc", "x265enc", "avenc_mpeg4")))'
/usr/bin/python3 -c "$has_rtsp_server" 2>/dev/null || missing+=(
    python3-gi gir1.2-gst-rtsp-server-1.0 glib-networking gstreamer1.0-libav gstreamer1.0-plugins-{base,good,bad,ugly}
)
if [[ ${#missing[@]} -eq 0 ]]; then
    exit 0
fi
if [[ $(id -u) -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "system-packages: please install what is missing: ${missing[*]} (Debian's names), or run this as root on Debian" >&2
    exit 1
fi

# Installing redis-server would start it as a system service, on the port that services.sh uses.
guard=/usr/sbin/policy-rc.d
if [[ ! -e $guard ]]; then
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod 755 "$guard"
    trap 'rm -f "$guard"' EXIT
fi

echo "system-packages: installing ${missing[*]}" >&2
log=$(mktemp)
install() {
    DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends "${missing[@]}" >"$log" 2>&1
}
if ! install && ! { apt-get update -qq >"$log" 2>&1 && install; }; then
    tail -n 20 "$log" >&2
    echo "system-packages: apt-get failed; its whole output is in $log" >&2
    exit 1
fi
rm -f "$log"
