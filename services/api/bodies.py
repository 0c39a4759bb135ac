"""Reading bodies piece by piece, within limits of size and time."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from moodline.shared.errors import MoodlineError, TooSlowError


async def chunks_of(request: Request, timeout_s: float, least_bytes: int = 0) -> AsyncIterator[bytes]:
    """Yield a body as it comes.

    Raises:
        TooSlowError: nothing came for `timeout_s`, or less than `least_bytes` in two such times, or the sender went away.
    """
    stream, loop = aiter(request.stream()), asyncio.get_running_loop()
    since_s, came = loop.time(), 0
    while True:
        try:
            async with asyncio.timeout(timeout_s):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TooSlowError(f"nothing of the body came for {timeout_s:g} s") from None
        except ClientDisconnect:
            raise TooSlowError("the sender went away before the body's end") from None
        came += len(chunk)
        if loop.time() - since_s > 2 * timeout_s:
            if came < least_bytes:
                raise TooSlowError(f"the body comes too slowly: {came} bytes in {2 * timeout_s:g} s")
            since_s, came = loop.time(), 0
        if chunk:
            yield chunk


async def whole_body(request: Request, limit_bytes: int, timeout_s: float, too_large: MoodlineError) -> bytes:
    """Return a body that is held in memory.

    Raises:
        TooSlowError: it had not come within `timeout_s`, or the sender went away.
        MoodlineError: `too_large`, as soon as more than `limit_bytes` are announced or have come.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit_bytes:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(timeout_s):
            async for chunk in chunks_of(request, timeout_s):
                body += chunk
                if len(body) > limit_bytes:
                    raise too_large
    except TimeoutError:
        raise TooSlowError(f"the body had not come within {timeout_s:g} s") from None
    return bytes(body)
