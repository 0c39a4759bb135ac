"""A small ONVIF camera: log-in by WS-UsernameToken or HTTP Digest, profiles, addresses of streams, and a clock of its own."""

import base64
import hashlib
import re
import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

ENVELOPE = (
    '<?xml version="1.0" encoding="UTF-8"?><s:Envelope xmlns:s="http://www.w3.org/2003/05/soap-envelope" '
    'xmlns:tt="http://www.onvif.org/ver10/schema" xmlns:tds="http://www.onvif.org/ver10/device/wsdl" '
    'xmlns:trt="http://www.onvif.org/ver10/media/wsdl"><s:Body>{}</s:Body></s:Envelope>'
)
FAULT = (
    "<s:Fault><s:Code><s:Value>s:Sender</s:Value><s:Subcode><s:Value>{}</s:Value></s:Subcode></s:Code>"
    "<s:Reason><s:Text>{}</s:Text></s:Reason></s:Fault>"
)
PROFILE = (
    '<trt:Profiles token="{token}" fixed="true"><tt:Name>{name}</tt:Name>'
    '<tt:VideoEncoderConfiguration token="e"><tt:Name>e</tt:Name><tt:Encoding>{codec}</tt:Encoding>'
    "<tt:Resolution><tt:Width>{width}</tt:Width><tt:Height>{height}</tt:Height></tt:Resolution>"
    "<tt:Quality>4</tt:Quality><tt:RateControl><tt:FrameRateLimit>{fps}</tt:FrameRateLimit></tt:RateControl>"
    "</tt:VideoEncoderConfiguration></trt:Profiles>"
)


