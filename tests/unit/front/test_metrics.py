"""The page of metrics, read by Prometheus' own Python parser; what is written about it elsewhere is true."""

import asyncio
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from devd.daemon.health_feed import REFUSALS
from devd.daemon.metrics import catalog
from devd.daemon.metrics.catalog import CATALOG
from devd.daemon.metrics.collect import DEVICES_A_TURN
from devd.daemon.metrics.collect import page as whole_page
from devd.daemon.metrics.process import OwnProcess, ProcessUse
from devd.daemon.metrics.reference import page as reference_page
from devd.daemon.metrics.text import Distribution, Metric, Page, labels, number
from devd.daemon.rpc_times import BOUNDS_S, RpcTimes
from tests.unit.cli import sample

ROOT = Path(__file__).resolve().parents[3]
RULES = ROOT / "deploy" / "monitoring" / "prometheus-rules.yaml"
USE = ProcessUse(
    cpu_s=1.5, resident_bytes=4096, virtual_bytes=8192, open_fds=7, max_fds=1024, threads=3, started_s=sample.NOW_S
)
COUNTERS: dict[str, Any] = {
    "health_messages": 1000,
    "health_refused": {"flood": 3, "a new reason": 1},
    "commands_refused": {"garbage": 5},
    "memory_ended": 11,
    "memory_accepted": 12,
    "peers_refused": {"unknown process": 2},
    "control_answered": 7,
    "control_refused": 1,
    "control_cuts": 2,
    "stalls": 4,
    "loop_blocks": 8,
    "journal": {"directory": "/var/log/devd", "lost": 5, "waiting": 6, "error": "No space left on device"},
    "state": {"directory": "/var/lib/devd", "waiting": 9, "failed": 10, "error": "Read-only file system"},
    "log_lost": 7,
}
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def tree(devices: list[dict[str, Any]], resources: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a status with all counters."""
    status = sample.tree(devices, resources)
    status["daemon"]["counters"] = COUNTERS
    return status


def parsed(text: str) -> Samples:
    """Return all samples by name and labels; fails when one comes twice."""
    found: Samples = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            key = (one.name, tuple(sorted(one.labels.items())))
            assert key not in found
            found[key] = one.value
    return found


def page(status: dict[str, Any], calls: RpcTimes | None = None) -> str:
    """Return the page of a status."""
    return asyncio.run(whole_page(status, calls or RpcTimes(), USE))


def samples(status: dict[str, Any], calls: RpcTimes | None = None) -> Samples:
    """Return the samples of a status."""
    return parsed(page(status, calls))


def of(found: Samples, name: str, **values: str) -> float:
    """Return one sample."""
    return found[name, tuple(sorted(values.items()))]


def names(found: Samples) -> set[str]:
    """Return the names of all samples, a histogram's three as its own."""
    return {re.sub(r"^(devd_rpc_duration_seconds)_(bucket|sum|count)$", r"\1", name) for name, _ in found}


def test_every_metric_is_there_with_its_declared_type_and_labels() -> None:
    """A status with everything in it gives each metric of the catalogue, with the type and labels declared there."""
    text = page(sample_status())
    families = {one.name: one for one in text_string_to_metric_families(text)}
    for metric in CATALOG:
        # The parser takes a counter's _total off its family's name.
        family = families.pop(metric.name.removesuffix("_total") if metric.kind == "counter" else metric.name)
        assert family.type == metric.kind
        assert family.documentation == metric.help
        for one in family.samples:
            assert set(one.labels) - {"le"} == set(metric.labels)
    assert families == {}


def sample_status() -> dict[str, Any]:
    """Return the example of the command line's tests, with counters."""
    status = sample.example()
    status["daemon"]["counters"] = COUNTERS
    return status


def test_names_follow_prometheus_rules() -> None:
    """Counters end in _total and nothing else does; every name is a plain one, and no name comes twice."""
    assert all(metric.name.endswith("_total") == (metric.kind == "counter") for metric in CATALOG)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", metric.name) for metric in CATALOG)
    assert len({metric.name for metric in CATALOG}) == len(CATALOG) > 40


def test_well_and_ill_devices() -> None:
    """Each number of a device is the status's own; what an ill device has not shows as 0 or not at all."""
    found = samples(sample_status())
    well = {"resource": "devd.io/serial", "device": "ttyUSB2"}
    ill = {"resource": "devd.io/serial", "device": "ttyUSB10"}
    assert of(found, "devd_device_healthy", **well) == 1
    assert of(found, "devd_device_lease_seconds", **well) == 6.5
    assert of(found, "devd_probe_duration_seconds", **well) == 0.00012
    assert of(found, "devd_probe_passed", **well) == 1
    assert of(found, "devd_sandbox_layers", **well, state="active") == 2
    assert of(found, "devd_sandbox_layers", **well, state="missing") == 1
    assert of(found, "devd_device_health_changed_timestamp_seconds", **well) == sample.NOW_S - 192
    assert of(found, "devd_device_healthy", **ill) == 0
    assert of(found, "devd_device_phase", **ill, phase="backoff") == 1
    assert of(found, "devd_worker_restarts_total", **ill) == 12
    assert of(found, "devd_worker_up", **ill) == 0
    assert of(found, "devd_device_lease_seconds", **ill) == 0
    assert ("devd_probe_passed", tuple(sorted(ill.items()))) not in found


def test_sandboxes_are_counted_by_level_and_missing_layer() -> None:
    """Workers, scouts and the scribe are told apart; what a hostile one calls its layers is no label of its own."""
    odd = {"level": "perfect", "active": [], "missing": {"oom_score": "x", "my\nown": "y", "and another": "z"}}
    full = {"level": "full", "active": ["seccomp"], "missing": {}}
    scout = {"pid": 1, "health": "Healthy", "reason": "", "age_s": 1.0, "problems": [], "sandbox": full}
    devices = [
        sample.device("a"),
        sample.device("b"),
        sample.device("c", sandbox=odd),
        sample.device("d", sandbox=None),
    ]
    status = tree(devices, [sample.resource("devd.io/serial", discovery=scout)])
    status["daemon"]["cdi"] = {"sandbox": full}
    found = samples(status)
    worker = {"role": "worker", "resource": "devd.io/serial"}
    assert of(found, "devd_sandbox_level", **worker, level="basic") == 2
    assert of(found, "devd_sandbox_level", **worker, level="other") == 1
    assert of(found, "devd_sandbox_level", role="scout", resource="devd.io/serial", level="full") == 1
    assert of(found, "devd_sandbox_level", role="scribe", resource="", level="full") == 1
    assert of(found, "devd_sandbox_missing", **worker, layer="oom_score") == 3
    assert of(found, "devd_sandbox_missing", **worker, layer="other") == 1
    assert of(found, "devd_sandbox_missing", role="all", resource="", layer="any") == 3
    assert len([name for name, _labels in found if name == "devd_sandbox_missing"]) == 3


@pytest.mark.parametrize("lease_s", [None, -0.4, 0.0])
def test_lease_that_is_over_is_zero(lease_s: float | None) -> None:
    """A lease that ended a moment ago, before its timer ran, is never negative."""
    found = samples(tree([sample.device("a", lease_s=lease_s)], []))
    assert of(found, "devd_device_lease_seconds", resource="devd.io/serial", device="a") == 0


def test_devices_that_are_kept_back() -> None:
    """A cordon with or without a reason, a hold and the falls that led to it are told."""
    devices = [
        sample.device("a", cordon=""),
        sample.device("b", cordon="new cable"),
        sample.device("c", held=True, falls=3),
    ]
    found = samples(tree(devices, []))
    cordoned = [of(found, "devd_device_cordoned", resource="devd.io/serial", device=one) for one in "abc"]
    held = [of(found, "devd_device_held", resource="devd.io/serial", device=one) for one in "abc"]
    assert (cordoned, held) == ([1, 1, 0], [0, 0, 1])
    assert of(found, "devd_device_falls", resource="devd.io/serial", device="c") == 3


def test_wedged_device_and_failed_probe() -> None:
    """Wedged and a failed probe are told."""
    probe = {**sample.device("a")["last_probe"], "verdict": "fail"}
    found = samples(tree([sample.device("a", wedged=True, last_probe=probe)], []))
    assert of(found, "devd_device_wedged", resource="devd.io/serial", device="a") == 1
    assert of(found, "devd_probe_passed", resource="devd.io/serial", device="a") == 0


def test_registration_and_discovery() -> None:
    """A refused registration is not registered; a resource that is not served yet has none at all."""
    registration = {**sample.resource("a")["registration"], "state": "waiting for kubelet", "stream_open": False}
    discovery = {"pid": None, "health": "Unhealthy", "reason": "late", "age_s": None, "problems": ["one", "two"]}
    refused = sample.resource("a.io/refused", registration=registration, discovery=discovery)
    found = samples(tree([], [refused, sample.resource("a.io/new", registration=None)]))
    assert of(found, "devd_resource_registered", resource="a.io/refused") == 0
    assert of(found, "devd_registration_state", resource="a.io/refused", state="waiting for kubelet") == 1
    assert of(found, "devd_registrations_total", resource="a.io/refused") == 3
    assert of(found, "devd_stream_open", resource="a.io/refused") == 0
    assert of(found, "devd_discovery_healthy", resource="a.io/refused") == 0
    assert of(found, "devd_discovery_problems", resource="a.io/refused") == 2
    assert ("devd_discovery_age_seconds", (("resource", "a.io/refused"),)) not in found
    assert ("devd_resource_registered", (("resource", "a.io/new"),)) not in found


def test_counters_of_the_daemon() -> None:
    """Each running total is the status's own; reasons that did not occur yet are 0, unforeseen ones show."""
    found = samples(sample_status())
    assert of(found, "devd_stalls_total") == 4
    assert of(found, "devd_health_messages_total") == 1000
    assert of(found, "devd_health_refused_total", reason="flood") == 3
    assert of(found, "devd_health_refused_total", reason="a new reason") == 1
    assert all(("devd_health_refused_total", (("reason", one),)) in found for one in REFUSALS)
    assert of(found, "devd_health_refused_total", reason="spoof") == 0
    assert of(found, "devd_commands_refused_total", reason="garbage") == 5
    assert of(found, "devd_commands_refused_total", reason="spoof") == 0
    assert of(found, "devd_memory_ended_total") == 11
    assert of(found, "devd_memory_accepted_total") == 12
    assert of(found, "devd_peers_refused_total", reason="unknown process") == 2
    assert of(found, "devd_peers_refused_total", reason="another's channel") == 0
    assert of(found, "devd_control_requests_total", result="answered") == 7
    assert of(found, "devd_control_requests_total", result="refused") == 1
    assert of(found, "devd_journal_lost_total") == 5
    assert of(found, "devd_journal_error") == 1
    assert of(found, "devd_log_lost_total") == 7
    assert of(found, "devd_loop_blocks_total") == 8
    assert of(found, "devd_state_waiting_files") == 9
    assert of(found, "devd_state_failed_writes_total") == 10
    assert of(found, "devd_state_error") == 1
    assert of(found, "devd_build_info", version="1.2.3") == 1


def test_errors_of_configuration_and_fork_server() -> None:
    """A configuration that is not in force and a fork server that is gone are told."""
    status = sample_status()
    assert of(samples(status), "devd_config_error") == 0
    assert of(samples(status), "devd_forkserver_up") == 1
    status["daemon"] |= {"config_error": "line 3: ...", "reloads": 5, "forkserver": {"pid": None, "restarts": 2}}
    found = samples(status)
    assert of(found, "devd_config_error") == 1
    assert of(found, "devd_reloads_total") == 5
    assert of(found, "devd_config_taken_timestamp_seconds") == sample.NOW_S - 192
    assert of(found, "devd_forkserver_up") == 0
    assert of(found, "devd_forkserver_restarts_total") == 2


def test_histogram_is_cumulative() -> None:
    """Each bucket holds all calls up to its bound, the last one all, and sum and count agree with them."""
    calls = RpcTimes()
    durations_s = (0.0004, 0.0005, 0.002, 0.3, 40.0)
    for duration_s in durations_s:
        calls.methods["Allocate"].add("ok", duration_s)
    found = samples(sample_status(), calls)
    for bound in (*BOUNDS_S, math.inf):
        bucket = of(found, "devd_rpc_duration_seconds_bucket", method="Allocate", le=number(bound))
        assert bucket == sum(one <= bound for one in durations_s)
    assert of(found, "devd_rpc_duration_seconds_count", method="Allocate") == len(durations_s)
    assert of(found, "devd_rpc_duration_seconds_sum", method="Allocate") == pytest.approx(sum(durations_s))
    assert of(found, "devd_rpcs_total", method="Allocate", result="ok") == len(durations_s)
    assert of(found, "devd_rpcs_total", method="Allocate", result="failed") == 0


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\nb", "a\\nb", "}{,=", "Ä", "", '\\"', "#"])
def test_label_values_survive(text: str) -> None:
    """Whatever stands in a label comes out of the parser as it went in."""
    metric = Metric("odd", "gauge", "Odd\nhelp \\ here.", ("of",))
    out = Page([metric])
    out.add(metric, 1, labels({"of": text}))
    assert parsed(out.render()) == {("odd", (("of", text),)): 1.0}
    assert len(out.render().splitlines()) == 3


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "1"), (False, "0"), (3, "3"), (2.5, "2.5"), (1e-7, "1e-07"), (math.inf, "+Inf"), (-math.inf, "-Inf")],
)
def test_numbers(value: float, text: str) -> None:
    """Values are written as the format wants them, and read back the same."""
    assert number(value) == text
    assert float(text) == value


