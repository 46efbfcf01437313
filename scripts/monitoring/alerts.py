"""The alerts but for the burn rates: when each fires, what it means and what to do."""

# ruff: noqa: E501 - sentences of a page

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

JOB = "spade"  # of the scrape configuration


@dataclass(frozen=True)
class Alert:
    """An alert.

    Attributes:
        wait: how long the expression must hold, as Prometheus writes durations.
        severity: `page` wakes somebody, `ticket` waits for the morning.
        summary: one line; may hold Prometheus' templates.
        meaning: what is wrong, and what clients notice.
        actions: what to look at and to do, in order.
    """

    name: str
    expression: str
    wait: str
    severity: Literal["page", "ticket"]
    summary: str
    meaning: str
    actions: tuple[str, ...]


ALERTS = (
    Alert(
        "SpadeTargetDown",
        f'up{{job="{JOB}"}} == 0',
        "2m",
        "page",
        "{{ $labels.instance }} answers no scrape",
        "Neither supervisor nor gateway answers: the process or the machine is gone, or the network between.",
        (
            "Ask `GET /healthz` of the instance from beside it. An answer means that only the network or the metrics port is shut.",
            "Read the end of the log: `spade serve` ends with status 1 and the reason after five failed starts in a row.",
            "Start it again, or give its load to the others. `spade check` and `spade info` tell whether the weights can be read.",
        ),
    ),
    Alert(
        "SpadeAbsent",
        f'absent(up{{job="{JOB}"}})',
        "5m",
        "page",
        "Prometheus knows no target of the job spade",
        "Service discovery finds no instance at all, so no other alert can fire.",
        (
            "Check the targets page of Prometheus and the job's configuration.",
            "Check that any instance is meant to run.",
        ),
    ),
    Alert(
        "SpadeModelsDown",
        "spade_up == 0",
        "2m",
        "page",
        "{{ $labels.instance }} has had no models for two minutes",
        "The gateway runs, but Triton and its models do not come back. Requests wait, then are answered by 503.",
        (
            "`/readyz` and the log say the reason, which `spade_restarts_total` counts.",
            "`memory`: the container is too small for the model; give it more, or a smaller `--max-batch`.",
            "`dead` again and again: the log has the last words of the process. Weights that cannot be read, or a full disk, end each start.",
        ),
    ),
    Alert(
        "SpadeRestarts",
        "sum by (job, instance, part, reason) (increase(spade_restarts_total[30m])) > 2.5",
        "0m",
        "page",
        "{{ $labels.part }} of {{ $labels.instance }} was replaced {{ $value | humanize }} times in half an hour ({{ $labels.reason }})",
        "The supervisor replaces a process again and again. Accepted requests survive, but each replacement takes seconds.",
        (
            "The label `reason` is explained in [operations](operations.md#what-is-noticed), and each event is a line of the log.",
            "`hung` under load: check that the machine is not oversubscribed, and that `--threads` fits its cores.",
            "`dead`: look for the kernel's OOM killer (`dmesg`) and for a request that ends the process: the gateway logs which request it sent twice.",
        ),
    ),
    Alert(
        "SpadeWrongImages",
        'sum by (job, instance) (increase(spade_restarts_total{reason="wrong"}[6h])) > 0.5',
        "0m",
        "page",
        "{{ $labels.instance }} drew a wrong image of the canary",
        "The same map gave other bits than at the start: memory or a processor is damaged. Images before it may be wrong too.",
        (
            "Take the machine out of service, and keep the log.",
            "Check memory (`edac-util`, the hypervisor's events) before the machine serves again.",
        ),
    ),
    Alert(
        "SpadeRequestsFail",
        'sum by (job, instance) (rate(spade_requests_total{outcome="failed"}[5m])) > 0',
        "5m",
        "ticket",
        "{{ $labels.instance }} answers requests by internal errors",
        "The engine fails on requests that passed every check. Clients get `internal error` with a reference.",
        ("Search the log for the reference: the traceback is there.", "Report it as a defect with the label map."),
    ),
    Alert(
        "SpadeOverloaded",
        'sum by (job, instance) (rate(spade_gateway_refused_total{reason=~"full|waited"}[5m])) > 0',
        "10m",
        "ticket",
        "{{ $labels.instance }} refuses {{ $value | humanize }} requests a second",
        "More is asked than the engines draw. Clients get 503 with `Retry-After`.",
        (
            "Add instances: label maps a second grow with the cores.",
            "`spade_gateway_requests_total` and the log with `--json-log` tell who sends; keys have limits (`spade key --limit`).",
            "A batch size of 1 under load means clients that wait for each answer: [batches](serving.md#batches).",
        ),
    ),
    Alert(
        "SpadeQueueLong",
        "avg_over_time(spade_gateway_waiting_maps[10m]) / spade_gateway_waiting_limit_maps > 0.5",
        "10m",
        "ticket",
        "The queue of {{ $labels.instance }} has been half full for ten minutes",
        "Nothing is refused yet, but waiting is most of the latency.",
        ("Add instances before requests are refused.", "See SpadeOverloaded."),
    ),
    Alert(
        "SpadeDeadlinesMissed",
        'sum by (job) (rate(spade_gateway_deadlines_total{outcome=~"missed|refused"}[15m])) '
        "/ sum by (job) (rate(spade_gateway_deadlines_total[15m])) > 0.05",
        "15m",
        "ticket",
        "{{ $value | humanizePercentage }} of the requests with a deadline get no image in time",
        "Clients give less time than queue and engine take. `refused` costs nothing; `missed` wastes engine time.",
        (
            "Compare `spade_gateway_deadline_seconds` (what clients give) with `spade_gateway_request_seconds` (what it takes).",
            "Add instances where the queue is the reason, else let clients give more time.",
        ),
    ),
    Alert(
        "SpadeDescriptors",
        "spade_gateway_process_open_fds / spade_gateway_process_max_fds > 0.8",
        "5m",
        "ticket",
        "The gateway of {{ $labels.instance }} holds {{ $value | humanizePercentage }} of its descriptors",
        "Each connection is a descriptor. At the limit new connections wait.",
        (
            "Raise the limit of open files (`LimitNOFILE` of the systemd unit, `ulimits` of the container).",
            "Have the proxy before the instances keep fewer idle connections.",
        ),
    ),
    Alert(
        "SpadeMixedWeights",
        "count by (job) (count by (job, sha256) (spade_weights_info)) > 1",
        "1h",
        "ticket",
        "{{ $value }} different weights serve at once",
        "The same request gives different images by instance. Normal during a rollout, not for an hour.",
        ("Compare `spade_weights_info` of the instances.", "Finish the rollout, or roll back."),
    ),
    Alert(
        "SpadeMixedVersions",
        "count by (job) (count by (job, version) (spade_build_info)) > 1",
        "1h",
        "ticket",
        "{{ $value }} versions of SPADE Serve serve at once",
        "A rollout has stopped half way.",
        ("Compare `spade_build_info` of the instances.", "Finish the rollout, or roll back."),
    ),
)
