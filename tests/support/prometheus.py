"""A real Prometheus of a test, as a local process."""

import json
import shutil
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.support.servers import HOST, ServerError, ServerProcess, free_port


class PrometheusServer(ServerProcess):
    """Prometheus that scrapes `targets` (job: addresses) each second, with the rules of these files. A context manager."""

    def __init__(self, targets: Mapping[str, Sequence[str]], rules: Sequence[Path] = (), folder: Path | None = None) -> None:
        found = shutil.which("prometheus")
        if found is None:
            raise ServerError("no prometheus on the path: run deploy/local/system-packages.sh")
        super().__init__("prometheus", folder)
        self._program = found
        self.port = free_port()
        configuration = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()
            ],
        }
        (self.folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))

    def query(self, expr: str) -> list[tuple[dict[str, str], float]]:
        """Return what an expression gives now: labels and value of each series. Raises `AssertionError` when it is refused."""
        answer = self._ask("query", query=expr)
        assert answer["status"] == "success", f"{expr}: {answer}"
        return [(item["metric"], float(item["value"][1])) for item in answer["data"]["result"]]

    def rules(self) -> list[dict[str, Any]]:
        """Return all rules with their health and state."""
        return [rule for group in self._ask("rules")["data"]["groups"] for rule in group["rules"]]

    def _ask(self, what: str, **parameters: str) -> dict[str, Any]:
        url = f"http://{HOST}:{self.port}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            found = json.load(error)
        return found

    def _command(self) -> tuple[str, ...]:
        return (
            self._program,
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={HOST}:{self.port}",
        )

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{HOST}:{self.port}/-/ready", timeout=1):
                return True
        except OSError:
            return False
