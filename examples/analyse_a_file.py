"""Analyse one file without a service, and print what leads in each second: `python examples/analyse_a_file.py clip.mp4`."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path


def main(clip: str) -> None:
    """Print one line for each second: its position in the file, and the leading emotion or why there is none."""
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "timeline.json"
        subprocess.run(["moodline", "analyze", clip, "--resolution", "1s", "--json", str(found)], check=True)
        points = json.loads(found.read_text())["points"]
    for point in points:
        print(f"{point['position_s']:6.1f} s  {point['dominant'] or point['empty']}  {point['faces']} faces")


if __name__ == "__main__":
    main(sys.argv[1])
