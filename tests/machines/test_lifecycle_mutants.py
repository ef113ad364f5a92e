"""Hand-made mutants of the lifecycle: the property test must kill every one, or it proves nothing.

A mutant is pairs of (text, replacement); two where the core guards the same thing twice.
"""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RUN_WITHIN_S = 600
"""Twenty seconds of computing, on a machine that has others to do."""
pytestmark = pytest.mark.timeout(RUN_WITHIN_S + 30)
CORE = {name: ROOT / "daemon" / f"{name}.py" for name in ("lease", "moves", "resetting", "lifecycle")}

MUTANTS: dict[str, tuple[str, ...]] = {
    "a dead worker's report counts": ("if incarnation != state.incarnation:", "if False:"),
    "a doubled report counts": (
        "    if event.health.seq <= state.seq:\n        return state, ()\n    first",
        "    if False:\n        return state, ()\n    first",
    ),
    "the lease never ends": ("event.at_s >= state.lease_until_s:", "False:", "at_s < state.lease_until_s", "True"),
    "a failing probe grants": ('if health.verdict == "pass":', "if True:"),
    "a tolerated failure is never the last": ("state.fails < policy.failures", "state.fails < 99"),
    "a first probe is not enough": ("or not state.decided or", "or"),
    "one good probe is enough": ("state.passes >= policy.successes", "state.passes >= 1"),
    "no wait for the exit": (
        "    state = enter(state, Phase.STOPPING, at_s, at_s + WEDGED_AFTER_S)\n",
        "    state = enter(state, Phase.BACKOFF, at_s, at_s + 0.1)\n",
    ),
    "a wedged worker is replaced": (
        "    state = replace(lease.end(state, reason), wedged=True, deadline_s=None)\n",
        "    state = replace(moves.enter(state, Phase.BACKOFF, 0.0, 0.0), wedged=True)\n",
    ),
    "waiters are forgotten on a kill": (
        "    state, answers = answer(replace(state, killed_for=reason), ok=False, text=reason)\n",
        "    state, answers = replace(state, killed_for=reason, waiters=()), ()\n",
    ),
    "waiters are answered twice": ("    return replace(state, waiters=()), answers", "    return state, answers"),
    "a misbehaving worker keeps its lease": (
        "moves.kill(lease.end(state, reason), event.at_s, reason, inspect=False)",
        "moves.kill(state, event.at_s, reason, inspect=False)",
    ),
    "a vanished device stays healthy": (
        "    state = lease.end(state, event.detail)\n    state = replace(state, present=False,",
        "    state = replace(state, present=False,",
        "well = live and state.present and state.wanted",
        "well = live",
    ),
    "restarts are not counted": ("len(exits) > policy.intensity", "False"),
    "the pause shrinks": ("else state.streak + 1\n", "else 1\n"),
    "slow retry forgives at once": ("replace(state, probation=True)", "state"),
    "an absent device keeps its worker": (
        '    after, more = moves.leave(state, event.at_s, "no longer needed")\n    return after, (*effects, *more)',
        "    return state, effects",
    ),
    "a reset is sent twice": (
        "if state.phase is Phase.SERVING and state.probe_count > 0:",
        "if state.phase in (Phase.SERVING, Phase.RESETTING):",
    ),
    "no deadline while starting": ("at_s + START_TIMEOUT_S)", "None)"),
    "a cordoned device is offered": ("well and state.cordon is None and", "well and"),
    "a cordon is forgotten": ("cordon=memory.cordon, ", ""),
    "a device held back is offered": ("state.cordon is None and not state.held", "state.cordon is None"),
    "falls are not counted": ("len(falls) >= policy.flap_count", "False"),
    "old falls count for ever": ("if one > at_s - policy.flap_within_s)", "if True)"),
    "a fall does not break the quiet time": (
        "hold_until_s=None)\n        state = replace(state, held",
        "hold_until_s=state.hold_until_s)\n        state = replace(state, held",
    ),
    "the quiet time never ends": ("elif at_s >= state.hold_until_s:", "elif False:"),
    "the fence of an earlier daemon is ignored": ("if memory.worker is not None:", "if False:"),
    "a device given up is tried at once by the next daemon": ("    if memory.failed:\n", "    if False:\n"),
    "a reset is cut short by a new configuration": (
        "    if state.phase is Phase.RESETTING:\n        return replace(state, stale=True), ()\n",
        "",
    ),
    "the front's own absence is the device's fault": (
        "lease_until_s=later(state.lease_until_s, lease_more_s)",
        "lease_until_s=state.lease_until_s",
    ),
    "each absence puts a lease off by more than it lasts": ("0.0 if state.lease_excused else", "0.0 if False else"),
    "each absence puts a deadline off by more than it lasts": ("0.0 if state.excused else", "0.0 if False else"),
    "a worker that dies in its reset leaves the lease held open": (
        "moves.answer(lease.let_go(state, event.at_s, text), ok=False, text=text)",
        "moves.answer(state, ok=False, text=text)",
    ),
    "a restart during a reset leaves the lease held open": (
        'state = lease.let_go(state, event.at_s, f"{why} during its reset")',
        "pass",
    ),
    "a death before the first verdict is not told": (
        "    if not state.decided:\n        died",
        "    if False:\n        died",
    ),
    "what devd ended a worker for is forgotten": ("    if state.killed_for:\n", "    if False:\n"),
    "each pause has a jitter of its own": ("{state.loop_from}", "{state.incarnation}"),
    "a stale worker stays": ("    if not state.stale:\n", "    if True:\n"),
}


def run_with(sources: Mapping[str, str], directory: Path) -> subprocess.CompletedProcess[str]:
    """Run the property test with these modules in the core's place."""
    for module, source in sources.items():
        (directory / f"{module}.py").write_text(source, encoding="utf-8")
    command = [sys.executable, str(Path(__file__).with_name("mutant_runner.py")), str(directory)]
    return subprocess.run(command, capture_output=True, text=True, timeout=RUN_WITHIN_S, check=False, cwd=directory)


@pytest.mark.parametrize("name", MUTANTS)
def test_property_test_kills_mutant(name: str, tmp_path: Path) -> None:
    """Each mutant of the core makes the property test fail."""
    sources = {module: path.read_text(encoding="utf-8") for module, path in CORE.items()}
    for old, new in zip(MUTANTS[name][::2], MUTANTS[name][1::2], strict=True):
        fits = [module for module, source in sources.items() if old in source]
        assert fits, f"the mutant {name!r} no longer fits the code: {old!r}"
        for module in fits:
            sources[module] = sources[module].replace(old, new)
    done = run_with(sources, tmp_path)
    assert done.returncode == 1, f"the mutant survived: {name}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    assert "MUTANT KILLED" in done.stdout, done.stderr[-2000:]


def test_the_runner_passes_the_real_core(tmp_path: Path) -> None:
    """The runner fails for mutants only: the unchanged core passes it."""
    done = run_with({module: path.read_text(encoding="utf-8") for module, path in CORE.items()}, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
