"""Routes of alerts: rules, what fires now, the log, deliveries, and trying a rule over stored history."""

import secrets
from typing import Annotated, Any, Final

import msgspec
from fastapi import APIRouter, Query, Response

from moodline.services.alerts.chat import Template, template_of
from moodline.services.alerts.dry_run import dry_run
from moodline.services.alerts.evaluator import AlertEvent, EventKind, Firing
from moodline.services.alerts.outbox import DeliveryRecord, secret_name
from moodline.services.alerts.records import ALERTS_LOG, DELIVERY_LOG, STATES, RuleBook, Saved, StoredRule, decode, event_json
from moodline.services.alerts.rules import Direction, Rule, RuleKind, Webhook, checked_rule
from moodline.services.alerts.webhook import checked_target, shown_url, webhook_policy
from moodline.services.api import PREFIX
from moodline.services.api.access import Caller, Operator, Viewer, visible, visible_streams
from moodline.services.api.alert_models import (
    DeliveryAnswer,
    DeliveryPage,
    DryRun,
    DryRunAnswer,
    EventAnswer,
    EventPage,
    FiringAnswer,
    FiringPage,
    NewRule,
    RuleAnswer,
    RuleChange,
    RulePage,
)
from moodline.services.api.audit import audited, nothing_changed
from moodline.services.api.context import Context, Ctx
from moodline.services.api.errors import problem_responses
from moodline.services.api.preconditions import IfMatch, lost_races_of, require_match
from moodline.services.api.timelines import present_us
from moodline.services.report.moments import to_datetime
from moodline.shared.camera_url import CameraSecret
from moodline.shared.errors import NotAllowedError, QueryError, QuotaError, RevisionConflictError, RuleNotFoundError
from moodline.shared.streams import StreamSpec
from moodline.shared.timeline.tiers import Extent
from moodline.shared.timeline.times import parse_time

router = APIRouter(prefix=PREFIX, tags=["alerts"])

_PAGE: Final = 500
_SECRET_BYTES: Final = 32
_MADE = problem_responses(
    "rule_exists", "quota_exceeded", "invalid_rule", "stream_not_found", "invalid_request", "body_too_large", "seal"
)
_CHANGED = problem_responses(
    "rule_not_found", "precondition_failed", "revision_conflict", "invalid_rule", "invalid_request", "body_too_large", "seal"
)
_TRIED = problem_responses(
    "rule_not_found", "stream_not_found", "invalid_rule", "invalid_query", "invalid_request", "body_too_large"
)

Limit = Annotated[int, Query(ge=1, le=500, description="Most of them in the answer.")]
Cursor = Annotated[int | None, Query(ge=1, le=2**53, description="`next_cursor` of the page before.")]


@router.get("/alerts", summary="List alerts that are on")
def list_firing(ctx: Ctx, caller: Viewer) -> FiringPage:
    """Return the alerts that fire now, the newest first."""
    ids = {spec.stream_id for spec in visible_streams(ctx, caller)}
    saved = [decode(found.value, Saved) for found in ctx.store.list_entries(STATES)]
    firing = [_firing(each.rule, each.state.stream, each.state.firing) for each in saved if each.state.firing is not None]
    shown = [each for each in firing if each.stream in ids]
    return FiringPage(firing=sorted(shown, key=lambda each: each.at, reverse=True))


@router.get("/alerts/rules", summary="List alert rules")
def list_rules(ctx: Ctx, caller: Viewer) -> RulePage:
    """Return all rules that the caller may see, ordered by id."""
    streams = {spec.stream_id for spec in visible_streams(ctx, caller)}
    found = [stored for stored in RuleBook(ctx.store).rules() if _may_see(caller, stored.rule, streams)]
    return RulePage(rules=[_answer(stored) for stored in found])


