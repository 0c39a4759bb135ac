"""Receive one alert by webhook and check its signature: `python examples/webhook_receiver.py STREAM`.

Makes a rule that fires when a live stream shows no face for two seconds, waits for its first event, and ends. A webhook to this
very machine is allowed only if the service was started with MOODLINE_ALERTS_WEBHOOK_ALLOW_LOOPBACK=true.
"""

import hashlib
import hmac
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

from moodline import Client

PORT = 8099
EVENT_AGE_S = 300


def is_genuine(secret: str, body: bytes, header: str) -> bool:
    """Say whether Moodline sent this body within the last five minutes."""
    sent, _, signature = header.removeprefix("t=").partition(",v1=")
    wanted = hmac.new(secret.encode(), sent.encode() + b"." + body, hashlib.sha256).hexdigest()
    return hmac.compare_digest(signature, wanted) and abs(time.time() - int(sent)) <= EVENT_AGE_S


class Receiver(BaseHTTPRequestHandler):
    """Prints an event if its signature is right."""

    secret = ""

    def do_POST(self) -> None:
        """Answer 204 to a genuine event, 401 to anything else."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        genuine = is_genuine(self.secret, body, self.headers["Moodline-Signature"])
        self.send_response(204 if genuine else 401)
        self.end_headers()
        if genuine:
            event = json.loads(body)
            print(f"{event['rule']} on {event['stream']}: {event['kind']}, since {event['since']}")

    def log_message(self, *_: object) -> None:
        """Print nothing else."""


def main(stream: str) -> None:
    """Make the rule, wait for one event, remove the rule."""
    with Client() as moodline:
        rule = moodline.add_rule("nobody-there", "no_faces", stream=stream, for_s=2, webhook_url=f"http://127.0.0.1:{PORT}/")
        Receiver.secret = rule.webhook_secret or ""
        with HTTPServer(("127.0.0.1", PORT), Receiver) as server:
            server.handle_request()
        moodline.remove_rule("nobody-there")


if __name__ == "__main__":
    main(sys.argv[1])
