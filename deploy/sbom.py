"""Write the bill of materials of a lock as CycloneDX 1.6 JSON: `python deploy/sbom.py requirements.lock > sbom.cdx.json`.

Every package of the lock with its version, its hashes and, where it depends on the platform, on which. The same lock gives the
same bytes. https://cyclonedx.org/docs/1.6/json/
"""

import json
import re
import sys
from pathlib import Path
from typing import Any, Final

_REQUIREMENT: Final = re.compile(
    r"^(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?==(?P<version>[^ ;\\]+)(?: *; *(?P<marker>[^\\]+?))? *\\?$"
)
_HASH: Final = re.compile(r"--hash=sha256:([0-9a-f]{64})")


def components(lock: str) -> list[dict[str, Any]]:
    """Return the packages of a lock with hashes, as pip reads it.

    Raises:
        ValueError: a line is neither a package nor a hash of one, so the list would not be whole.
    """
    found: list[dict[str, Any]] = []
    for line in lock.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if match := _HASH.search(line):
            found[-1]["hashes"].append({"alg": "SHA-256", "content": match[1]})
        elif match := _REQUIREMENT.match(line):
            found.append(_component(match["name"], match["version"], match["marker"]))
        else:
            raise ValueError(f"what is this in a lock? {line!r}")
    return found


def _component(name: str, version: str, marker: str | None) -> dict[str, Any]:
    normal = re.sub(r"[-_.]+", "-", name).lower()
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": f"pkg:pypi/{normal}@{version}" + (f"#{marker}" if marker else ""),
        "name": normal,
        "version": version,
        "purl": f"pkg:pypi/{normal}@{version.replace('+', '%2B')}",
        "hashes": [],
    }
    if marker:
        component["properties"] = [{"name": "moodline:environment-marker", "value": marker}]
    return component


def document(lock: str, version: str) -> dict[str, Any]:
    """Return the whole bill of materials of Moodline at a version."""
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": {"type": "application", "bom-ref": "moodline", "name": "moodline", "version": version}},
        "components": components(lock),
    }


def main() -> None:
    """Print the document of the lock that the first argument names."""
    source = (Path(__file__).parent.parent / "moodline" / "__init__.py").read_text()
    (version,) = re.findall(r'^__version__ = "([^"]+)"', source, re.MULTILINE) or ["0"]
    sys.stdout.write(json.dumps(document(Path(sys.argv[1]).read_text(), version), indent=1) + "\n")


if __name__ == "__main__":
    main()