def test_not_a_number_is_written() -> None:
    """NaN has its own spelling."""
    assert number(math.nan) == "NaN"


def test_metric_without_samples_is_left_out() -> None:
    """Nothing is written of a metric that has no sample, nor for a value that is not there."""
    metric = Metric("empty", "gauge", "Nothing.")
    out = Page([metric])
    out.add(metric, None)
    assert out.render() == ""


def test_distribution_needs_a_count_for_each_bucket() -> None:
    """A histogram with a bucket too few is a bug that is told, not a wrong page."""
    metric = Metric("h", "histogram", "Wrong.")
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        Page([metric]).add_distribution(metric, Distribution((1.0,), (1,), 0.0), {})


def test_series_are_bounded() -> None:
    """A device has at most 15 series, a resource at most 10, the rest is fixed: as the documentation says."""

    def series(devices: int, resources: int) -> int:
        status = tree(
            [sample.device(f"d{one}") for one in range(devices)],
            [sample.resource(f"a.io/r{one}") for one in range(resources)],
        )
        return len(samples(status))

    fixed = series(0, 0)
    assert fixed <= 140
    assert series(10, 0) - fixed <= 15 * 10
    assert series(0, 10) - fixed <= 10 * 10


def test_loop_gets_its_turns() -> None:
    """While a page of many devices is printed, whoever else is on the loop goes on."""
    groups = 5

    async def scene() -> int:
        turns, over = 0, False

        async def other() -> None:
            nonlocal turns
            while not over:
                turns += 1
                await asyncio.sleep(0)

        task = asyncio.create_task(other())
        devices = [sample.device(f"d{one}") for one in range(groups * DEVICES_A_TURN)]
        text = await whole_page(tree(devices, []), RpcTimes(), USE)
        over = True
        await task
        assert text.count("devd_device_healthy{") == len(devices)
        return turns

    assert asyncio.run(scene()) >= groups


