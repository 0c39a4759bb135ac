"""The route that tries a camera before it is registered."""

from typing import Final

from fastapi import APIRouter

from moodline.services.api import PREFIX
from moodline.services.api.access import Operator
from moodline.services.api.audit import audited, is_first, nothing_changed
from moodline.services.api.cameras import tested_address
from moodline.services.api.context import Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.models import CameraTestAnswer, CameraTestStep, NewCameraTest
from moodline.shared.errors import NotReadyError

router = APIRouter(prefix=PREFIX, tags=["streams"])

_AT_ONCE: Final = 4
_AT_ONCE_PER_KEY: Final = 2


@router.post(
    "/cameras/test",
    summary="Try a camera",
    responses=problem_responses(
        "stream_not_found", "invalid_stream", "invalid_request", "body_too_large", "seal", "too_busy", "not_ready"
    ),
)
@audited("POST /cameras/test", "body.stream")
def try_camera(ctx: Ctx, caller: Operator, body: NewCameraTest) -> CameraTestAnswer:
    """Try a camera step by step, from where the API runs, and say what to change. Registers nothing; takes up to a minute."""
    with (
        ctx.concurrency.hold(f"camera tests of {caller.name!r}", _AT_ONCE_PER_KEY),
        ctx.concurrency.hold("camera tests", _AT_ONCE),
    ):
        address, url, hint = tested_address(ctx, caller, body)
        if ctx.intake.camera_prober is None:
            raise NotReadyError("this process cannot read cameras; install moodline[ingest] where the API runs")
        steps = [
            CameraTestStep(name=step.name, good=step.good, found=step.found, cure=step.cure)
            for step in ctx.intake.camera_prober(address)
        ]
    if not is_first(ctx, caller, "POST /cameras/test", url):
        nothing_changed()
    return CameraTestAnswer(url=url, hint=hint, works=all(step.good for step in steps), steps=steps)
