"""Grafana's dashboards, described here once and written as the files that Grafana reads.

    python deploy/grafana/build_dashboards.py

writes `deploy/grafana/dashboards/*.json`; a test holds them to this description, and another asks a Prometheus every expression.
"""

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

FOLDER: Final = Path(__file__).parent / "dashboards"
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


def stat(title: str, expr: str, unit: str = "short", description: str = "") -> Panel:
    """Return a panel with one number."""
    return Panel(title, (Query(expr),), unit, "stat", 4, description=description)


def quantiles(metric: str, by: str, matchers: str = "") -> tuple[Query, ...]:
    """Return the median, 95% and 99% quantiles of a histogram."""
    rate = f"sum by (le, {by}) (rate({metric}_bucket{{{matchers}}}[$__rate_interval]))"
    return tuple(Query(f"histogram_quantile({q}, {rate})", f"p{round(q * 100)} {{{{{by}}}}}") for q in (0.5, 0.95, 0.99))


def rate(metric: str, by: str, matchers: str = "") -> str:
    """Return the expression of a counter's rate per second, summed by labels."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


def mean(histogram: str, by: str, matchers: str = "") -> str:
    """Return the expression of a histogram's mean; 0 where nothing was observed."""
    total, count = rate(f"{histogram}_sum", by, matchers), rate(f"{histogram}_count", by, matchers)
    return f"{total} / clamp_min({count}, 1e-9)"


OVERVIEW: Final = Dashboard(
    "moodline-overview",
    "Moodline / Overview",
    {
        "Now": (
            stat("Streams live", 'sum(moodline_streams{state=~"live|playing"}) + sum(moodline_pushed_streams)'),
            stat("Cameras down", "sum(moodline_cameras_down)", description="Backing off, stalled or failed."),
            stat("Frames in", 'sum(rate(moodline_frames_total{worker="ingest"}[$__rate_interval]))', "cps"),
            stat("Faces", 'sum(rate(moodline_faces_total{worker="aggregator"}[$__rate_interval]))', "cps"),
            stat("Backlog", "max(moodline_lag_seconds)", "s", "Age of the oldest message that waits, over all workers."),
            stat("Timeline behind", "max(moodline_timeline_behind_seconds)", "s", "Of the live camera that is furthest behind."),
        ),
        "Flow": (
            Panel("Frames by worker", (Query(rate("moodline_frames_total", "worker"), "{{worker}}"),), "cps"),
            Panel("Faces by worker", (Query(rate("moodline_faces_total", "worker"), "{{worker}}"),), "cps"),
            Panel("Streams by state", (Query("sum by (state) (moodline_streams) > 0", "{{state}}"),), stacked=True),
        ),
        "Time": (
            Panel("From capture to timeline", quantiles("moodline_end_to_end_seconds", "lane"), "s", width=12),
            Panel(
                "Backlog in seconds",
                (Query("max by (worker, lane) (moodline_lag_seconds)", "{{worker}} {{lane}}"),),
                "s",
                width=12,
                description="Age of the oldest message that a worker has not finished.",
            ),
        ),
        "Trouble": (
            Panel(
                "Skipped frames by reason",
                (Query(rate("moodline_frames_skipped_total", "lane, reason"), "{{lane}} {{reason}}"),),
                "cps",
                stacked=True,
            ),
            Panel(
                "Dead letters",
                (Query("sum by (worker, reason) (increase(moodline_dead_letters_total[5m]))", "{{worker}} {{reason}}"),),
            ),
            Panel(
                "Bus and store out of reach",
                (
                    Query(rate("moodline_retries_total", "worker, target"), "{{worker}} {{target}}"),
                    Query("sum(rate(moodline_bus_errors_total[$__rate_interval]))", "bus client"),
                ),
                "cps",
            ),
        ),
    },
)