def test_own_process_is_read_truly() -> None:
    """Memory, descriptors, threads and start are those that psutil has for this process."""
    reader, known = OwnProcess(), psutil.Process()
    before = reader.read()
    assert before.started_s == pytest.approx(known.create_time(), abs=2.0)
    assert before.threads == pytest.approx(known.num_threads(), abs=2)
    assert before.resident_bytes == pytest.approx(known.memory_info().rss, rel=0.2)
    assert before.virtual_bytes > before.resident_bytes
    assert before.cpu_s > 0
    assert before.max_fds >= before.open_fds
    pipes = [os.pipe() for _ in range(50)]
    try:
        # Some room: libraries of other tests in this process may still close theirs.
        after = reader.read().open_fds
        assert after - before.open_fds == pytest.approx(100, abs=10)
        assert after == pytest.approx(known.num_fds(), abs=10)
    finally:
        for end in (end for pipe in pipes for end in pipe):
            os.close(end)


# ---- what is written about it ----


def test_reference_is_up_to_date() -> None:
    """The checked-in page is the one the catalogue draws now."""
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == reference_page(), "run 'make docs'"


def test_links_of_the_reference_lead_somewhere() -> None:
    """Every file that the page links to is there."""
    links = re.findall(r"\]\(([^)]+)\)", reference_page())
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def rules() -> list[dict[str, Any]]:
    """Return the alerts that are shipped."""
    document = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    assert document["kind"] == "PrometheusRule"
    return [rule for group in document["spec"]["groups"] for rule in group["rules"]]


