"""Examples at the end of each command's help. A test holds each of them against the command's own options."""

from typing import Final

EXAMPLES: Final[dict[str, tuple[str, ...]]] = {
    "analyze": (
        "moodline analyze clip.mp4 --plot timeline.png --annotate out.mp4",
        "moodline analyze clip.mp4 --sample-fps all --faces faces.csv",
        "moodline analyze talks/*.mp4 --json results/",
        "moodline analyze frames/img%04d.png --fps 25",
        "moodline analyze rtsp://camera/main --seconds 60 --csv -",
    ),
    "demo": ("moodline demo --plot demo.png",),
    "run": ("moodline run", "moodline run --data-dir /srv/moodline --media-root /srv/media --host 0.0.0.0 --port 8080"),
    "timeline": ("moodline timeline lobby --from -1h", "moodline timeline lobby --resolution 10s --format csv"),
    "top": ("moodline top", "moodline top --once"),
    "push": ("moodline push clip.mp4 --stream door --loop", "moodline push device://0 --stream door --fps 5"),
    "camera serve": (
        "moodline camera serve clip.mp4 --port 8554",
        "moodline camera serve --paths 4 --fault cam3=silent --quirk cam2=markers",
    ),
    "camera probe": ("moodline camera probe rtsp://192.168.1.20/main --user viewer --password-stdin",),
    "camera discover": ("moodline camera discover", "moodline camera discover 192.0.2.7"),
    "camera profiles": ("moodline camera profiles 192.0.2.7 --user viewer --password-stdin",),
    "camera urls": ("moodline camera urls", "moodline camera urls hikvision --host 192.168.1.20"),
    "key": ("moodline key",),
    "audit": ("moodline audit --limit 20", "moodline audit --data-dir /srv/moodline --json"),
    "setup": ("moodline setup", "moodline setup --check"),
    "train": ("moodline train --config training/configs/shipped.toml --data fer2013.csv",),
    "evaluate": ("moodline evaluate fer-2-small fer2013.csv --out report",),
    "streams add": (
        "moodline streams add lobby lobby.mp4 --wait",
        "moodline streams add door rtsp://192.168.1.20/main --username viewer --password-stdin",
    ),
    "streams ls": ("moodline streams ls", "moodline streams ls --json"),
    "streams show": ("moodline streams show lobby",),
    "streams change": (
        "moodline streams change lobby --label site=berlin --label floor=2",
        "moodline streams change door --sample-fps 2",
    ),
    "streams pause": ("moodline streams pause lobby",),
    "streams resume": ("moodline streams resume lobby",),
    "streams rm": ("moodline streams rm lobby --yes",),
    "models ls": ("moodline models ls",),
    "models activate": ("moodline models activate fer-2-small",),
    "alerts ls": ("moodline alerts ls",),
    "alerts add": (
        "moodline alerts add sad-lobby share --stream lobby --emotion sad --direction over --threshold 0.4 --for 30",
        "moodline alerts add empty-hall no_faces --stream hall --for 600",
    ),
    "alerts show": ("moodline alerts show sad-lobby",),
    "alerts change": ("moodline alerts change sad-lobby --threshold 0.5",),
    "alerts enable": ("moodline alerts enable sad-lobby",),
    "alerts disable": ("moodline alerts disable sad-lobby",),
    "alerts rm": ("moodline alerts rm sad-lobby",),
    "alerts log": ("moodline alerts log --stream lobby --limit 10",),
    "alerts dry-run": ("moodline alerts dry-run sad-lobby --from -24h",),
    "keys add": ("moodline keys add dashboard --role viewer --days 365", "moodline keys add gate --role operator --stream door"),
    "keys ls": ("moodline keys ls",),
    "keys rm": ("moodline keys rm dashboard",),
}
"""Examples by the command's name. Workers have none, because they have no options."""


def examples_text(name: str) -> str | None:
    """Return the end of a command's help."""
    lines = EXAMPLES.get(name)
    return None if lines is None else "Examples:\n\n" + "\n\n".join(lines)
