"""Webhooks say a sentence, in the form that the receiver wants."""

import json
from typing import Any

import pytest

from moodline.services.alerts.chat import Template, rendered, sentence, template_of
from moodline.services.alerts.evaluator import AlertEvent, EventKind, Reason
from moodline.services.alerts.records import event_json
from moodline.services.alerts.rules import Direction, Rule, RuleKind

SHARE = Rule(rule_id="angry-hall", stream="Front_Hall", kind=RuleKind.SHARE, emotion="angry", threshold=0.3)
SINCE_S = 1_777_636_830


def body(kind: EventKind = EventKind.FIRING, reason: Reason = Reason.CONDITION, **fields: Any) -> bytes:
    given: dict[str, Any] = {"value": 0.452, "faces": 120} | fields
    event = AlertEvent(
        event_id="e1",
        rule="angry-hall",
        stream="Front_Hall",
        kind=kind,
        reason=reason,
        at_s=SINCE_S + 30,
        since_s=SINCE_S,
        **given,
    )
    return event_json(event, 0)


def said(rule: Rule | None, **fields: Any) -> str:
    return sentence(json.loads(body(**fields)), rule)


def test_the_sentence_of_each_kind() -> None:
    assert said(SHARE) == "Front_Hall: angry leads 45% of 120 faces since 12:00:30 UTC, over 30%. (rule angry-hall)"
    cleared = said(SHARE, kind=EventKind.RESOLVED, reason=Reason.CLEARED, value=0.1)
    assert cleared.startswith("Front_Hall: angry is back within its limit (10%) at 12:01:00 UTC")
    change = Rule(rule_id="r", stream="s", kind=RuleKind.CHANGE, emotion="sad", threshold=20, direction=Direction.EITHER)
    assert "sad is down by 25 percentage points" in said(change, value=-25.0, baseline=0.4)
    assert "usual is 40%, the limit 20 points" in said(change, value=-25.0, baseline=0.4)
    for kind, words in ((RuleKind.OFFLINE, "nothing comes from the camera"), (RuleKind.NO_FACES, "nobody has been seen")):
        assert words in said(Rule(rule_id="r", stream="s", kind=kind, note="Call the guard."), value=None)
        assert "Call the guard." in said(Rule(rule_id="r", stream="s", kind=kind, note="Call the guard."), value=None)
    assert "an alert is on" in said(None)
    for reason in Reason:
        for rule in (None, SHARE, change):
            assert said(rule, kind=EventKind.RESOLVED, reason=reason, value=None).endswith("(rule angry-hall)")


def test_moodlines_own_form_is_the_event_and_the_sentence() -> None:
    sent = json.loads(rendered(body(), Template.MOODLINE, SHARE))
    assert sent.pop("text") == said(SHARE)
    assert sent == json.loads(body())


def test_slack() -> None:
    rule = Rule(rule_id="r", stream="s", kind=RuleKind.OFFLINE, note="<!channel> & *all*")
    sent = json.loads(rendered(body(value=None), Template.SLACK, rule))
    assert set(sent) == {"text"}
    assert "<" not in sent["text"]
    assert "&lt;!channel&gt; &amp;" in sent["text"]


def test_discord_mentions_nobody_and_takes_names_as_they_are() -> None:
    rule = Rule(rule_id="r", stream="s", kind=RuleKind.OFFLINE, note="@everyone " + "_" * 500)
    sent = json.loads(rendered(body(value=None), Template.DISCORD, rule))
    assert sent["allowed_mentions"] == {"parse": []}
    assert "Front\\_Hall" in sent["content"]
    assert len(sent["content"]) <= 2000


def test_teams_gets_an_adaptive_card() -> None:
    sent = json.loads(rendered(body(), Template.TEAMS, SHARE))
    assert sent["type"] == "message"
    (attachment,) = sent["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert said(SHARE) in json.dumps(card["body"])


@pytest.mark.parametrize(
    ("url", "template"),
    [
        ("https://hooks.slack.com/services/T/B/x", Template.SLACK),
        ("https://discord.com/api/webhooks/1/x", Template.DISCORD),
        ("https://contoso.webhook.office.com/webhookb2/x", Template.TEAMS),
        ("https://prod-01.westeurope.logic.azure.com:443/workflows/x", Template.TEAMS),
        ("https://evilhooks.slack.com.example.org/x", Template.MOODLINE),
        ("https://notdiscord.com/x", Template.MOODLINE),
        ("https://example.org/hook", Template.MOODLINE),
    ],
)
def test_the_host_says_which_form_it_wants(url: str, template: Template) -> None:
    assert template_of(url) is template


@pytest.mark.parametrize("given", [b"", b"[]", b'{"id":"1"}', b"\xff"])
def test_what_is_no_event_is_sent_as_it_is(given: bytes) -> None:
    for template in Template:
        assert rendered(given, template, SHARE) == given
