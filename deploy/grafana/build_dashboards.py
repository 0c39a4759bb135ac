"""Grafana's dashboards, described here once and written as the files that Grafana reads.

    python deploy/grafana/build_dashboards.py

writes `deploy/grafana/dashboards/*.json`; tests hold them to this description and to the schema of Grafana's version, and ask a
Prometheus every expression. `dashboards/history` asks Moodline's own API instead, by Grafana's plugin Infinity.
"""

from pathlib import Path
from typing import Final

from dashboard_model import ApiQuery, Dashboard, Panel, Query, Variable, text

FOLDER: Final = Path(__file__).parent / "dashboards"
_EMOTIONS: Final = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_EXPRESSIONS: Final = "Estimates of a model, of expressions, not of feelings; see docs/responsible-use.md."


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
                "Bus and store unavailable",
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
_ANSWERED: Final = _STREAM + ',result=~"faces|unreadable|no_face"'
_FRAMES: Final = "sum(rate(moodline_stream_frames_total{%s}[$__rate_interval]))"
_COVERAGE: Final = f"{_FRAMES % _ANSWERED} / clamp_min({_FRAMES % _STREAM}, 1e-9)"
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
        "Emotions": (
            Panel(
                "Share of each emotion",
                (
                    Query(
                        f"{rate('moodline_stream_emotions_total', 'emotion', _STREAM)} / ignoring (emotion) group_left "
                        f"clamp_min(sum(rate(moodline_stream_emotions_total{{{_STREAM}}}[$__rate_interval])), 1e-9)",
                        "{{emotion}}",
                    ),
                ),
                "percentunit",
                stacked=True,
                description=f"Of the stream's faces, by likeliest emotion. {_EXPRESSIONS}",
            ),
            Panel(
                "Faces by likeliest emotion",
                (Query(rate("moodline_stream_emotions_total", "emotion", _STREAM), "{{emotion}}"),),
                "cps",
                stacked=True,
            ),
            Panel(
                "Gaps by reason",
                (Query(rate("moodline_stream_frames_total", "result", f'{_STREAM},result!~"faces|no_face"'), "{{result}}"),),
                "cps",
                stacked=True,
                description="Sampled frames that nobody looked at, and why.",
            ),
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
                description=_EXPRESSIONS,
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

_TIMELINE: Final = "/api/v1/streams/${stream}/timeline"
# Grafana gives its window in milliseconds, which the API understands.
_WINDOW: Final = {"from": "${__from}", "to": "${__to}", "max_points": "600"}
_START: Final = {"start": ("Time", "timestamp")}


def timeline(columns: dict[str, str]) -> tuple[ApiQuery]:
    """Return the question for columns of a timeline, by path in a point."""
    numbers = {path: (name, "number") for path, name in columns.items()}
    return (ApiQuery(_TIMELINE, "points", _START | numbers, _WINDOW),)


HISTORY: Final = Dashboard(
    "moodline-history",
    "Moodline / History",
    {
        "What the timeline holds": (
            Panel(
                "Share of each emotion",
                timeline({f"shares.{emotion}": emotion for emotion in _EMOTIONS}),
                "percentunit",
                width=24,
                stacked=True,
                description=f"From the timeline itself, as far back as it is kept. {_EXPRESSIONS}",
            ),
            Panel(
                "Smoothed probabilities",
                timeline({f"smoothed.{emotion}": emotion for emotion in _EMOTIONS}),
                "percentunit",
                width=12,
            ),
            Panel("Faces", timeline({"faces": "faces", "tracks_begun": "new faces"}), width=12),
        ),
        "Gaps": (
            Panel("Coverage", timeline({"coverage": "answered"}), "percentunit", width=12),
            Panel(
                "Gaps by reason",
                timeline({f"skipped.{reason}": reason for reason in ("expired", "overloaded", "corrupt", "lost")}),
                width=12,
                stacked=True,
            ),
        ),
    },
    (
        Variable(
            "stream",
            ApiQuery("/api/v1/streams", "streams", {"id": ("id", "string")}, {"limit": "500"}),
            multiple=False,
        ),
    ),
    refresh="1m",
    time_from="now-24h",
)

DASHBOARDS: Final = (OVERVIEW, THROUGHPUT, STREAM, EMOTIONS)


def main() -> None:
    """Write every dashboard's file."""
    FOLDER.mkdir(exist_ok=True)
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(text(dashboard))
    (FOLDER / "history").mkdir(exist_ok=True)
    (FOLDER / "history" / f"{HISTORY.uid}.json").write_text(text(HISTORY))


if __name__ == "__main__":
    main()
