"""`python -m moodline.services.simulator`: serves what the first line of standard input says, until standard input ends.

So the server ends with the process that started it, however that one ends. Answers with one line: `Ports`, or an error.
"""

import asyncio
import contextlib
import sys

import msgspec

from moodline.services.simulator.options import Options
from moodline.services.simulator.server import SimulatorServer
from moodline.shared.errors import MoodlineError


async def serve() -> None:
    """Serve as told over standard input and output."""
    options = msgspec.json.decode(sys.stdin.buffer.readline(), type=Options)
    try:
        async with SimulatorServer(options) as server:
            _set_state(msgspec.json.encode(server.ports))
            ended = asyncio.Event()
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
            await ended.wait()
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
    except MoodlineError as error:
        _set_state(msgspec.json.encode({"error": str(error)}))


def _set_state(line: bytes) -> None:
    sys.stdout.buffer.write(line + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve())
