"""Pin the images that Compose starts and builds on to what your registry gives today: `python deploy/pin_images.py`.

Pulls every image that `.env` names (`…_IMAGE`, but Moodline's own, which are built here), asks Docker for its digest, and writes
`deploy/compose/images.env` with lines such as `REDIS_IMAGE=redis:7.2-bookworm@sha256:…`. A tag may lead to something else
tomorrow, a digest cannot. Run it again to take newer ones: it says what has changed.
"""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).resolve().parent.parent
_IMAGE: Final = re.compile(r"^(?P<name>(?!MOODLINE_)[A-Z]+_IMAGE)=(?P<image>[^\s@]+)(?:@\S+)?\s*$", re.MULTILINE)
_DIGEST: Final = re.compile(r"@(sha256:[0-9a-f]{64})$")
_HEAD: Final = """\
# Written by deploy/pin_images.py. Use it after .env, whose tags it replaces:
#   docker compose --env-file .env --env-file deploy/compose/images.env up --build
"""


def pinned(image: str) -> str:
    """Return an image's name with tag and digest, such as `redis:7.2@sha256:…`.

    Raises:
        ValueError: it cannot be pulled, or Docker knows no digest of it because it comes from no registry.
    """
    _docker("pull", "--quiet", image)
    known = json.loads(_docker("image", "inspect", "--format", "{{json .RepoDigests}}", image)) or []
    # An image that has been pulled under several names has a digest for each of them.
    repository = re.sub(r":[^/:]*$", "", image)
    digests = {match[1] for text in known if _is_of(text, repository) and (match := _DIGEST.search(text))}
    if len(digests) != 1:
        raise ValueError(f"Docker knows {len(digests)} digests of {image}; it must come from a registry, under this name")
    return f"{image}@{digests.pop()}"


def _is_of(digest: str, repository: str) -> bool:
    """Return whether a digest is of a repository; Docker leaves out the first parts of names in its own registry."""
    name = digest.partition("@")[0]
    return name == repository or repository.endswith(f"/{name}") or name.endswith(f"/{repository}")


def _docker(*arguments: str) -> str:
    docker = shutil.which("docker")
    if docker is None:
        raise ValueError("docker is not installed")
    done = subprocess.run([docker, *arguments], capture_output=True, text=True, check=False)  # noqa: S603 - words of .env
    if done.returncode:
        raise ValueError(f"`docker {' '.join(arguments)}` failed: {done.stderr.strip()}")
    return done.stdout


def main(root: Path = _ROOT) -> int:
    """Write the file; return the exit code."""
    target = root / "deploy" / "compose" / "images.env"
    before = target.read_text() if target.exists() else ""
    try:
        lines = [f"{match['name']}={pinned(match['image'])}\n" for match in _IMAGE.finditer((root / ".env").read_text())]
    except ValueError as error:
        sys.stderr.write(f"nothing is written: {error}\n")
        return 1
    target.write_text(_HEAD + "".join(lines))
    for line in lines:
        sys.stdout.write(f"{'same   ' if line in before else 'changed'} {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
