"""RTSP cameras: signalling (RFC 2326), media packets (RFC 3550), and payloads of H.264, H.265, JPEG and MPEG-4 video."""
