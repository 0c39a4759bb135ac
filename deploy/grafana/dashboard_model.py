"""What a dashboard consists of, and how that is written for Grafana."""

import json
from typing import Any, Final, NamedTuple

_SOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_WIDTH: Final = 24


class Query(NamedTuple):
    """An expression, and what its lines are called."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel. `width` is of 24; `kind` is Grafana's name of the panel's type."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    description: str = ""


class Variable(NamedTuple):
    """What a viewer chooses at the top: one or more values of a label."""

    name: str
    query: str
    multiple: bool = True


class Dashboard(NamedTuple):
    """A dashboard: rows of panels, from the top, each row with a title."""

    uid: str
    title: str
    rows: dict[str, tuple[Panel, ...]]
    variables: tuple[Variable, ...] = ()


def render(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as Grafana's model."""
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["moodline"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource(), *(_variable(variable) for variable in dashboard.variables)]},
        "annotations": {"list": []},
        "links": [{"type": "dashboards", "tags": ["moodline"], "title": "Moodline", "asDropdown": True, "includeVars": True}],
        "panels": _panels(dashboard),
    }


def text(dashboard: Dashboard) -> str:
    """Return the content of a dashboard's file."""
    return json.dumps(render(dashboard), indent=2) + "\n"


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus", "current": {}, "hide": 0}


def _variable(variable: Variable) -> dict[str, Any]:
    chosen = {"text": "All", "value": "$__all"} if variable.multiple else {}
    return {
        "name": variable.name,
        "label": variable.name.capitalize(),
        "type": "query",
        "datasource": _SOURCE,
        "query": {"query": variable.query, "refId": variable.name},
        "refresh": 2,
        "sort": 1,
        "multi": variable.multiple,
        "includeAll": variable.multiple,
        "current": chosen,
    }


def _panels(dashboard: Dashboard) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in dashboard.rows.items():
        panels.append(
            {"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": _place(0, y, _WIDTH, 1)}
        )
        y, x = y + 1, 0
        for panel in row:
            height = 4 if panel.kind == "stat" else 8
            if x + panel.width > _WIDTH:
                x, y = 0, y + height
            panels.append(_panel(panel, len(panels) + 1, _place(x, y, panel.width, height)))
            x += panel.width
        y += height
    return panels


def _panel(panel: Panel, number: int, place: dict[str, int]) -> dict[str, Any]:
    custom: dict[str, Any] = {}
    options: dict[str, Any] = {"reduceOptions": {"calcs": ["lastNotNull"]}}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal", "group": "A"} if panel.stacked else {"mode": "none"}
        custom = {"fillOpacity": 30 if panel.stacked else 5, "showPoints": "never", "stacking": stacking}
        options = {"tooltip": {"mode": "multi", "sort": "desc"}, "legend": {"displayMode": "list", "placement": "bottom"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0, "custom": custom}, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + index),
                "datasource": _SOURCE,
                "expr": query.expr,
                "legendFormat": query.legend,
                "range": True,
            }
            for index, query in enumerate(panel.queries)
        ],
    }


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}
