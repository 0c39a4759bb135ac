"""Routes for those who run the service: is it alive, can it work, and its metrics."""

from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic import BaseModel, ConfigDict

from moodline.services.api.access import Viewer, require_all_streams
from moodline.services.api.context import Ctx
from moodline.services.api.errors import error_response, problem_responses

router = APIRouter(tags=["operation"])


class Health(BaseModel):
    """The process answers."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok"}]})

    status: str = "ok"


class Ready(BaseModel):
    """Every part that is needed works."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"ready": True, "checks": {"store": True, "ingest": True}}]})

    ready: bool
    checks: dict[str, bool]


@router.get("/healthz", summary="Is the process alive?")
def healthz() -> Health:
    """Answer, without asking anybody else."""
    return Health()


@router.get("/readyz", summary="Can the service work?", response_model=Ready, responses=problem_responses("not_ready"))
def readyz(ctx: Ctx) -> Ready | Response:
    """Ask the store whether it takes writes and, where they run in this process, the workers."""
    problem = ctx.store_check.problem()
    checks, reasons = {"store": problem is None}, []
    if problem is not None:
        reasons.append(f"the store does not take writes ({problem})")
    if ctx.readiness is not None:
        parts = ctx.readiness()
        checks |= parts
        reasons += [f"{name} does not run" for name, works in parts.items() if not works]
    if reasons:
        return error_response("not_ready", f"not ready: {'; '.join(reasons)}")
    return Ready(ready=True, checks=checks)


@router.get(
    "/metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"example": 'moodline_worker_up{worker="ingest"} 1.0\n'}}, "description": "Metrics"}
    },
)
def metrics(ctx: Ctx, caller: Viewer) -> Response:
    """Return the metrics of this process in Prometheus' text format. Needs a key that may see all streams."""
    require_all_streams(caller)
    return Response(ctx.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
