"""Two dashboards for Grafana: what clients get, and what the engine does."""

# ruff: noqa: E501 - a table

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grafana_foundation_sdk.builders import common, stat, timeseries
from grafana_foundation_sdk.builders.dashboard import Dashboard as Builder
from grafana_foundation_sdk.builders.dashboard import DatasourceVariable, QueryVariable, Row, ThresholdsConfig
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.common import LegendDisplayMode, LegendPlacement, StackingMode
from objectives import DRAWING, OBJECTIVES, SLOW_S

_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${source}")
_OF = 'job=~"$job", instance=~"$instance"'
_WIDTH, _HEIGHT = 24, 8  # Grafana's columns, and a row's height


@dataclass(frozen=True)
class Query:
    """PromQL with the legend of its series. OF stands for the labels that the dashboard's variables choose."""

    expression: str
    legend: str
    exemplar: bool = False

    def build(self, ref_id: str) -> Dataquery:
        query = Dataquery().expr(self.expression.replace("OF", _OF)).legend_format(self.legend).range().ref_id(ref_id)
        return query.exemplar(True) if self.exemplar else query


@dataclass(frozen=True)
class Panel:
    """A panel: what it shows, in which of Grafana's units, and how it is read."""

    title: str
    description: str
    unit: str
    queries: tuple[Query, ...]
    stacked: bool = False


@dataclass(frozen=True)
class Figure:
    """One number, red from `bad` on where there is such a bound."""

    title: str
    description: str
    unit: str
    expression: str
    bad: float | None = None


def quantiles(metric: str, labels: str = "OF", shares: Sequence[float] = (0.5, 0.99)) -> tuple[Query, ...]:
    """Quantiles of a histogram over the chosen instances."""
    return tuple(
        Query(
            f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{{labels}}}[$__rate_interval])))",
            f"p{share * 100:g}",
            exemplar=metric.startswith("spade_gateway_"),
        )
        for share in shares
    )


def per_second(metric: str, by: str, labels: str = "OF") -> tuple[Query, ...]:
    """The rate of a counter, a series for each value of `by`."""
    return (Query(f"sum by ({by}) (rate({metric}{{{labels}}}[$__rate_interval]))", f"{{{{{by}}}}}"),)


def _burnt(index: int) -> str:
    objective = OBJECTIVES[index]
    return f'max({objective.record("3d")}{{job=~"$job"}}) / {objective.budget:g}'


FIGURES = (
    Figure("Instances up", "Instances whose models answer", "short", "sum(spade_up{OF})"),
    Figure("Images a second", "Over the last five minutes", "short", 'sum(spade:images:rate5m{job=~"$job"})'),
    Figure("Failed requests, burn", "Speed of the error budget over 3 days: 1 uses it up in 30 days", "short", _burnt(0), 1),
    Figure("Slow requests, burn", f"The same for requests longer than {SLOW_S:g} s", "short", _burnt(1), 1),
    Figure("Longest queue", "Label maps that wait, of what may wait", "percentunit",
           "max(spade_gateway_waiting_maps{OF} / spade_gateway_waiting_limit_maps{OF})", 0.5),
    Figure("Restarts in a day", "Processes that supervisors replaced", "short",
           "sum(increase(spade_restarts_total{OF}[1d]))", 3),
)  # fmt: skip

OVERVIEW = {
    "What clients get": (
        Panel("Requests by status", "Calls that draw images", "reqps",
              per_second("spade_gateway_requests_total", "status", f"OF, {DRAWING}"), stacked=True),
        Panel("Latency", "From a request's arrival to its answer", "s",
              quantiles("spade_gateway_request_seconds", f"OF, {DRAWING}", (0.5, 0.95, 0.99))),
        Panel("Images", "Images drawn, by instance", "cps", per_second("spade_images_total", "instance"), stacked=True),
    ),
    "Queue and deadlines": (
        Panel("Queue", "Label maps", "short",
              (Query("sum by (instance) (spade_gateway_waiting_maps{OF})", "{{instance}} waiting"),
               Query("sum by (instance) (spade_gateway_sent_maps{OF})", "{{instance}} at the model"))),
        Panel("Wait for a turn", "Of requests that were sent on", "s", quantiles("spade_gateway_queue_seconds")),
        Panel("Refused", "By reason: full, deadline cannot be met, longest wait", "reqps",
              per_second("spade_gateway_refused_total", "reason"), stacked=True),
        Panel("Deadlines", "Requests with a deadline, by what became of it", "reqps",
              per_second("spade_gateway_deadlines_total", "outcome"), stacked=True),
        Panel("Deadlines given", "The time that clients give", "s", quantiles("spade_gateway_deadline_seconds", shares=(0.1, 0.5))),
    ),
    "Live painting": (
        Panel("Pictures and requests", "By status", "reqps",
              per_second("spade_gateway_requests_total", "status", 'OF, door="live"'), stacked=True),
        Panel("Sessions", "Kept, and with a client", "short",
              (Query("sum by (instance) (spade_gateway_live_sessions{OF})", "{{instance}} kept"),
               Query("sum by (instance) (spade_gateway_live_connections{OF})", "{{instance}} connected"))),
    ),
    "Processes": (
        Panel("Replaced processes", "By part and reason", "short",
              (Query("sum by (part, reason) (increase(spade_restarts_total{OF}[$__rate_interval]))", "{{part}} {{reason}}"),)),
        Panel("Memory of the gateway", "Resident", "bytes",
              (Query("spade_gateway_process_resident_memory_bytes{OF}", "{{instance}}"),)),
        Panel("Processor of the gateway", "Cores", "short",
              (Query("rate(spade_gateway_process_cpu_seconds_total{OF}[$__rate_interval])", "{{instance}}"),)),
    ),
}  # fmt: skip