_WORKER: Final = 'worker=~"$worker"'
_JOB: Final = 'job=~".*moodline.*"'
THROUGHPUT: Final = Dashboard(
    "moodline-throughput",
    "Moodline / Throughput and scaling",
    {
        "Workers": (
            Panel("Workers at work", (Query(f"sum by (worker) (moodline_worker_up{{{_WORKER}}})", "{{worker}}"),)),
            Panel(
                "Frames by process",
                (Query(rate("moodline_frames_total", "worker, instance", _WORKER), "{{worker}} {{instance}}"),),
                "cps",
            ),
            Panel(
                "Partitions by process",
                (Query(f"sum by (worker, instance) (moodline_partitions{{{_WORKER}}})", "{{worker}} {{instance}}"),),
                description="A worker without partitions waits: there are more workers than partitions.",
            ),
        ),
        "Backlog": (
            Panel(
                "Messages that wait",
                (Query(f"sum by (worker, lane) (moodline_lag_messages{{{_WORKER}}})", "{{worker}} {{lane}}"),),
            ),
            Panel(
                "Seconds behind",
                (Query(f"max by (worker, lane) (moodline_lag_seconds{{{_WORKER}}})", "{{worker}} {{lane}}"),),
                "s",
            ),
            Panel("Age when taken", quantiles("moodline_queue_age_seconds", "worker", _WORKER), "s"),
        ),
        "Batches and models": (
            Panel("Messages per batch", (Query(mean("moodline_batch_size", "worker", _WORKER), "{{worker}}"),)),
            Panel(
                "Fill of the classifier's batch",
                (
                    Query(
                        f"sum({rate('moodline_model_batch_fill_ratio_sum', 'job')}) / "
                        f"clamp_min(sum({rate('moodline_model_batch_fill_ratio_count', 'job')}), 1e-9)",
                        "fill",
                    ),
                ),
                "percentunit",
            ),
            Panel("Time of a model's call", quantiles("moodline_model_seconds", "worker"), "s"),
            Panel("Time of a stage's batch", quantiles("moodline_stage_seconds", "worker", _WORKER), "s"),
            Panel("Time to make a batch durable", quantiles("moodline_sink_seconds", "worker", _WORKER), "s"),
            Panel(
                "Busy share of a worker",
                (
                    Query(
                        f"({rate('moodline_stage_seconds_sum', 'worker', _WORKER)} + "
                        f"{rate('moodline_sink_seconds_sum', 'worker', _WORKER)}) / "
                        f"sum by (worker) (moodline_worker_up{{{_WORKER}}})",
                        "{{worker}}",
                    ),
                ),
                "percentunit",
            ),
        ),
        "Machines": (
            Panel(
                "CPU cores by process",
                (Query(f"rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval])", "{{job}} {{instance}}"),),
            ),
            Panel("Memory by process", (Query(f"process_resident_memory_bytes{{{_JOB}}}", "{{job}} {{instance}}"),), "bytes"),
            Panel(
                "GPU",
                (Query("max by (instance, gpu) (moodline_gpu_busy_ratio) or vector(0)", "{{instance}} {{gpu}}"),),
                "percentunit",
                description="Of classifiers that see an NVIDIA GPU; 0 without any.",
            ),
        ),
        "Ingest": (
            Panel("Frames decoded", (Query("sum(rate(moodline_frames_decoded_total[$__rate_interval]))", "decoded"),), "cps"),
            Panel(
                "Files wait for their timelines",
                (Query("sum(rate(moodline_credit_wait_seconds_total[$__rate_interval]))", "readers that wait"),),
            ),
            Panel(
                "Timeline updates",
                (Query(rate("moodline_timeline_updates_total", "result"), "{{result}}"),),
                "cps",
            ),
        ),
    },
    (Variable("worker", "label_values(moodline_worker_up, worker)"),),
)

