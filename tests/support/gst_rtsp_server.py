"""A real RTSP server for tests, by GStreamer. Runs on the system's Python, which has `gi`; knows nothing of the project.

Takes one JSON object as its argument: `port`, `mounts` (path -> GStreamer pipeline), `user`, `password`, `digest`,
`certificate` (PEM of certificate and key).
"""

import json
import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtsp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtsp, GstRtspServer  # noqa: E402


def main() -> None:
    options = json.loads(sys.argv[1])
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(options["port"]))
    access = _secure(server, options)
    for path, pipeline in options["mounts"].items():
        factory = GstRtspServer.RTSPMediaFactory()
        factory.set_launch(pipeline)
        factory.set_shared(True)
        if access is not None:
            _permit(factory)
        server.get_mount_points().add_factory(path, factory)
    if not server.attach(None):
        sys.exit("the port is taken")
    GLib.MainLoop().run()


def _secure(server, options):
    """Set log-in and TLS up; return the authentication, or None when there is neither."""
    if not options.get("user") and not options.get("certificate"):
        return None
    auth = GstRtspServer.RTSPAuth()
    if options.get("certificate"):
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(options["certificate"]))
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "watcher")
    if not options.get("user"):
        auth.set_default_token(token)
    elif options.get("digest"):
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(options["user"], options["password"], token)
    else:
        basic = GstRtspServer.RTSPAuth.make_basic(options["user"], options["password"])
        auth.add_basic(basic, token)
    server.set_auth(auth)
    return auth


def _permit(factory) -> None:
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("watcher", "media.factory.access", True)
    permissions.add_permission_for_role("watcher", "media.factory.construct", True)
    factory.set_permissions(permissions)


if __name__ == "__main__":
    main()
