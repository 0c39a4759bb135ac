"""Methods about alerts: rules, what fires, the logs, and trying a rule over stored history."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote

from moodline.answers import Alert, AlertPage, Delivery, DeliveryPage, DryRun, Firing, FiringPage, Rule, RulePage
from moodline.client._given import When, query, when
from moodline.client._link import PREFIX, Link

_PAGE: Final = 500
_RULES: Final = "/alerts/rules"

RuleKind = Literal["share", "change", "no_faces", "offline"]

_Page = TypeVar("_Page", AlertPage, DeliveryPage)


class RuleOptions(TypedDict, total=False):
    """Options of an alert rule. An option that is left out takes its default, or stays as it is.

    Attributes:
        emotion: Of `share` and `change`.
        direction: `over` or `under` the threshold; of `change` also `either`.
        threshold: Of `share`: 0 to 1. Of `change`: percentage points from the baseline, 0 to 100.
        clear_threshold: The alert is over once the measure is back behind this one.
        for_s: How long the condition must hold, in s.
        clear_for_s: How long it must be cleared, in s.
        window_s: The share is taken over so many seconds.
        min_faces: Faces, counted in every frame, that a window needs.
        baseline_s: Of `change`: length of the time that is usual, in s.
        baseline_min: Of `change`: minutes with enough faces that it needs.
        no_data_s: After so long without an answer a firing alert is over, in s.
        quiet_s: Nobody is told again of the same within this time, in s.
        enabled: Whether it is evaluated.
        note: For people.
        webhook_url: Where alerts are sent; a change to an empty text removes it.
        webhook_template: Form of what is sent; by default that of the URL's host.
    """

    emotion: str
    direction: Literal["over", "under", "either"]
    threshold: float
    clear_threshold: float
    for_s: int
    clear_for_s: int
    window_s: int
    min_faces: int
    baseline_s: int
    baseline_min: int
    no_data_s: int
    quiet_s: int
    enabled: bool
    note: str
    webhook_url: str
    webhook_template: Literal["moodline", "slack", "teams", "discord"]


class AlertMethods:
    """Part of `Client`."""

    _link: Link

    def add_rule(
        self,
        rule_id: str,
        kind: RuleKind,
        *,
        stream: str | None = None,
        label: str | None = None,
        **options: Unpack[RuleOptions],
    ) -> Rule:
        """Make an alert rule, on a stream or on a label. The answer alone holds the secret that webhooks are signed with.

        Args:
            rule_id: Its name, unique.
            kind: `share` of an emotion over or under a threshold, `change` of it against the stream's own baseline, `no_faces`
                in frames that were looked at, or `offline`: nothing comes from a camera.
            stream: Id of the stream to watch.
            label: `key=value`, or `key`: every stream with it is evaluated on its own.
            options: See `RuleOptions`.
        """
        given = query(id=rule_id, kind=kind, stream=stream, label=label) | options
        return self._link.ask(Rule, "POST", _RULES, json=given)

    def get_rule(self, rule_id: str) -> Rule:
        """Return an alert rule."""
        return self._link.ask(Rule, "GET", _rule_path(rule_id))

    def list_rules(self) -> list[Rule]:
        """Return all alert rules, ordered by id."""
        return self._link.ask(RulePage, "GET", _RULES).rules

    def change_rule(
        self, rule_id: str, *, revision: int | None = None, new_secret: bool = False, **options: Unpack[RuleOptions]
    ) -> Rule:
        """Change an alert rule; what is not named stays.

        Args:
            rule_id: Which.
            revision: The revision that the change is based on; raises `ConflictError` when somebody else was faster.
            new_secret: Make another secret for signing; the answer holds it.
            options: See `RuleOptions`.
        """
        given = query(revision=revision) | ({"new_secret": True} if new_secret else {}) | options
        return self._link.ask(Rule, "PATCH", _rule_path(rule_id), json=given)

    def remove_rule(self, rule_id: str, *, revision: int | None = None) -> None:
        """Remove an alert rule; an alert of it that fires ends in the log. `revision` as in `change_rule`."""
        headers = {} if revision is None else {"If-Match": f'"{revision}"'}
        self._link.send("DELETE", PREFIX + _rule_path(rule_id), headers=headers)

    def list_firing(self) -> list[Firing]:
        """Return the alerts that are on, the newest first."""
        return self._link.ask(FiringPage, "GET", "/alerts").firing

    def list_alerts(self, *, rule: str | None = None, stream: str | None = None) -> Iterator[Alert]:
        """Iterate over the log of alerts, the newest first.

        Args:
            rule: Only of this rule.
            stream: Only of this stream.
        """
        for page in self._alert_pages(AlertPage, "/alerts/log", query(rule=rule, stream=stream)):
            yield from page.events

    def list_deliveries(self) -> Iterator[Delivery]:
        """Iterate over attempts to deliver webhooks, the newest first."""
        for page in self._alert_pages(DeliveryPage, "/alerts/deliveries", {}):
            yield from page.deliveries

    def dry_run(self, rule: str | Mapping[str, Any], *, start: When | None = None, end: When | None = None) -> DryRun:
        """Return which alerts a rule would have raised over stored history. Changes nothing and tells nobody.

        Args:
            rule: Id of an existing rule, or the fields of one: `id`, `kind`, `stream` or `label`, and those of `RuleOptions`.
            start: From when on; default: all that is kept in seconds.
            end: Not included; default: now.
        """
        which = {"rule_id": rule} if isinstance(rule, str) else {"rule": dict(rule)}
        given = which | query(from_=when(start), to=when(end))
        return self._link.ask(DryRun, "POST", "/alerts/dry-run", json=given)

    def _alert_pages(self, kind: type[_Page], path: str, asked: dict[str, Any]) -> Iterator[_Page]:
        asked["limit"] = _PAGE
        while True:
            page = self._link.ask(kind, "GET", path, params=asked)
            yield page
            if page.next_cursor is None:
                return
            asked["cursor"] = page.next_cursor


def _rule_path(rule_id: str) -> str:
    return f"{_RULES}/{quote(rule_id, safe='')}"