@dataclass
class OnvifCamera:
    """A context manager. What is said can be replaced by request: `answers["GetProfiles"] = "<xml…>"`, whole bodies."""

    user: str = "viewer"
    password: str = "hunter2"
    clock_off_s: float = 0.0
    digest_over_http: bool = False
    profiles: list[dict[str, Any]] = field(
        default_factory=lambda: [
            {"token": "main", "name": "Main", "codec": "H264", "width": 3840, "height": 2160, "fps": 25},
            {"token": "sub", "name": "Sub", "codec": "H264", "width": 640, "height": 360, "fps": 15},
            {"token": "tiny", "name": "Tiny", "codec": "JPEG", "width": 320, "height": 180, "fps": 5},
        ]
    )
    uri: Callable[["OnvifCamera", str], str] = lambda camera, token: f"rtsp://{camera.host}:554/{token}?channel=1"
    answers: dict[str, str | bytes] = field(default_factory=dict)
    media_path: str = "/onvif/media_service"
    asked: list[str] = field(default_factory=list)
    host: str = "127.0.0.1"

    def __enter__(self) -> Self:
        self._nonce = secrets.token_hex(8)
        self._server = ThreadingHTTPServer((self.host, 0), self._handler())
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def _handler(camera: "OnvifCamera") -> type[BaseHTTPRequestHandler]:  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                status, headers, answer = camera.answer(self.path, body, self.headers.get("authorization", ""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                with suppress(OSError):
                    self.wfile.write(answer)

        return Handler

    def answer(self, path: str, body: str, authorization: str) -> tuple[int, dict[str, str], bytes]:
        found = re.search(r"<(?:tds|trt|trt2):(\w+)", body)
        name = found[1] if found else ""
        self.asked.append(name)
        given = self.answers.get(name)
        if given is not None:
            return 200, {}, given if isinstance(given, bytes) else given.encode()
        if name != "GetSystemDateAndTime":
            if self.digest_over_http and not self._digest_is_right(path, authorization):
                challenge = f'Digest realm="camera", nonce="{self._nonce}", qop="auth", algorithm=MD5'
                return 401, {"WWW-Authenticate": challenge}, b""
            if not self.digest_over_http and not self._token_is_right(body):
                return 400, {}, ENVELOPE.format(FAULT.format("ter:NotAuthorized", "Sender not Authorized")).encode()
        return 200, {}, ENVELOPE.format(self._said(name, body)).encode()

    def _said(self, name: str, body: str) -> str:
        base = f"http://10.9.8.7:{self.port}"  # as behind a router: an address that leads nowhere
        if name == "GetSystemDateAndTime":
            now = datetime.now(UTC) + timedelta(seconds=self.clock_off_s)
            return (
                "<tds:GetSystemDateAndTimeResponse><tds:SystemDateAndTime><tt:UTCDateTime>"
                f"<tt:Time><tt:Hour>{now.hour}</tt:Hour><tt:Minute>{now.minute}</tt:Minute><tt:Second>{now.second}</tt:Second></tt:Time>"
                f"<tt:Date><tt:Year>{now.year}</tt:Year><tt:Month>{now.month}</tt:Month><tt:Day>{now.day}</tt:Day></tt:Date>"
                "</tt:UTCDateTime></tds:SystemDateAndTime></tds:GetSystemDateAndTimeResponse>"
            )
        if name == "GetServices":
            return (
                "<tds:GetServicesResponse><tds:Service><tds:Namespace>http://www.onvif.org/ver10/media/wsdl</tds:Namespace>"
                f"<tds:XAddr>{base}{self.media_path}</tds:XAddr></tds:Service></tds:GetServicesResponse>"
            )
        if name == "GetDeviceInformation":
            return (
                "<tds:GetDeviceInformationResponse><tds:Manufacturer>Acme</tds:Manufacturer><tds:Model>Dome 4K</tds:Model>"
                "<tds:FirmwareVersion>1.2</tds:FirmwareVersion></tds:GetDeviceInformationResponse>"
            )
        if name == "GetProfiles":
            listed = "".join(PROFILE.format(**each) for each in self.profiles)
            return f"<trt:GetProfilesResponse>{listed}</trt:GetProfilesResponse>"
        if name == "GetStreamUri":
            token = re.search(r"ProfileToken>([^<]*)<", body)
            uri = self.uri(self, token[1] if token else "").replace("&", "&amp;")
            return f"<trt:GetStreamUriResponse><trt:MediaUri><tt:Uri>{uri}</tt:Uri></trt:MediaUri></trt:GetStreamUriResponse>"
        return FAULT.format("ter:ActionNotSupported", "Optional Action Not Implemented")

    def _token_is_right(self, body: str) -> bool:
        """Check a WS-UsernameToken as cameras do: the digest, and that its time is near their own."""
        parts = {name: re.search(rf"<wsse:{name}(?: [^>]*)?>([^<]*)<", body) for name in ("Username", "Password", "Nonce")}
        created = re.search(r"<wsu:Created>([^<]*)<", body)
        if created is None or not all(parts.values()):
            return False
        username, digest, nonce = (parts[name][1] for name in ("Username", "Password", "Nonce"))  # type: ignore[index]
        wanted = hashlib.sha1(base64.b64decode(nonce) + created[1].encode() + self.password.encode()).digest()
        told = datetime.fromisoformat(created[1].replace("Z", "+00:00"))
        off_s = (told - datetime.now(UTC)).total_seconds() - self.clock_off_s
        return username == self.user and base64.b64decode(digest) == wanted and abs(off_s) < 60

    def _digest_is_right(self, path: str, authorization: str) -> bool:
        told = dict(re.findall(r'(\w+)="?([^",]*)"?', authorization))
        if not told:
            return False
        hashed = lambda *parts: hashlib.md5(":".join(parts).encode()).hexdigest()  # noqa: E731
        first, second = hashed(self.user, "camera", self.password), hashed("POST", path)
        wanted = hashed(first, self._nonce, told.get("nc", ""), told.get("cnonce", ""), "auth", second)
        return told.get("username") == self.user and told.get("response") == wanted