_STREAM: Final = 'stream="$stream"'
_ANSWERED: Final = _STREAM + ',result=~"faces|no_face"'
_FRAMES: Final = "sum(rate(moodline_stream_frames_total{%s}[$__rate_interval]))"
_COVERAGE: Final = f"{_FRAMES % _ANSWERED} / clamp_min({_FRAMES % _STREAM}, 1e-9)"
STREAM: Final = 'stream="$stream"'
_ANSWERED: Final = f'sum(rate(moodline_stream_frames_total{{{_STREAM},result=~"faces|no_face"}}[$__rate_interval]))'
STREAM: Final = Dashboard(
    "moodline-stream",
    "Moodline / Stream detail",
    {
        "Now": (
            Panel(
                "State",
                (Query(f"max by (state) (moodline_stream_state{{{_STREAM}}})", "{{state}}"),),
                kind="stat",
                width=6,
                description="The first streams of each worker only: MOODLINE_WORKER_STREAM_METRICS. The API knows all.",
            ),
            Panel("Frames per second", (Query(f"max(moodline_stream_fps{{{_STREAM}}})"),), "cps", "stat", 6),
            Panel("Timeline behind", (Query(f"max(moodline_stream_behind_seconds{{{_STREAM}}}) or vector(0)"),), "s", "stat", 6),
            Panel(
                "Connections in the last hour",
                (
                    Query(
                        f"sum(max_over_time(moodline_stream_sessions_total{{{_STREAM}}}[1h]))"
                        f" - sum(min_over_time(moodline_stream_sessions_total{{{_STREAM}}}[1h]))"
                    ),
                ),
                kind="stat",
                width=6,
                description="Connections that were begun beyond the first: a camera that is well has none.",
            ),
        ),
        "Frames": (
            Panel(
                "Coverage",
                (Query(_COVERAGE, "answered"),),
                "percentunit",
                description="Share of the sampled frames that were searched and classified.",
            ),
            Panel(
                "Frames by result",
                (Query(rate("moodline_stream_frames_total", "result", _STREAM), "{{result}}"),),
                "cps",
                stacked=True,
            ),
            Panel("Faces", (Query(f"sum(rate(moodline_stream_faces_total{{{_STREAM}}}[$__rate_interval]))", "faces"),), "cps"),
        ),
        "Camera": (
            Panel("State over time", (Query(f"max by (state) (moodline_stream_state{{{_STREAM}}})", "{{state}}"),), stacked=True),
            Panel("Frames that arrive", (Query(f"max(moodline_stream_fps{{{_STREAM}}})", "frames per second"),), "cps"),
            Panel("Connections", (Query(f"sum(moodline_stream_sessions_total{{{_STREAM}}})", "begun"),)),
        ),
    },
    (Variable("stream", "label_values(moodline_stream_state, stream)", multiple=False),),
)

_LANE: Final = 'lane=~"$lane"'
EMOTIONS: Final = Dashboard(
    "moodline-emotions",
    "Moodline / Emotions",
    {
        "All streams together": (
            Panel(
                "Faces by likeliest emotion",
                (Query(rate("moodline_emotions_total", "emotion", _LANE), "{{emotion}}"),),
                "cps",
                width=12,
                stacked=True,
                description="Estimates of a model, of expressions, not of feelings; see docs/responsible-use.md.",
            ),
            Panel(
                "Share of each emotion",
                (
                    Query(
                        f"{rate('moodline_emotions_total', 'emotion', _LANE)} / ignoring (emotion) group_left "
                        f"clamp_min(sum(rate(moodline_emotions_total{{{_LANE}}}[$__rate_interval])), 1e-9)",
                        "{{emotion}}",
                    ),
                ),
                "percentunit",
                width=12,
                stacked=True,
            ),
        ),
        "In the chosen time": (
            Panel(
                "Faces",
                (Query(f"sum by (emotion) (increase(moodline_emotions_total{{{_LANE}}}[$__range]))", "{{emotion}}"),),
                kind="bargauge",
                width=12,
            ),
            Panel("Models in use", (Query("max by (model) (moodline_model_active)", "{{model}}"),), width=12),
        ),
    },
    (Variable("lane", "label_values(moodline_emotions_total, lane)"),),
)

DASHBOARDS: Final = (OVERVIEW, THROUGHPUT, STREAM, EMOTIONS)


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


def main() -> None:
    """Write every dashboard's file."""
    FOLDER.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(text(dashboard))


if __name__ == "__main__":
    main()