ENGINE = {
    "Requests of the models": (
        Panel("Outcomes of spade", "Requests by outcome", "reqps", per_second("spade_requests_total", "outcome"), stacked=True),
        Panel("Outcomes of spade_image", "Requests by outcome", "reqps",
              per_second("spade_image_requests_total", "outcome"), stacked=True),
        Panel("Drawing", "From the start of a batch to the answer", "s", quantiles("spade_request_seconds")),
        Panel("Waiting", "From the client's sending to the start of its batch", "s", quantiles("spade_queue_seconds")),
    ),
    "Batches": (
        Panel("Label maps in a batch", "Mean", "short",
              (Query("sum(rate(spade_batch_size_sum{OF}[$__rate_interval])) / "
                     "sum(rate(spade_batch_size_count{OF}[$__rate_interval]))", "mean"),)),
        Panel("Where a batch's time goes", "Seconds of a batch, mean", "s",
              tuple(Query(f"sum(rate(spade_{part}_seconds_sum{{OF}}[$__rate_interval])) / "
                          f"sum(rate(spade_{part}_seconds_count{{OF}}[$__rate_interval]))", part)
                    for part in ("plan", "codebook", "convs")), stacked=True),
        Panel("Maps that came before", "Share of images whose plan and codebooks were in the cache", "percentunit",
              (Query("sum(rate(spade_cached_maps_total{OF}[$__rate_interval])) / "
                     "sum(rate(spade_images_total{OF}[$__rate_interval]))", "cached"),)),
        Panel("Distinct patches", "Per pixel; the lower, the more the codebook saves", "percentunit",
              quantiles("spade_distinct_patch_ratio")),
    ),
    "Files": (
        Panel("PNG decoding", "Of a request", "s", quantiles("spade_image_decode_seconds")),
        Panel("Image encoding", "Of a request", "s", quantiles("spade_image_encode_seconds")),
    ),
    "What runs": (
        Panel("Weights", "Processes by the hash of their weights", "short",
              (Query("count by (sha256) (spade_weights_info{OF})", "{{sha256}}"),), stacked=True),
        Panel("Versions", "Instances by version", "short",
              (Query("count by (version) (spade_build_info{OF})", "{{version}}"),), stacked=True),
        Panel("Waiting requests", "In the models' own queue", "short",
              (Query("sum by (instance) (spade_waiting_requests{OF})", "{{instance}}"),)),
    ),
}  # fmt: skip


def dashboards() -> list[models.Dashboard]:
    """Both dashboards."""
    overview = _empty("spade-overview", "SPADE Serve, overview", "What clients get, and whether somebody must act")
    for figure in FIGURES:
        overview.with_panel(_stat(figure, _WIDTH // len(FIGURES)))
    engine = _empty("spade-engine", "SPADE Serve, engine", "Where the time of the images goes")
    return [_filled(overview, OVERVIEW), _filled(engine, ENGINE)]


def _empty(uid: str, title: str, description: str) -> Builder:
    builder = Builder(title).uid(uid).description(description).tags(["spade"]).refresh("30s").time("now-3h", "now")
    builder.readonly().timezone("browser")
    builder.with_variable(DatasourceVariable("source").label("Prometheus").type("prometheus"))
    for name, of in (("job", "spade_up"), ("instance", 'spade_up{job=~"$job"}')):
        variable = QueryVariable(name).datasource(_SOURCE).query(f"label_values({of}, {name})")
        builder.with_variable(
            variable.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).include_all(True).multi(True).all_value(".+")
        )
    return builder


def _filled(builder: Builder, rows: dict[str, tuple[Panel, ...]]) -> models.Dashboard:
    for title, panels in rows.items():
        builder.with_row(Row(title))
        for panel in panels:
            builder.with_panel(_chart(panel, _WIDTH // min(3, len(panels))))
    built = builder.build()
    for number, part in enumerate(built.panels or [], 1):
        part.id_val = number
    return built


def _chart(panel: Panel, width: int) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    chart = timeseries.Panel().title(panel.title).description(panel.description).unit(panel.unit).datasource(_SOURCE)
    chart.min(0).fill_opacity(20 if panel.stacked else 5).height(_HEIGHT).span(width)
    chart.legend(legend.show_legend(True).calcs([]))
    if panel.stacked:
        chart.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    for number, query in enumerate(panel.queries):
        chart.with_target(query.build(chr(ord("A") + number)))
    return chart


def _stat(figure: Figure, width: int) -> stat.Panel:
    steps = [models.Threshold(value=None, color="green")]
    if figure.bad is not None:
        steps.append(models.Threshold(value=figure.bad, color="red"))
    thresholds = ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
    panel = stat.Panel().title(figure.title).description(figure.description).unit(figure.unit).datasource(_SOURCE)
    panel.thresholds(thresholds).height(_HEIGHT // 2).span(width)
    return panel.with_target(Query(figure.expression, "").build("A"))
