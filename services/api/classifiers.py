"""Routes about the models of the classifier."""

from pathlib import Path

from fastapi import APIRouter

from moodline.services.api import PREFIX
from moodline.services.api.access import Admin, Caller, Role, Viewer
from moodline.services.api.audit import audited
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.models import ModelAnswer, ModelChange, ModelPage, RefusalAnswer
from moodline.services.report.moments import to_datetime
from moodline.shared.errors import ModelNotFoundError
from moodline.shared.store.model_choice import ModelChoice, ModelInfo, read_choice, read_refusal, write_choice

router = APIRouter(prefix=PREFIX, tags=["models"])


@router.get("/models", summary="List models")
def list_models(ctx: Ctx, caller: Viewer) -> ModelPage:
    """Return the installed models, and which is active."""
    return _page(ctx, caller)


@router.put("/models/active", summary="Choose the active model", responses=problem_responses("model", "model_not_found"))
@audited("PUT /models/active", "change.name")
def activate_model(ctx: Ctx, caller: Admin, change: ModelChange) -> ModelPage:
    """Let all classifiers use another model. It is checked here first; each classifier loads it within seconds."""
    if ctx.catalogue is None:
        raise ModelNotFoundError("no models are installed where the API runs")
    ctx.catalogue.check(change.name)
    write_choice(ctx.store, ModelChoice(change.name, ctx.now_us()))
    return _page(ctx, caller)


def _page(ctx: Context, caller: Caller) -> ModelPage:
    choice, refusal = read_choice(ctx.store), read_refusal(ctx.store)
    installed = ctx.catalogue.list_models() if ctx.catalogue is not None else []
    default = ctx.catalogue.default_name if ctx.catalogue is not None else ctx.settings.classifier.model
    active = default if choice is None else choice.name
    return ModelPage(
        active=active,
        chosen=None if choice is None else to_datetime(choice.chosen_at_us),
        refused=None
        if refusal is None
        else RefusalAnswer(name=refusal.choice.name, reason=refusal.reason, at=to_datetime(refusal.refused_at_us)),
        models=[_model(info, active, caller) for info in installed],
    )


def _model(info: ModelInfo, active: str, caller: Caller) -> ModelAnswer:
    return ModelAnswer(
        name=info.name,
        active=info.name == active,
        parameters=info.parameters,
        accuracy=info.accuracy,
        measured_on=info.measured_on,
        sha256=info.sha256,
        # Where the machine keeps its files concerns those who run it.
        source=info.source if caller.role is Role.ADMIN else Path(info.source).name,
        problem=info.problem,
    )
