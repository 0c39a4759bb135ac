"""The proxy of docs/hardening.md, as it is written there, in front of a service that listens on loopback."""

import re
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from moodline.services.api import PREFIX
from moodline.services.api.server import ApiServer
from moodline.services.auth.audit import read_changes
from moodline.services.auth.callers import Role
from tests.support.access import make_key
from tests.support.api import ApiWorld
from tests.support.servers import die_with_parent, free_port

NGINX = shutil.which("nginx") or "/usr/sbin/nginx"
_CERTIFICATE = [
    *["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=moodline.example", "-addext"]
]
_CERTIFICATE += ["subjectAltName=DNS:moodline.example"]
Serve = Callable[..., tuple[ApiWorld, ApiServer]]

pytestmark = pytest.mark.skipif(not Path(NGINX).exists(), reason="nginx is not installed")


@contextmanager
def proxy(repo: Path, folder: Path, api_port: int) -> Iterator[httpx.Client]:
    """Start nginx with the page's configuration on a free port, and yield a client of it that sends its real scheme."""
    page = (repo / "docs" / "hardening.md").read_text()
    found = re.search(r"```nginx\n(.*?)```", page, re.DOTALL)
    assert found is not None
    port, certificate, key = free_port(), folder / "moodline.crt", folder / "moodline.key"
    subprocess.run(
        [*_CERTIFICATE, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )
    site = found[1].replace("listen 443 ssl", f"listen 127.0.0.1:{port} ssl").replace("127.0.0.1:8000", f"127.0.0.1:{api_port}")
    site = site.replace("/etc/nginx/moodline", str(folder / "moodline"))
    config = folder / "nginx.conf"
    config.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n"
        f"events {{}}\nhttp {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;\n"
        f"fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;\n{site}\n}}\n"
    )
    process = subprocess.Popen([*die_with_parent(), NGINX, "-p", str(folder), "-c", str(config)], stderr=subprocess.DEVNULL)
    context = ssl.create_default_context(cafile=str(certificate))
    transport = httpx.HTTPTransport(verify=context, retries=20)
    try:
        with httpx.Client(
            base_url=f"https://127.0.0.1:{port}",
            headers={"host": "moodline.example"},
            transport=transport,
            timeout=20,
        ) as client:
            yield client
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
def site(serve: Serve, repo: Path, tmp_path: Path) -> Iterator[tuple[ApiWorld, httpx.Client]]:
    world, server = serve()
    folder = tmp_path / "nginx"
    folder.mkdir()
    with proxy(repo, folder, server.port) as client:
        yield world, client


def ask(client: httpx.Client, method: str, path: str, **options: object) -> httpx.Response:
    extensions = {"sni_hostname": "moodline.example"}
    return client.request(method, path, extensions=extensions, **options)  # type: ignore[arg-type]  # httpx's own


def test_strangers_need_a_key_visitors_get_a_safe_cookie_and_addresses_are_theirs(site: tuple[ApiWorld, httpx.Client]) -> None:
    world, client = site
    # Nobody has made a key yet, and the service listens on loopback alone: through the proxy come strangers all the same.
    refused = ask(client, "GET", f"{PREFIX}/streams")
    assert refused.status_code in (401, 403)
    key = make_key(world, "front", Role.OPERATOR)
    world.app.state.context.authenticator.forget()
    hosts = {"host": "127.0.0.1"}
    spoofed = {"x-forwarded-for": "203.0.113.66", "x-forwarded-proto": "http", **hosts}
    signed_in = ask(client, "POST", f"{PREFIX}/session", json={"key": key}, headers=spoofed)
    assert signed_in.status_code == 200, signed_in.text
    assert "secure" in signed_in.headers["set-cookie"].lower()
    assert "max-age=31536000" in signed_in.headers["strict-transport-security"]
    bearer = {"authorization": f"Bearer {key}", **hosts}
    assert ask(client, "GET", f"{PREFIX}/streams", headers=bearer).status_code == 200
    newest = ask(client, "GET", f"{PREFIX}/session", headers=bearer).json()
    assert newest["name"] == "front"
    notes = [change.ids for _, change in read_changes(world.store, 5)]
    assert notes[0]["address"] == "127.0.0.1"
