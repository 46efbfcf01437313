"""A real Prometheus scrapes a real server, and evaluates the rules of deploy/prometheus."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from prometheus_tools import PROMETHEUS, dashboard_expressions, metric_names, rules, tool
from served import blocks, png, wait_until

from serving.gateway.pair import Pair
from serving.triton.ports import free_ports

OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
_FILE = png(blocks(5, size=64, classes=8)[0])
_FILES = {"label_map": _FILE, "instance_map": _FILE}


class Prometheus:
    """The HTTP interface of a Prometheus that scrapes once a second."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=f"{url}/api/v1", timeout=10)

    def get(self, path: str, **parameters: Any) -> Any:
        answer = self._http.get(path, params=parameters)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def value(self, expression: str) -> float | None:
        found = self.get("/query", query=expression)["result"]
        return float(found[0]["value"][1]) if found else None

    def close(self) -> None:
        self._http.close()

    def ready(self) -> bool:
        try:
            return self._http.get("/status/runtimeinfo").status_code == 200
        except httpx.TransportError:
            return False


@pytest.fixture(scope="module")
def prometheus(tiny_gateway: Pair, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """The shipped configuration, but that it scrapes this server, and each second."""
    folder = tmp_path_factory.mktemp("prometheus")
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    (scrape,) = config["scrape_configs"]
    scrape |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    scrape["static_configs"] = [{"targets": [tiny_gateway.metrics_url.split("/")[2]]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    address = f"127.0.0.1:{free_ports('127.0.0.1', {'prometheus': 0})['prometheus']}"
    command = [
        tool("prometheus"), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address={address}", "--enable-feature=exemplar-storage", "--log.level=warn",
    ]  # fmt: skip
    with httpx.Client(base_url=tiny_gateway.http_url, timeout=60) as http:
        http.post("/v1/synthesize", files=_FILES, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"})
    process = subprocess.Popen(command)
    try:
        found = Prometheus(f"http://{address}")
        wait_until(found.ready, "Prometheus to start")
        wait_until(lambda: found.value("min_over_time(up[1m:1s])") == 1, "a scrape")
        yield found
        found.close()
    finally:
        process.terminate()
        process.wait(20)


def test_both_formats_have_the_same_samples(tiny_gateway: Pair) -> None:
    """The strict parser of OpenMetrics reads the scrape, Triton's part included."""
    lines, series = [], []
    for headers in ({}, OPENMETRICS):
        answer = httpx.get(tiny_gateway.metrics_url, headers=headers)
        lines.append({line.split(" # ")[0].rpartition(" ")[0] for line in answer.text.splitlines() if line[0] != "#"})
        read = read_openmetrics if headers else read_text
        series.append({sample.name for family in read(answer.text) for sample in family.samples})
    born = "spade_gateway_request"  # the supervisor's probe may be the first call of its kind meanwhile
    assert {line for line in lines[0] ^ lines[1] if not line.startswith(born)} == set()
    assert 'spade_request_seconds_bucket{engine="cpu"' in answer.text
    assert {"spade_batch_size_bucket", "spade_gateway_refused_total", "spade_build_info"} <= series[0] & series[1]
    assert not [name for name in series[0] if name.endswith("_created")]


def test_promtool_has_nothing_to_say_about_our_names(tiny_gateway: Pair) -> None:
    text = httpx.get(tiny_gateway.metrics_url).text
    done = subprocess.run(
        [tool("promtool"), "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    said = (done.stdout + done.stderr).splitlines()
    assert [line for line in said if not line.startswith("nv_")] == []


def test_prometheus_stores_what_is_scraped(prometheus: Prometheus) -> None:
    assert prometheus.value('up{job="spade"}') == 1
    assert prometheus.value("spade_up") == 1
    (build,) = prometheus.get("/query", query="spade_build_info")["result"]
    assert build["metric"]["version"]
    wait_until(lambda: prometheus.value("spade_images_total"), "an image to be counted")


def test_an_exemplar_names_the_trace_of_its_request(prometheus: Prometheus) -> None:
    for metric in ("spade_gateway_requests_total", "spade_gateway_request_seconds_bucket"):
        query = f'{metric}{{call="/v1/synthesize"}}'
        end = time.time()
        found = prometheus.get("/query_exemplars", query=query, start=end - 300, end=end)
        assert TRACE in [one["labels"]["trace_id"] for series in found for one in series["exemplars"]], metric


def test_every_rule_is_evaluated_and_a_healthy_server_raises_no_alert(prometheus: Prometheus) -> None:
    def healthy() -> bool:
        found = [rule for group in prometheus.get("/rules")["groups"] for rule in group["rules"]]
        assert len(found) == len(rules())
        return all(rule["health"] == "ok" and rule.get("state", "inactive") == "inactive" for rule in found)

    wait_until(healthy, "every rule to be evaluated without error")


def test_rules_and_dashboards_read_metrics_that_there_are(prometheus: Prometheus) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    there = set(prometheus.get("/label/__name__/values")) | recorded
    expressions = [rule["expr"] for rule in rules()] + dashboard_expressions()
    read = set().union(*map(metric_names, expressions))
    assert len(read) > 30
    assert sorted(read - there) == []


def test_restarts_are_counted_from_zero_on(prometheus: Prometheus) -> None:
    """`increase` would miss the first event of a series that is born with it."""
    assert prometheus.value('spade_restarts_total{part="gateway", reason="hung"}') == 0


def test_the_shipped_configuration_scrapes_the_metrics_port_of_a_server_called_spade() -> None:
    (scrape,) = yaml.safe_load((Path(PROMETHEUS) / "prometheus.yml").read_text())["scrape_configs"]
    assert (scrape["job_name"], scrape["static_configs"]) == ("spade", [{"targets": ["spade:8002"]}])
