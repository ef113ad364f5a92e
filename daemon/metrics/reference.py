"""Draws docs/metrics.md from the catalogue: ``python -m devd.daemon.metrics.reference``."""

import sys

from devd.daemon.device_state import PHASES
from devd.daemon.health_feed import REFUSALS as HEALTH_REFUSALS
from devd.daemon.metrics.catalog import CATALOG
from devd.daemon.metrics.http import MAX_HEAD_BYTES
from devd.daemon.metrics.server import MAX_CONNECTIONS, PAGE_KEPT_S, REQUEST_WITHIN_S
from devd.daemon.rpc_times import BOUNDS_S, METHODS, RESULTS
from devd.daemon.sandbox_words import LAYERS, LEVELS
from devd.daemon.workforce import REFUSALS as COMMAND_REFUSALS
from devd.ipc.identity import REFUSALS as PEER_REFUSALS

INTRO = """# Metrics

This page is drawn from the code (`make docs`); a test fails when it differs.

devd answers Prometheus where the configuration says so; without this section it opens no port:

```yaml
metrics:
  listen: 127.0.0.1:9400   # an IP address and a port; [::]:9400 takes IPv6 and IPv4
```

```sh
curl -s http://127.0.0.1:9400/metrics | grep devd_device_healthy
```

| path | answer |
|---|---|
| `/metrics` | every metric below, in Prometheus' text format 0.0.4; built from memory, at most once in {kept:g} s |
| `/healthz` | 200 while the daemon's event loop runs: what `devd health` tells |

The endpoint is plain HTTP without a password. It tells names and health of devices and takes no orders. Beyond
127.0.0.1, keep it to those who scrape by a network policy, or put a proxy that asks for credentials (kube-rbac-proxy)
in front of 127.0.0.1. Each connection serves one request (`GET` or `HEAD`) of at most {head} KiB and is cut
after {within:g} s; beyond {connections} at once the answer is 503. An address that is taken is an error at the start.

Alerts for the Prometheus Operator are in
[deploy/monitoring/prometheus-rules.yaml](../deploy/monitoring/prometheus-rules.yaml); the component `alerts` or the
chart's `monitoring.alerts` deploys them ([deploy.md](deploy.md)).

## All metrics

Names end in their unit; a metric that is a yes or no is 1 or 0. Counters begin at 0 when devd starts. A device that is
not known any more has no samples.

| metric | type | labels | meaning |
|---|---|---|---|
"""

LABELS = """
## Labels

How many series there are is bounded by the configuration: 15 for each device, ten for each resource (and one for
each level and each missing layer among its sandboxes), and some 130 beside them.
Texts that may be anything, like reasons and paths, are in `devd status` and the logs, never in a label.

| label | values |
|---|---|
| `resource` | the resource's name, as pods ask for it |
| `device` | the device's id, as `devd status` shows it |
| `phase` | {phases}: see [lifecycle.md](lifecycle.md) |
| `state` of a registration | serving, registering, registered, waiting for kubelet, refused |
| `state` of sandbox layers | active, missing |
| `role` | worker, scout, scribe (the writer of CDI specifications; its `resource` is empty), all |
| `level` of a sandbox | {levels}; other |
| `layer` of a sandbox | {layers}; other; any |
| `method` | {methods} |
| `reason` of refused messages | {messages} |
| `reason` of refused commands | {commands} |
| `reason` of refused connections | {peers} |
| `version` | devd's version |

| `result` | the call was |
|---|---|
{results}

The histogram's buckets end at {bounds} s.

## Questions and their queries

| question | query |
|---|---|
| which devices are ill now | `devd_device_healthy == 0` |
| which are kept back, by an operator or for their flaps | `devd_device_cordoned == 1 or devd_device_held == 1` |
| what share of the cluster's devices is well | `sum by (resource) (devd_resource_healthy) / sum by (resource) (devd_resource_devices)` |
| for how long has a device been ill | `(time() - devd_device_health_changed_timestamp_seconds) and devd_device_healthy == 0` |
| whose workers crash most | `topk(10, increase(devd_worker_restarts_total[1d]))` |
| which devices answer slowly | `topk(10, devd_probe_duration_seconds)` |
| how fast is Allocate | `histogram_quantile(0.99, sum by (le) (rate(devd_rpc_duration_seconds_bucket{{method="Allocate"}}[1h])))` |
| where do workers lack a sandbox layer | `devd_sandbox_layers{{state="missing"}} > 0` |
"""  # noqa: E501 - rows of a table cannot be broken


def page() -> str:
    """Return the page's Markdown."""
    rows = [f"| `{one.name}` | {one.kind} | {', '.join(one.labels) or '-'} | {one.help} |\n" for one in CATALOG]
    intro = INTRO.format(
        kept=PAGE_KEPT_S, head=MAX_HEAD_BYTES // 1024, within=REQUEST_WITHIN_S, connections=MAX_CONNECTIONS
    )
    text = LABELS.format(
        phases=", ".join(PHASES),
        methods=", ".join(METHODS),
        messages=", ".join(HEALTH_REFUSALS),
        commands=", ".join(COMMAND_REFUSALS),
        peers=", ".join(PEER_REFUSALS),
        levels=", ".join(LEVELS),
        layers=", ".join(LAYERS),
        results="\n".join(f"| `{result}` | {meaning} |" for result, meaning in RESULTS.items()),
        bounds=", ".join(f"{bound:g}" for bound in BOUNDS_S),
    )
    return intro + "".join(rows) + text


if __name__ == "__main__":
    sys.stdout.write(page())
