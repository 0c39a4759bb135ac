"""Description of a dashboard, and its translation into Grafana's model by Grafana's own builders.

The builders (`grafana-foundation-sdk`) are generated from Grafana's schemas, so an unknown field cannot be written.
"""

from typing import Any, Final, NamedTuple

from grafana_foundation_sdk.builders import bargauge, common, prometheus, stat, timeseries
from grafana_foundation_sdk.builders import dashboard as grafana
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as choice
from grafana_foundation_sdk.models import dashboard as model

_SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_STAT_HEIGHT: Final = 4
_HEIGHT: Final = 8


class Query(NamedTuple):
    """An expression, and the name of its lines."""

    expr: str
    legend: str = ""


class Panel(NamedTuple):
    """One panel. `width` is in units of 1/24 of the page; `kind` is Grafana's name of the panel's type."""

    title: str
    queries: tuple[Query, ...]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    description: str = ""


class Variable(NamedTuple):
    """A choice at the top of the page: one or more values of a label."""

    name: str
    query: str
    multiple: bool = True


class Dashboard(NamedTuple):
    """A dashboard: rows of panels, from the top, each row with a title."""

    uid: str
    title: str
    rows: dict[str, tuple[Panel, ...]]
    variables: tuple[Variable, ...] = ()


def text(dashboard: Dashboard) -> str:
    """Return the content of a dashboard's file."""
    links = grafana.DashboardLink("Moodline").type(model.DashboardLinkType.DASHBOARDS).tags(["moodline"])
    builder = (
        grafana.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .tags(["moodline"])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .link(links.as_dropdown(True).include_vars(True))
        .with_variable(grafana.DatasourceVariable("datasource").label("Source").type("prometheus"))
    )
    for variable in dashboard.variables:
        builder.with_variable(_variable(variable))
    for title, row in dashboard.rows.items():
        builder.with_row(grafana.Row(title))
        for panel in row:
            builder.with_panel(_panel(panel))
    return JSONEncoder(sort_keys=True, indent=2).encode(builder.build()) + "\n"


def _variable(variable: Variable) -> grafana.QueryVariable:
    builder = (
        grafana.QueryVariable(variable.name)
        .label(variable.name.capitalize())
        .datasource(_SOURCE)
        .query({"query": variable.query, "refId": variable.name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(variable.multiple)
        .include_all(variable.multiple)
    )
    return builder.current(model.VariableOption(text="All", value="$__all")) if variable.multiple else builder


def _panel(panel: Panel) -> Any:
    builder = _KINDS[panel.kind](panel).title(panel.title).description(panel.description).datasource(_SOURCE)
    builder.unit(panel.unit).min(0).span(panel.width).height(_STAT_HEIGHT if panel.kind == "stat" else _HEIGHT)
    for index, query in enumerate(panel.queries):
        target = prometheus.Dataquery().ref_id(chr(ord("A") + index)).datasource(_SOURCE)
        builder.with_target(target.expr(query.expr).legend_format(query.legend).range())
    return builder


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
