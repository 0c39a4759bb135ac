"""Description of a dashboard, and its translation into Grafana's model by Grafana's own builders.

The builders (`grafana-foundation-sdk`) are generated from Grafana's schemas, so an unknown field cannot be written.
"""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import UnknownDataquery
from grafana_foundation_sdk.models import common as choice
from grafana_foundation_sdk.models import dashboard as model

_SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_API: Final = model.DataSourceRef(type_val="yesoreyeram-infinity-datasource", uid="moodline-api")
"""The plugin Infinity, which asks Moodline's own API; see the provisioned data source."""
_STAT_HEIGHT: Final = 4
_HEIGHT: Final = 8


class Query(NamedTuple):
    """An expression, and the name of its lines."""

    expr: str
    legend: str = ""


class ApiQuery(NamedTuple):
    """A question to Moodline's API.

    Attributes:
        path: Below the API's address; may hold variables.
        root: Where in the answer the rows are.
        columns: By path in a row the name of its column and its type: `timestamp`, `number` or `string`.
        parameters: Of the question.
    """

    path: str
    root: str
    columns: Mapping[str, tuple[str, str]]
    parameters: Mapping[str, str] = MappingProxyType({})


class Panel(NamedTuple):
    """One panel. `width` is in units of 1/24 of the page; `kind` is Grafana's name of the panel's type."""

    title: str
    queries: tuple[Query | ApiQuery, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    description: str = ""


class Variable(NamedTuple):
    """A choice at the top of the page: one or more values of a label, or of the only column that the API answers."""

    name: str
    query: str | ApiQuery
    multiple: bool = True


class Dashboard(NamedTuple):
    """A dashboard: rows of panels, from the top, each row with a title."""

    uid: str
    title: str
    rows: dict[str, tuple[Panel, ...]]
    variables: tuple[Variable, ...] = ()
    refresh: str = "10s"
    time_from: str = "now-30m"


def text(dashboard: Dashboard) -> str:
    """Return the content of a dashboard's file."""
    links = grafana.DashboardLink("Moodline").type(model.DashboardLinkType.DASHBOARDS).tags(["moodline"])
    builder = (
        grafana.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .tags(["moodline"])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh(dashboard.refresh)
        .time(dashboard.time_from, "now")
        .timezone("browser")
        .link(links.as_dropdown(True).include_vars(True))
    )
    if any(isinstance(query, Query) for row in dashboard.rows.values() for panel in row for query in panel.queries):
        builder.with_variable(grafana.DatasourceVariable("datasource").label("Source").type("prometheus"))
    for variable in dashboard.variables:
        builder.with_variable(_variable(variable))
    for title, row in dashboard.rows.items():
        builder.with_row(grafana.Row(title))
        for panel in row:
            builder.with_panel(_panel(panel))
    plain = json.loads(JSONEncoder().encode(builder.build()))
    for variable in plain["templating"]["list"]:
        # Of intervals only. The builders, a version behind, write them everywhere; Grafana 12 does not know them elsewhere.
        for name in ("auto", "auto_count", "auto_min"):
            variable.pop(name, None)
    return json.dumps(plain, sort_keys=True, indent=2) + "\n"


def _variable(variable: Variable) -> grafana.QueryVariable:
    is_own = isinstance(variable.query, ApiQuery)
    asked = _asked(variable.query, "table") if isinstance(variable.query, ApiQuery) else variable.query
    builder = (
        grafana.QueryVariable(variable.name)
        .label(variable.name.capitalize())
        .datasource(_API if is_own else _SOURCE)
        .query(
            {"queryType": "infinity", "infinityQuery": asked, "refId": variable.name}
            if is_own
            else {"query": asked, "refId": variable.name}
        )
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(variable.multiple)
        .include_all(variable.multiple)
    )
    return builder.current(model.VariableOption(text="All", value="$__all")) if variable.multiple else builder


def _panel(panel: Panel) -> Any:
    source = _API if isinstance(panel.queries[0], ApiQuery) else _SOURCE
    builder = _KINDS[panel.kind](panel).title(panel.title).description(panel.description).datasource(source)
    builder.unit(panel.unit).min(0).span(panel.width).height(_STAT_HEIGHT if panel.kind == "stat" else _HEIGHT)
    for index, query in enumerate(panel.queries):
        name = chr(ord("A") + index)
        if isinstance(query, ApiQuery):
            builder.with_target(_ApiTarget({**_asked(query, "timeseries"), "refId": name}))
            continue
        target = prometheus.Dataquery().ref_id(name).datasource(_SOURCE)
        builder.with_target(target.expr(query.expr).legend_format(query.legend).range())
    return builder


class _ApiTarget:
    """A question that no builder of Grafana's makes, because the plugin is not Grafana's own."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked

    def build(self) -> UnknownDataquery:
        return UnknownDataquery(self._asked)


def _asked(query: ApiQuery, form: str) -> dict[str, Any]:
    """Return what the plugin Infinity asks, in its own words; its parser in Grafana's server, so that alerts could use it too."""
    return {
        "datasource": {"type": _API.type_val, "uid": _API.uid},
        "type": "json",
        "source": "url",
        "parser": "backend",
        "format": form,
        "url": query.path,
        "url_options": {
            "method": "GET",
            "data": "",
            "params": [{"key": key, "value": value} for key, value in query.parameters.items()],
        },
        "root_selector": query.root,
        "columns": [{"selector": path, "text": name, "type": kind} for path, (name, kind) in query.columns.items()],
        "filters": [],
        "global_query_id": "",
    }


def _timeseries(panel: Panel) -> timeseries.Panel:
    stacking = common.StackingConfig().mode(choice.StackingMode.NORMAL if panel.stacked else choice.StackingMode.NONE)
    legend = common.VizLegendOptions().display_mode(choice.LegendDisplayMode.LIST).placement(choice.LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(choice.TooltipDisplayMode.MULTI).sort(choice.SortOrder.DESCENDING)
    builder = timeseries.Panel().fill_opacity(30 if panel.stacked else 5).show_points(choice.VisibilityMode.NEVER)
    return builder.stacking(stacking.group("A")).legend(legend).tooltip(tooltip)


def _last_value() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"])


_KINDS: Final = {
    "timeseries": _timeseries,
    "stat": lambda _: stat.Panel().reduce_options(_last_value()),
    "bargauge": lambda _: bargauge.Panel().reduce_options(_last_value()),
}
