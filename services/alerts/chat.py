"""What a webhook says: the event with a sentence for people, or the same as a message of Slack, Microsoft Teams or Discord.

Formats: Slack's incoming webhooks (`text`, in mrkdwn), Teams' workflows (an Adaptive Card), Discord's webhooks (`content`). Names
come from users, so what the receiver would take for markup or a mention is taken out of its meaning.
"""

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from urllib.parse import urlsplit

from moodline.services.alerts.rules import Rule, RuleKind

_DISCORD_LIMIT: Final = 2000
_LONGEST: Final = 1500
_CARD: Final = "http://adaptivecards.io/schemas/adaptive-card.json"


class Template(StrEnum):
    """The forms of a webhook's body."""

    MOODLINE = "moodline"
    SLACK = "slack"
    TEAMS = "teams"
    DISCORD = "discord"


_HOSTS: Final[Mapping[str, Template]] = {
    "hooks.slack.com": Template.SLACK,
    "hooks.slack-gov.com": Template.SLACK,
    "discord.com": Template.DISCORD,
    "discordapp.com": Template.DISCORD,
    "webhook.office.com": Template.TEAMS,
    "logic.azure.com": Template.TEAMS,
    "api.powerplatform.com": Template.TEAMS,
}


def template_of(url: str) -> Template:
    """Return the form that a webhook's host is known to want; Moodline's own for all others."""
    host = (urlsplit(url).hostname or "").lower()
    return next((form for known, form in _HOSTS.items() if host == known or host.endswith(f".{known}")), Template.MOODLINE)


def rendered(body: bytes, template: Template, rule: Rule | None) -> bytes:
    """Return what is sent for an event; a body that is no event of ours is returned as it is.

    Args:
        body: The event, as `event_json` writes it.
        template: The form.
        rule: As it is now; None where it is gone.
    """
    try:
        event = json.loads(body)
        text = sentence(event, rule)
    except (ValueError, KeyError, TypeError):
        return body
    forms: dict[Template, Callable[[], Any]] = {
        Template.MOODLINE: lambda: {**event, "text": text},
        Template.SLACK: lambda: {"text": f"{_icon(event)} {_for_slack(text)}"},
        Template.TEAMS: lambda: _card(event, text),
        Template.DISCORD: lambda: {
            "content": f"{_icon(event)} {_for_discord(text)}"[:_DISCORD_LIMIT],
            "allowed_mentions": {"parse": []},
        },
    }
    return json.dumps(forms[template](), separators=(",", ":"), ensure_ascii=False).encode()


def sentence(event: Mapping[str, Any], rule: Rule | None) -> str:
    """Return an event as one sentence, such as `hall: angry leads 45% of 120 faces since 12:00:30 UTC, over 30%.`

    Raises:
        KeyError, TypeError, ValueError: the event lacks something.
    """
    stream, since, at = event["stream"], _clock(event["since"]), _clock(event["at"])
    if event["kind"] != "firing":
        text = f"{stream}: {_over(event, rule)} at {at} UTC; it had begun at {since} UTC."
    else:
        text = f"{stream}: {_began(event, rule)} since {since} UTC{_limit(event, rule)}."
    note = f" {rule.note.strip()}" if rule is not None and rule.note.strip() else ""
    return f"{text}{note} (rule {event['rule']})"[:_LONGEST]


def _began(event: Mapping[str, Any], rule: Rule | None) -> str:
    if rule is None:
        return "an alert is on"
    if rule.kind is RuleKind.OFFLINE:
        return "nothing comes from the camera"
    if rule.kind is RuleKind.NO_FACES:
        return "nobody has been seen"
    if rule.kind is RuleKind.CHANGE:
        moved = "up" if (event["value"] or 0) >= 0 else "down"
        return f"{rule.emotion} is {moved} by {_points(event['value'])} among {event['faces']} faces"
    return f"{rule.emotion} leads {_share(event['value'])} of {event['faces']} faces"


def _limit(event: Mapping[str, Any], rule: Rule | None) -> str:
    if rule is None or not rule.measures:
        return ""
    if rule.kind is RuleKind.CHANGE:
        return f"; usual is {_share(event['baseline'])}, the limit {rule.threshold:g} points"
    return f", {rule.direction} {_share(rule.threshold)}"


def _over(event: Mapping[str, Any], rule: Rule | None) -> str:
    if event["reason"] == "no_data":
        return "the alert is over because nothing is known any more,"
    if event["reason"] == "withdrawn":
        return "the alert was withdrawn"
    if rule is None:
        return "the alert is over"
    if rule.kind is RuleKind.OFFLINE:
        return "the camera is back"
    if rule.kind is RuleKind.NO_FACES:
        return "somebody is there again"
    value = _points(event["value"]) if rule.kind is RuleKind.CHANGE else _share(event["value"])
    return f"{rule.emotion} is back within its limit ({value})"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{value * 100:.0f}%"


def _points(value: float | None) -> str:
    return "an unknown amount" if value is None else f"{abs(value):.0f} percentage points"


def _clock(moment: str) -> str:
    return f"{datetime.fromisoformat(moment):%H:%M:%S}"


def _icon(event: Mapping[str, Any]) -> str:
    return "🔴" if event["kind"] == "firing" else "🟢"


def _for_slack(text: str) -> str:
    """Escape what Slack says to escape; a zero-width space keeps `_` and `*` in names from being markup."""
    plain = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"{letter}\u200b" if letter in "_*~`" else letter for letter in plain)


def _for_discord(text: str) -> str:
    return "".join(f"\\{letter}" if letter in "\\_*~`|<>[]#" else letter for letter in text)


def _card(event: Mapping[str, Any], text: str) -> dict[str, Any]:
    title = f"{_icon(event)} {'Alert' if event['kind'] == 'firing' else 'Alert is over'}"
    facts = [{"title": name, "value": str(event[key])} for name, key in (("Stream", "stream"), ("Rule", "rule"), ("At", "at"))]
    body = [
        {"type": "TextBlock", "text": title, "weight": "Bolder", "size": "Medium"},
        {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text}]},
        {"type": "FactSet", "facts": facts},
    ]
    content = {"$schema": _CARD, "type": "AdaptiveCard", "version": "1.4", "fallbackText": text, "body": body}
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": content}
    return {"type": "message", "summary": text, "attachments": [attachment]}
