"""The demo's configuration: this machine's own devices, and four simulated ones that tell the story."""

import glob
import os
from dataclasses import dataclass

SIMULATED = "demo.devd.io/simulated"

SIMULATED_YAML = f"""
  - name: {SIMULATED}
    driver: sim
    match:
      devices:
        - {{name: sim-well}}
        - name: sim-flapping
          script:
            - {{for: 9s, do: pass}}
            - {{for: 5s, do: fail, reason: "link down (scripted)"}}
        - name: sim-hanging
          script:
            - {{for: 14s, do: pass}}
            - {{do: hang}}
        - name: sim-crashing
          script:
            - {{for: 11s, do: pass}}
            - {{do: crash}}
    probe: {{kind: sim, period: 1s, timeout: 1s, successes: 3}}
    reset: {{kind: sim, takes: 400ms}}
    env: {{DEMO_DEVICES: "{{ids}}"}}
"""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A kind of device most machines have."""

    resource: str
    pattern: str


CANDIDATES = (
    Candidate("demo.devd.io/null", "/dev/null"),
    Candidate("demo.devd.io/fuse", "/dev/fuse"),
    Candidate("demo.devd.io/kvm", "/dev/kvm"),
    Candidate("demo.devd.io/tun", "/dev/net/tun"),
    Candidate("demo.devd.io/loop", "/dev/loop[0-9]*"),
)


def configuration(registration: str = "socket") -> str:
    """Return the YAML for the devices this machine has. Opens nothing; what this user may open is probed by opening."""
    resources = [_resource(one) for one in CANDIDATES if glob.glob(one.pattern)]  # noqa: PTH207 - patterns are absolute
    return f"kubelet: {{registration: {registration}}}\nresources:{''.join(resources)}{SIMULATED_YAML}"


def _resource(candidate: Candidate) -> str:
    nodes = glob.glob(candidate.pattern)  # noqa: PTH207 - patterns are absolute
    kind = "open" if all(os.access(node, os.R_OK | os.W_OK) for node in nodes) else "exists"
    return f"""
  - name: {candidate.resource}
    driver: node
    match: {{path: "{candidate.pattern}"}}
    probe: {{kind: {kind}, period: 2s, timeout: 1s}}
"""