@router.post(
    "/alerts/rules",
    status_code=201,
    summary="Make an alert rule",
    responses={201: {"headers": {"Location": {"schema": {"type": "string"}}}}, **_MADE},
)
@audited("POST /alerts/rules", "body.id")
def add_rule(ctx: Ctx, caller: Operator, body: NewRule, response: Response) -> RuleAnswer:
    """Make a rule. Of cameras it evaluates from now on; of a file that is not read yet, all of it."""
    rule = _new_rule(ctx, body)
    _require_target(ctx, caller, rule)
    secret = None
    if body.webhook_url is not None and body.webhook_url.get_secret_value():
        secret = _new_secret()
        sealed = _sealed(ctx, rule.rule_id, body.webhook_url.get_secret_value(), secret, body.webhook_template)
        rule = msgspec.structs.replace(rule, webhook=sealed)
    elif body.webhook_template is not None:
        raise QueryError("webhook_template", "webhook_template needs a webhook_url")
    with ctx.registering:
        _require_quota(ctx, caller)
        stored = RuleBook(ctx.store).add(msgspec.structs.replace(rule, added_by=caller.name))
    response.headers["location"] = f"{PREFIX}/alerts/rules/{rule.rule_id}"
    return _answer(stored, response, secret)


@router.get("/alerts/rules/{rule_id}", summary="Read an alert rule", responses=problem_responses("rule_not_found"))
def get_rule(ctx: Ctx, caller: Viewer, rule_id: str, response: Response) -> RuleAnswer:
    """Return a rule."""
    return _answer(_visible_rule(ctx, caller, rule_id), response)


@router.patch("/alerts/rules/{rule_id}", summary="Change an alert rule", responses=_CHANGED)
@audited("PATCH /alerts/rules/{rule_id}")
def change_rule(
    ctx: Ctx, caller: Operator, rule_id: str, body: RuleChange, response: Response, if_match: IfMatch = None
) -> RuleAnswer:
    """Change a rule. With another condition it begins again, and an alert that fires is over (`withdrawn`)."""
    stored = _visible_rule(ctx, caller, rule_id)
    require_match(if_match, stored.revision, f"alert rule {rule_id!r}")
    if body.revision not in (None, stored.revision):
        raise RevisionConflictError(
            f"alert rule {rule_id!r} is at revision {stored.revision} by now; read it again and repeat the change"
        )
    rule = checked_rule(msgspec.structs.replace(stored.rule, **_terms(body)))
    rule, secret = _changed_webhook(ctx, rule, body)
    if rule == stored.rule:
        nothing_changed()
    with lost_races_of(if_match):
        changed = stored if rule == stored.rule else RuleBook(ctx.store).replace(rule, stored.revision)
    return _answer(changed, response, secret)


@router.delete(
    "/alerts/rules/{rule_id}",
    status_code=204,
    response_class=Response,
    summary="Remove an alert rule",
    responses=problem_responses("rule_not_found", "precondition_failed", "invalid_request", "invalid_stream"),
)
@audited("DELETE /alerts/rules/{rule_id}")
def remove_rule(ctx: Ctx, caller: Operator, rule_id: str, if_match: IfMatch = None) -> None:
    """Remove a rule. An alert of it that fires ends in the log (`withdrawn`); no webhook tells of that."""
    stored = _visible_rule(ctx, caller, rule_id)
    require_match(if_match, stored.revision, f"alert rule {rule_id!r}")
    with lost_races_of(if_match):
        RuleBook(ctx.store).remove(rule_id, stored.revision if if_match else None)