def used(expression: str) -> set[str]:
    """Return the names of the metrics that an expression asks for."""
    found = re.findall(r"\b(?:devd|process)_[a-z_]+", expression)
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in found}


def test_alerts_ask_for_metrics_that_exist() -> None:
    """Each alert's expression and each query of the page uses declared metrics, with labels that these have."""
    known: Mapping[str, Metric] = {metric.name: metric for metric in CATALOG}
    queries = [rule["expr"] for rule in rules()] + re.findall(r"(?m)\| `([^`]*devd_[^`]*)` \|$", reference_page())
    assert len(queries) > 20
    for query in queries:
        assert used(query)
        assert used(query) <= set(known), query
        for name, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", query):
            metric = known[re.sub(r"_bucket$", "", name)]
            assert set(re.findall(r"(\w+)(?:=~?|!=)\"", matchers)) <= set(metric.labels), query


def test_alerts_are_whole() -> None:
    """Each alert has a severity and says what is wrong; its texts use only labels that its metric has."""
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    known = {metric.name: metric for metric in CATALOG}
    for rule in found:
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        texts = rule["annotations"]["summary"] + rule["annotations"]["description"]
        labelled = set().union(*(known[name].labels for name in used(rule["expr"])))
        # The node's name is the PodMonitor's; a scrape that was set up otherwise has the instance alone.
        assert "$labels.instance" not in texts.replace("{{ or $labels.node $labels.instance }}", ""), rule["alert"]
        assert set(re.findall(r"\$labels\.(\w+)", texts)) - {"instance", "node"} <= labelled, rule["alert"]


def test_alert_on_phases_names_one() -> None:
    """The phase that the alert on given-up devices asks for is one of the lifecycle's."""
    expression = next(rule["expr"] for rule in rules() if rule["alert"] == "DevdDeviceGivenUp")
    assert expression.startswith(catalog.DEVICE_PHASE.name)
    found = samples(tree([sample.device("a", phase="failed")], []))
    assert of(found, "devd_device_phase", resource="devd.io/serial", device="a", phase="failed") == 1
    assert 'phase="failed"' in expression
