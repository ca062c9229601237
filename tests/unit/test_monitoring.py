"""What is shipped for Prometheus and Grafana, against Prometheus' checker and against what services tell.

Whether the containers start can be seen only where a container engine runs.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import yaml

from chassis.meters import METERS
from deploy import dashboards
from deploy.dashboards import DASHBOARDS
from services.metrics.exposition import LABELS

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
RULES: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((PROMETHEUS / "rules.yml").read_text())["groups"]
    for rule in group["rules"]
]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
QUERIES = [query.expr for each in DASHBOARDS for panel in each.panels for query in panel.queries]
HISTOGRAM_PARTS = ("_bucket", "_count", "_sum")
TOLD = {*LABELS, *METERS, "up"} | {
    f"{name}{part}"
    for name, meter in METERS.items()
    if meter.kind == "histogram"
    for part in HISTOGRAM_PARTS
}


def run(promtool: str, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [promtool, *arguments], cwd=cwd, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def names_in(expr: str) -> set[str]:
    """The metrics that an expression asks for."""
    return set(re.findall(r"\b(?:vireo_\w+|up)\b", re.sub(r'"[^"]*"', '""', expr)))


def test_prometheus_accepts_its_configuration(promtool: str) -> None:
    run(promtool, "check", "config", "--syntax-only", "prometheus.yml", cwd=PROMETHEUS)
    run(promtool, "check", "rules", "--lint-fatal", "rules.yml", cwd=PROMETHEUS)


def test_each_rule_fires_when_it_should_and_not_before(promtool: str) -> None:
    run(promtool, "test", "rules", "rules_test.yml", cwd=PROMETHEUS)


def test_no_rule_is_without_a_story() -> None:
    stories = yaml.safe_load((PROMETHEUS / "rules_test.yml").read_text())["tests"]
    told = {alert["alertname"] for story in stories for alert in story["alert_rule_test"]}
    assert told == {rule["alert"] for rule in RULES}


def test_rules_and_dashboards_ask_only_for_what_is_told() -> None:
    asked = {
        name for expr in [*QUERIES, *(rule["expr"] for rule in RULES)] for name in names_in(expr)
    }
    asked |= {variable.metric for each in DASHBOARDS for variable in each.variables}
    assert asked - TOLD == set()
    assert all(names_in(expr) for expr in QUERIES)


def test_every_query_of_every_panel_can_be_read(promtool: str, tmp_path: Path) -> None:
    plain = [expr.replace("$__rate_interval", "1m") for expr in QUERIES]
    rules = [{"record": f"panel:{n}", "expr": expr} for n, expr in enumerate(plain)]
    content = {"groups": [{"name": "panels", "rules": rules}]}
    (tmp_path / "panels.yml").write_text(yaml.safe_dump(content))
    assert f"{len(QUERIES)} rules found" in run(
        promtool, "check", "rules", "--lint=none", "panels.yml", cwd=tmp_path
    )


def test_the_provisioned_dashboards_are_those_of_the_code() -> None:
    written = {path: path.read_text() for path in sorted(dashboards.FOLDER.iterdir())}
    assert written == dashboards.files()


def test_a_dashboard_draws_from_the_provisioned_source() -> None:
    folder = ROOT / "deploy/grafana/provisioning/datasources"
    source = yaml.safe_load((folder / "vireo.yml").read_text())["datasources"][0]
    for path, content in dashboards.files().items():
        panels = json.loads(content)["panels"]
        assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}, path.name
        assert source["url"] == "http://prometheus:9090"


def test_prometheus_scrapes_services_at_the_ports_they_have() -> None:
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    targets = {
        job["job_name"]: {
            tuple(target.split(":")) for target in job["static_configs"][0]["targets"]
        }
        for job in config["scrape_configs"]
    }
    health = {
        (name, service["environment"]["VIREO_HEALTH_PORT"])
        for name, service in COMPOSE.items()
        if service.get("environment", {}).get("VIREO_HEALTH_HOST") == "0.0.0.0"
    }
    assert targets == {"vireo-fleet": {("metrics", "9470")}, "vireo-services": health}


def test_nothing_of_monitoring_is_seen_from_outside_of_the_machine() -> None:
    for name in ("prometheus", "grafana"):
        assert COMPOSE[name]["profiles"] == ["monitoring"]
        assert all(port.startswith("127.0.0.1:") for port in COMPOSE[name]["ports"])
        assert COMPOSE[name]["read_only"]
        assert COMPOSE[name]["cap_drop"] == ["ALL"]
        for volume in COMPOSE[name]["volumes"]:
            source = volume.split(":")[0]
            assert not source.startswith("./") or (ROOT / source).is_dir(), volume
