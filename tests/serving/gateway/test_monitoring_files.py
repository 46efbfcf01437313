"""deploy/prometheus and deploy/grafana: written by scripts/monitoring, and right by promtool and by Grafana's types."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_tools import DASHBOARDS, PROMETHEUS, ROOT, dashboard_expressions, rules, tool


def promtool(*arguments: str) -> None:
    done = subprocess.run([tool("promtool"), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_are_as_the_generator_writes_them() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/monitoring", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_promtool_reads_configuration_and_rules() -> None:
    promtool("check", "config", "prometheus.yml")  # with its rules


def test_the_alerts_fire_on_made_up_series() -> None:
    promtool("test", "rules", "spade.rules.test.yml")


def test_every_alert_fires_in_a_test() -> None:
    tests = yaml.safe_load((PROMETHEUS / "spade.rules.test.yml").read_text())["tests"]
    by_name = {one["alertname"] for test in tests for one in test.get("alert_rule_test", ()) if one["exp_alerts"]}
    evaluated = [one for test in tests for one in test.get("promql_expr_test", ())]
    labels = [sample["labels"] for one in evaluated for sample in one["exp_samples"]]
    alerts = [rule["alert"] for rule in rules() if "alert" in rule]
    untested = [name for name in alerts if name not in by_name and not any(f'"{name}"' in text for text in labels)]
    assert len(alerts) == 16
    assert untested == ["SpadeFailedBudgetSlow", "SpadeSlowBudgetFast"]  # of one making with their tested neighbours


def test_promtool_parses_every_expression_of_the_dashboards(tmp_path: Path) -> None:
    expressions = dashboard_expressions()
    assert len(expressions) > 40
    checked = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions)]
    file = tmp_path / "expressions.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboards", "rules": checked}]}))
    promtool("check", "rules", str(file))


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: str(path.stem))
def test_a_dashboard_has_the_types_of_grafana(path: Path) -> None:
    """What Grafana's types do not know would be lost on the way through them."""
    read = json.loads(path.read_text())
    assert json.loads(json.dumps(Dashboard.from_json(read), cls=JSONEncoder)) == read


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: str(path.stem))
def test_panels_have_ids_and_places_of_their_own(path: Path) -> None:
    panels: list[dict[str, Any]] = json.loads(path.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24
        taken |= cells
