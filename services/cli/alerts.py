"""`moodline alerts`: rules, what fires, the log, and trying a rule over stored history. Asks the API."""

import json
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.table import Table
from rich.text import Text

from moodline.answers import Alert, Rule
from moodline.services.alerts.rules import Direction, RuleKind
from moodline.services.alerts.rules import Rule as NewRule
from moodline.services.cli.connection import open_client
from moodline.services.cli.console import TableConsole, echo_json, fitted
from moodline.services.report.moments import iso

app = typer.Typer(name="alerts", help="Alert rules, what fires now, and what did.", no_args_is_help=True)


def _default(field: str) -> str:
    """Return the value that the API takes for a field of a rule that is left out."""
    return str(getattr(_UNSET, field))


_UNSET: Final = NewRule(rule_id="", kind=RuleKind.NO_FACES)
RuleId = Annotated[str, typer.Argument(metavar="ID", help="The rule's id.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]
From = Annotated[
    str | None, typer.Option("--from", help="ISO 8601, now, or relative like -1h.", show_default="the beginning of what is kept")
]
To = Annotated[str | None, typer.Option("--to", help="The same; not included.", show_default="now")]


@app.command("ls")
def list_all(*, as_json: AsJson = False) -> None:
    """List rules, and which of them fire now."""
    with open_client() as client:
        rules, firing = client.list_rules(), client.list_firing()
    if as_json:
        echo_json(_json({"rules": [_plain(rule) for rule in rules], "firing": firing}))
    elif rules:
        on = {rule.id: [each.stream for each in firing if each.rule == rule.id] for rule in rules}
        _print_table(_rule_table(rules, on))
    else:
        typer.echo("there are no alert rules; make one with `moodline alerts add ID KIND --stream STREAM`")


@app.command()
def add(  # noqa: PLR0913  # one for each option
    rule_id: RuleId,
    kind: Annotated[RuleKind, typer.Argument(help="What is watched.", show_default=False)],
    stream: Annotated[str | None, typer.Option(help="Id of the stream to watch.", show_default="none")] = None,
    label: Annotated[
        str | None, typer.Option(help="KEY=VALUE or KEY: every stream with this label is judged on its own.", show_default="none")
    ] = None,
    *,
    emotion: Annotated[str | None, typer.Option(help="Of share and change.", show_default="none")] = None,
    direction: Annotated[
        Direction | None, typer.Option(help="On which side of the threshold; either is for change.", show_default="over")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="A share, 0 to 1; of change percentage points.", show_default="none")
    ] = None,
    clear_threshold: Annotated[
        float | None, typer.Option(help="Behind which the alert is over.", show_default="the threshold; of change half of it")
    ] = None,
    for_s: Annotated[
        int | None, typer.Option("--for", help="How long the condition must hold, in s.", show_default=_default("for_s"))
    ] = None,
    clear_for_s: Annotated[
        int | None, typer.Option("--clear-for", help="How long it must be cleared, in s.", show_default=_default("clear_for_s"))
    ] = None,
    window_s: Annotated[
        int | None, typer.Option("--window", help="The share is taken over so many seconds.", show_default=_default("window_s"))
    ] = None,
    min_faces: Annotated[
        int | None, typer.Option(help="Faces, counted in every frame, that a window needs.", show_default=_default("min_faces"))
    ] = None,
    baseline_s: Annotated[
        int | None, typer.Option("--baseline", help="Of change: the usual time, in s.", show_default=_default("baseline_s"))
    ] = None,
    quiet_s: Annotated[
        int | None, typer.Option("--quiet", help="Nobody is told again within this time, in s.", show_default=_default("quiet_s"))
    ] = None,
    note: Annotated[str | None, typer.Option(help="For people.", show_default="none")] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            help="URL that alerts are sent to, or - to read it, one line, from standard input: it may be a secret.",
            show_default="none",
        ),
    ] = None,
) -> None:
    """Make a rule. The secret that webhooks are signed with is printed this once."""
    given: dict[str, Any] = {"emotion": emotion, "direction": direction, "threshold": threshold, "for_s": for_s}
    given |= {"clear_threshold": clear_threshold, "clear_for_s": clear_for_s, "window_s": window_s, "min_faces": min_faces}
    given |= {"baseline_s": baseline_s, "quiet_s": quiet_s, "note": note}
    given["webhook_url"] = typer.get_text_stream("stdin").readline().strip() if webhook == "-" else webhook
    options: Any = {name: value for name, value in given.items() if value is not None}
    with open_client() as client:
        rule = client.add_rule(rule_id, kind.value, stream=stream, label=label, **options)
    typer.echo(f"{rule.id} watches {rule.stream or rule.label}")
    if rule.webhook_secret:
        typer.echo(f"webhooks to {rule.webhook} are signed with {rule.webhook_secret}, which is not shown again")


