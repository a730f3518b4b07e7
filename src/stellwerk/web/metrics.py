"""`GET /metrics`: figures in Prometheus' text format, for whoever may read; as a rule that is a token.

Nothing is counted in this process: every figure comes from the database when it is asked for, so whichever of several
web processes answers, the answer is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from litestar import Response, Router
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from stellwerk.engine import Row
from stellwerk.web import routes
from stellwerk.web.desk import Desk

# By the name that current_figures() gives a figure: help, and the labels for its label and its state.
GAUGES = {
    "runs": ("Runs that have not ended, by workflow and state.", ("workflow", "state")),
    "steps_running": ("Steps that workers are carrying out, by type.", ("type",)),
    "queue_depth": ("Steps that wait for a worker, by type.", ("type",)),
    "queue_oldest_seconds": ("How long the oldest of them has waited, by type.", ("type",)),
    "workers": ("Workers that are running.", ()),
    "timers_overdue": ("Timers whose time has come and that no tick has fired yet.", ()),
    "tick_lag_seconds": ("How long the oldest of them has waited.", ()),
    "events_pending": ("Changes of watched tables that have not been looked at.", ()),
    "events_oldest_seconds": ("How long the oldest of them has waited.", ()),
    "tasks": ("Tasks of people that have not been done, by state.", ("state",)),
    "tasks_overdue": ("Tasks of people that should have been done.", ()),
    "alerts": ("Alerts that are not resolved.", ()),
}
ENDINGS = ("completed", "failed", "cancelled")
EDGES = tuple(range(11, 128, 8))
"""The buckets of stellwerk.duration_bucket whose upper ends are told: 7 ms to 25 days, each four times the last."""


class Figures(Collector):
    """What one request was answered by the database, as Prometheus' families."""

    def __init__(self, now: list[Row], totals: list[Row]) -> None:
        self._now = now
        self._totals = totals

    def collect(self) -> Iterator[Metric]:
        """Every family, also one without a sample: what is missing now may be there in a moment."""
        for name, (text, labels) in GAUGES.items():
            gauge = GaugeMetricFamily(f"stellwerk_{name}", text, labels=labels)
            for row in self._now:
                if row["figure"] == name:
                    gauge.add_metric(
                        [value for value in (row["label"], row["state"]) if value is not None], row["value"]
                    )
            yield gauge
        ended = CounterMetricFamily(
            "stellwerk_runs_ended", "Runs that have ended, by workflow and state.", labels=("workflow", "state")
        )
        took = HistogramMetricFamily(
            "stellwerk_run_duration_seconds",
            "How long completed runs took from their first step, by workflow; the sum is right to a tenth.",
            labels=("workflow",),
        )
        for row in self._totals:
            for state in ENDINGS:
                ended.add_metric((row["workflow"], state), row[state])
            counts = {int(bucket): int(count) for bucket, count in (row["durations"] or {}).items()}
            took.add_metric((row["workflow"],), list(buckets(counts)), sum(middle(b) * n for b, n in counts.items()))
        yield from (ended, took)


def buckets(counts: dict[int, int]) -> Iterable[tuple[str, float]]:
    """Counts by `stellwerk.duration_bucket` as Prometheus wants them: so many took no longer than this."""
    for edge in EDGES:
        yield f"{(2 ** ((edge + 1) / 4) - 1) / 1000:g}", sum(n for bucket, n in counts.items() if bucket <= edge)
    yield "+Inf", sum(counts.values())


def middle(bucket: int) -> float:
    """As `stellwerk.duration_of_bucket`."""
    return float((2 ** ((bucket + 0.5) / 4) - 1) / 1000)


@routes.get("/metrics")
def show_metrics(desk: Desk) -> Response[bytes]:
    """The figures of the tenant whose token, or session, asks."""
    with desk.engine() as engine:
        figures = Figures(
            engine.rows("select * from stellwerk.current_figures()"),
            engine.rows("select * from stellwerk.run_totals()"),
        )
    registry = CollectorRegistry(auto_describe=False)
    registry.register(figures)
    return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})


router = Router("/", route_handlers=[show_metrics])
