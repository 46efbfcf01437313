"""Write deploy/prometheus, deploy/grafana and docs/alerts.md: `python scripts/monitoring`. With --check, fail where a
file differs."""

from __future__ import annotations

import sys
from pathlib import Path

from alerts import ALERTS
from dashboards import dashboards
from files import alerts_page, config_files, dashboard_file, rules_file
from objectives import burn_alerts

ROOT = Path(__file__).resolve().parents[2]


def files() -> dict[str, str]:
    """Every file that is written, by its path below the repository."""
    alerts = (*burn_alerts(), *ALERTS)
    written = {"deploy/prometheus/spade.rules.yml": rules_file(alerts), "docs/alerts.md": alerts_page(alerts)}
    for dashboard in dashboards():
        written[f"deploy/grafana/dashboards/{dashboard.uid}.json"] = dashboard_file(dashboard)
    return written | config_files()


def main() -> None:
    differ = []
    for name, text in files().items():
        path = ROOT / name
        if path.exists() and path.read_text() == text:
            continue
        differ.append(name)
        if "--check" not in sys.argv[1:]:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    if differ and "--check" in sys.argv[1:]:
        sys.exit(f"error: expected {', '.join(differ)} as written; run python scripts/monitoring")


if __name__ == "__main__":
    main()