@router.get("/alerts/log", summary="Read the log of alerts", responses=problem_responses("invalid_request"))
def read_log(
    ctx: Ctx,
    caller: Viewer,
    rule: Annotated[str | None, Query(max_length=63, description="Only of this rule.")] = None,
    stream: Annotated[str | None, Query(max_length=63, description="Only of this stream.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> EventPage:
    """Return alerts that began or ended, the newest first; the newest 10,000 are kept."""
    ids = {spec.stream_id for spec in visible_streams(ctx, caller)}
    found: list[tuple[int, EventAnswer]] = []
    for number, value in _records(ctx, ALERTS_LOG, cursor):
        event = EventAnswer.model_validate_json(value)
        is_asked = rule in (None, event.rule) and stream in (None, event.stream)
        # When a stream is gone, its labels are unknown, and so is who may see it.
        if is_asked and (caller.sees_all or event.stream in ids) and all(event.id != known.id for _, known in found):
            found.append((number, event))
        if len(found) > limit:
            break
    return EventPage(events=[event for _, event in found[:limit]], next_cursor=_next(found, limit))


@router.get("/alerts/deliveries", summary="Read the log of deliveries", responses=problem_responses("invalid_request"))
def read_deliveries(ctx: Ctx, caller: Operator, limit: Limit = 100, cursor: Cursor = None) -> DeliveryPage:
    """Return attempts to deliver webhooks of rules that the caller may see, the newest first; the newest 10,000 are kept."""
    streams = {spec.stream_id for spec in visible_streams(ctx, caller)}
    rules = {stored.rule.rule_id for stored in RuleBook(ctx.store).rules() if _may_see(caller, stored.rule, streams)}
    found: list[tuple[int, DeliveryAnswer]] = []
    for number, value in _records(ctx, DELIVERY_LOG, cursor):
        record = decode(value, DeliveryRecord)
        if caller.sees_all or record.rule in rules:
            fields = msgspec.structs.asdict(record)
            found.append((number, DeliveryAnswer(at=to_datetime(fields.pop("at_us")), **fields)))
        if len(found) > limit:
            break
    return DeliveryPage(deliveries=[answer for _, answer in found[:limit]], next_cursor=_next(found, limit))


@router.post("/alerts/dry-run", summary="Try an alert rule over stored history", responses=_TRIED)
def try_rule(ctx: Ctx, caller: Viewer, body: DryRun) -> DryRunAnswer:
    """Return which alerts a rule would have raised. Changes nothing and tells nobody."""
    if (body.rule is None) == (body.rule_id is None):
        raise QueryError("rule", "give either rule_id or rule")
    if body.rule is not None:
        rule = _new_rule(ctx, body.rule)
        _require_target(ctx, caller, rule)
    else:
        rule = _visible_rule(ctx, caller, body.rule_id or "").rule
    specs = [spec for spec in visible_streams(ctx, caller) if rule.watches(spec)]
    events = dry_run(ctx.store, rule, specs, _window(ctx, specs, body))
    began = [event for event in events if event.kind is EventKind.FIRING]
    return DryRunAnswer(
        streams=[spec.stream_id for spec in specs],
        events=[_told(event) for event in events],
        fired=len(began),
        told=sum(event.notify for event in began),
    )


def _require_quota(ctx: Context, caller: Caller) -> None:
    limit = ctx.settings.quotas.rules_per_key
    if sum(stored.rule.added_by == caller.name for stored in RuleBook(ctx.store).rules()) >= limit:
        raise QuotaError(
            f"the key {caller.name!r} has made {limit} alert rules, as many as one may (MOODLINE_QUOTAS_RULES_PER_KEY)"
        )


def _new_rule(ctx: Context, body: NewRule) -> Rule:
    terms = _terms(body)
    rule = Rule(rule_id=body.id, stream=body.stream, label=body.label, kind=body.kind, created_at_us=ctx.now_us())
    if rule.measures and "threshold" not in terms:
        raise QueryError("threshold", f"a rule of kind {body.kind} needs a threshold")
    threshold = terms.get("threshold", 0.0)
    default = {"clear_threshold": threshold / 2 if body.kind is RuleKind.CHANGE else threshold, "direction": Direction.OVER}
    default["clear_for_s"] = terms.get("for_s", rule.for_s)
    return checked_rule(msgspec.structs.replace(rule, **(default | terms)))


def _terms(body: NewRule | RuleChange) -> dict[str, Any]:
    skipped = {"id", "stream", "label", "kind", "webhook_url", "webhook_template", "new_secret", "revision"}
    return body.model_dump(exclude_none=True, exclude=skipped)


def _changed_webhook(ctx: Context, rule: Rule, body: RuleChange) -> tuple[Rule, str | None]:
    """Return the rule with its changed webhook, and the secret where a new one was made."""
    url = None if body.webhook_url is None else body.webhook_url.get_secret_value()
    if url == "":
        return msgspec.structs.replace(rule, webhook=None), None
    if rule.webhook is None and url is None and body.webhook_template is not None:
        raise QueryError("webhook_template", "webhook_template needs a webhook_url")
    if url is None and rule.webhook is not None and body.webhook_template is not None:
        rule = msgspec.structs.replace(rule, webhook=msgspec.structs.replace(rule.webhook, template=body.webhook_template.value))
    if url is None and not (body.new_secret and rule.webhook):
        return rule, None
    known = ctx.sealer.open(secret_name(rule.rule_id), rule.webhook.sealed) if rule.webhook else None
    new_secret = None if known and known.password and not body.new_secret and _same_place(url, known.target) else _new_secret()
    secret = new_secret or (known.password if known else None) or ""
    target = url or (known.target if known else None) or ""
    kept = Template(rule.webhook.template) if rule.webhook is not None and url is None else None
    sealed = _sealed(ctx, rule.rule_id, target, secret, body.webhook_template or kept)
    return msgspec.structs.replace(rule, webhook=sealed), new_secret


def _same_place(url: str | None, known: str | None) -> bool:
    """Another host gets another secret: who had the old one could sign for it."""
    return url is None or (known is not None and url.split("/")[:3] == known.split("/")[:3])


def _sealed(ctx: Context, rule_id: str, url: str, secret: str, template: Template | None) -> Webhook:
    checked_target(url, webhook_policy(ctx.settings.alerts))
    sealed = ctx.sealer.seal(secret_name(rule_id), CameraSecret(password=secret, target=url))
    return Webhook(shown_url(url), sealed, (template or template_of(url)).value)


def _new_secret() -> str:
    return f"whs_{secrets.token_urlsafe(_SECRET_BYTES)}"


def _require_target(ctx: Context, caller: Caller, rule: Rule) -> None:
    if rule.stream is not None:
        visible(ctx, caller, rule.stream)
    elif not _covers(caller, rule.label or ""):
        raise NotAllowedError(f"the key {caller.name!r} may only have rules on streams or labels of its own")


def _visible_rule(ctx: Context, caller: Caller, rule_id: str) -> StoredRule:
    stored = RuleBook(ctx.store).get(rule_id)
    if not _may_see(caller, stored.rule, {spec.stream_id for spec in visible_streams(ctx, caller)}):
        raise RuleNotFoundError(f"there is no alert rule {rule_id!r}")
    return stored


def _may_see(caller: Caller, rule: Rule, streams: set[str]) -> bool:
    """Say whether everything that a rule may watch is in the caller's scope; `streams` are those that are."""
    if caller.sees_all:
        return True
    return rule.stream in streams if rule.stream is not None else _covers(caller, rule.label or "")


def _covers(caller: Caller, label: str) -> bool:
    return caller.sees_all or any(own in (label, label.partition("=")[0]) for own in caller.labels or ())


def _window(ctx: Context, specs: list[StreamSpec], body: DryRun) -> Extent | None:
    if body.start is None and body.end is None:
        return None
    now_us = present_us(ctx, specs[0]) if len(specs) == 1 else ctx.now_us()
    if body.start is None:
        raise QueryError("from", "give from where there is a to")
    start_us = parse_time(body.start, now_us, "from")
    end_us = now_us if body.end is None else parse_time(body.end, now_us, "to")
    if start_us >= end_us:
        raise QueryError("from", "from must lie before to")
    return Extent(start_us, end_us)


def _records(ctx: Context, log: str, before: int | None) -> Any:
    """Yield the records of a log, the newest first."""
    while True:
        page = ctx.store.records(log, 0, _PAGE, before=before, newest_first=True)
        yield from page
        if len(page) < _PAGE:
            return
        before = page[-1][0]


def _next(found: list[tuple[int, Any]], limit: int) -> str | None:
    return str(found[limit - 1][0]) if len(found) > limit else None


def _told(event: AlertEvent) -> EventAnswer:
    return EventAnswer.model_validate_json(event_json(event, 0)).model_copy(update={"written": None})


def _firing(rule: str, stream: str, firing: Firing) -> FiringAnswer:
    return FiringAnswer(
        rule=rule,
        stream=stream,
        at=to_datetime((firing.at_s + 1) * 1_000_000),
        since=to_datetime(firing.since_s * 1_000_000),
        value=firing.value,
        baseline=firing.baseline,
        faces=firing.faces,
        notify=firing.notified,
    )


def _answer(stored: StoredRule, response: Response | None = None, secret: str | None = None) -> RuleAnswer:
    rule = stored.rule
    if response is not None:
        response.headers["etag"] = f'"{stored.revision}"'
    fields = msgspec.structs.asdict(rule)
    fields = {name: value for name, value in fields.items() if name not in ("rule_id", "webhook", "created_at_us")}
    return RuleAnswer(
        id=rule.rule_id,
        webhook=rule.webhook.url if rule.webhook else None,
        webhook_template=Template(rule.webhook.template) if rule.webhook else None,
        webhook_secret=secret,
        created_at=to_datetime(rule.created_at_us),
        revision=stored.revision,
        **fields,
    )