@app.command()
def show(rule_id: RuleId, *, as_json: AsJson = False) -> None:
    """Show a rule in full, and where it fires now."""
    with open_client() as client:
        rule, firing = client.get_rule(rule_id), client.list_firing()
    on = [each.stream for each in firing if each.rule == rule.id]
    if as_json:
        echo_json(_json({"rule": _plain(rule), "firing": on}))
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in _plain(rule).items():
        if value not in (None, "", []):
            table.add_row(name.replace("_", " "), Text(iso(value) if isinstance(value, datetime) else str(value)))
    table.add_row("fires on", Text(", ".join(on) or "nothing"))
    TableConsole(soft_wrap=True).print(table)


@app.command()
def change(  # noqa: PLR0913  # one for each option
    rule_id: RuleId,
    *,
    emotion: Annotated[str | None, typer.Option(help="Of share and change.", show_default="unchanged")] = None,
    direction: Annotated[
        Direction | None, typer.Option(help="On which side of the threshold; either is for change.", show_default="unchanged")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="A share, 0 to 1; of change percentage points.", show_default="unchanged")
    ] = None,
    clear_threshold: Annotated[
        float | None, typer.Option(help="Behind which the alert is over.", show_default="unchanged")
    ] = None,
    for_s: Annotated[
        int | None, typer.Option("--for", help="How long the condition must hold, in s.", show_default="unchanged")
    ] = None,
    clear_for_s: Annotated[
        int | None, typer.Option("--clear-for", help="How long it must be cleared, in s.", show_default="unchanged")
    ] = None,
    window_s: Annotated[
        int | None, typer.Option("--window", help="The share is taken over so many seconds.", show_default="unchanged")
    ] = None,
    min_faces: Annotated[
        int | None, typer.Option(help="Faces, counted in every frame, that a window needs.", show_default="unchanged")
    ] = None,
    baseline_s: Annotated[
        int | None, typer.Option("--baseline", help="Of change: the usual time, in s.", show_default="unchanged")
    ] = None,
    quiet_s: Annotated[
        int | None, typer.Option("--quiet", help="Nobody is told again within this time, in s.", show_default="unchanged")
    ] = None,
    note: Annotated[str | None, typer.Option(help="For people.", show_default="unchanged")] = None,
    webhook: Annotated[
        str | None,
        typer.Option(
            help="URL that alerts are sent to; - reads it from standard input, an empty one removes it.", show_default="unchanged"
        ),
    ] = None,
) -> None:
    """Change a rule; what is not named stays."""
    given: dict[str, Any] = {"emotion": emotion, "direction": direction, "threshold": threshold, "for_s": for_s}
    given |= {"clear_threshold": clear_threshold, "clear_for_s": clear_for_s, "window_s": window_s, "min_faces": min_faces}
    given |= {"baseline_s": baseline_s, "quiet_s": quiet_s, "note": note}
    given["webhook_url"] = typer.get_text_stream("stdin").readline().strip() if webhook == "-" else webhook
    changes: Any = {name: value for name, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("name what is to change, such as --threshold 0.5")
    with open_client() as client:
        rule = client.change_rule(rule_id, **changes)
    typer.echo(f"{rule.id} is changed: {', '.join(sorted(changes))}")


@app.command()
def enable(rule_id: RuleId) -> None:
    """Let a rule be judged again."""
    _switch(rule_id, enabled=True)


@app.command()
def disable(rule_id: RuleId) -> None:
    """Let a rule rest; what it fires is over."""
    _switch(rule_id, enabled=False)


def _switch(rule_id: str, *, enabled: bool) -> None:
    with open_client() as client:
        rule = client.change_rule(rule_id, enabled=enabled)
    typer.echo(f"{rule.id} is {'enabled' if rule.enabled else 'disabled'}")


@app.command("rm")
def remove(rule_id: RuleId) -> None:
    """Remove a rule."""
    with open_client() as client:
        client.remove_rule(rule_id)
    typer.echo(f"{rule_id} is removed")


@app.command("log")
def show_log(
    rule: Annotated[str | None, typer.Option(help="Only of this rule.", show_default="all")] = None,
    stream: Annotated[str | None, typer.Option(help="Only of this stream.", show_default="all")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Most lines.")] = 50,
    *,
    as_json: AsJson = False,
) -> None:
    """Show alerts that began or ended, the newest first."""
    with open_client() as client:
        events = list(islice(client.list_alerts(rule=rule, stream=stream), limit))
    _print_events(events, as_json=as_json, nothing="no alert has fired")


@app.command("dry-run")
def dry_run(rule_id: RuleId, start: From = None, end: To = None, *, as_json: AsJson = False) -> None:
    """Show which alerts a rule would have raised over stored history."""
    with open_client() as client:
        result = client.dry_run(rule_id, start=start, end=end)
    if as_json:
        echo_json(_json(result))
        return
    _print_events(result.events, as_json=False, nothing="it would not have fired")
    typer.echo(f"fired {result.fired} times on {len(result.streams)} streams; told {result.told} times", err=True)


def _print_events(events: Sequence[Alert], *, as_json: bool, nothing: str) -> None:
    if as_json:
        echo_json(_json(events))
    elif events:
        _print_table(_event_table(events))
    else:
        typer.echo(nothing)


def _rule_table(rules: Sequence[Rule], on: dict[str, list[str]]) -> Table:
    table = _table("rule", "watches", "condition", "fires on")
    for rule in rules:
        firing = Text(", ".join(on[rule.id]) or ("-" if rule.enabled else "disabled"), style="red" if on[rule.id] else "")
        table.add_row(Text(rule.id), Text(rule.stream or rule.label or ""), _condition(rule), firing)
    return table


def _condition(rule: Rule) -> str:
    if rule.kind == RuleKind.SHARE:
        return f"{rule.emotion} {rule.direction} {rule.threshold:.0%} for {rule.for_s} s"
    if rule.kind == RuleKind.CHANGE:
        return f"{rule.emotion} {rule.direction} its baseline by {rule.threshold:g} points for {rule.for_s} s"
    return f"{'nobody there' if rule.kind == RuleKind.NO_FACES else 'offline'} for {rule.for_s} s"


def _event_table(events: Sequence[Alert]) -> Table:
    table = _table("at", "rule", "stream", "what", "value")
    for event in events:
        what = f"{event.kind} ({event.reason})" + ("" if event.notify else ", quiet")
        value = "-" if event.value is None else f"{event.value:.4g}"
        style = "red" if event.kind == "firing" else "green"
        table.add_row(iso(event.at), Text(event.rule), Text(event.stream), Text(what, style=style), value)
    return table


def _print_table(table: Table) -> None:
    console = TableConsole()
    console.print(fitted(table, console.width))


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold", no_wrap=title in ("rule", "watches", "stream"))
    return table


def _plain(rule: Rule) -> dict[str, object]:
    """Return a rule without the secret, which a list never has."""
    return {name: value for name, value in msgspec.structs.asdict(rule).items() if name != "webhook_secret"}


def _json(value: object) -> str:
    return json.dumps(json.loads(msgspec.json.encode(value)), indent=2)
