"""Register a file with a service, wait for its end and print its timeline: `python examples/register_and_query.py clip.mp4`.

The file must lie below the directory in which `moodline run` was started. The address of the service is MOODLINE_API_URL.
"""

import sys

from moodline import Client


def main(path: str) -> None:
    """Print the shares of the whole file, then one line for each ten seconds."""
    with Client() as moodline:
        moodline.add_stream("example", path, sample_fps="5")
        moodline.wait_until_ended("example", timeout_s=600)
        timeline = moodline.timeline("example", resolution="10s")
        print("the whole file:", timeline.summary.shares)
        for point in timeline.points:
            print(f"{point.position_s:6.1f} s  {point.dominant or point.empty}")
        moodline.delete_stream("example")


if __name__ == "__main__":
    main(sys.argv[1])
