"""Whether devd is ready, as a rollout asks: the kubelet has every resource, or it is told which it has not and why."""

import asyncio
import subprocess
import sys
from pathlib import Path

from devd.daemon.demo.rig import Rig
from devd.daemon.first_verdicts import WITHIN_S
from devd.daemon.readiness import MOST_NAMED, WHY_CHARS
from tests.faults.worlds import GRACE_S, SIM, answers, scenario, sim, until

LAMP = Path(__file__).parents[1] / "support" / "lamp"
"""Its entry point ``broken`` leads to what is no driver."""
ONE = "[{name: card}]"
MANY = 6
MANY_RESOURCES = "resources:\n" + "".join(
    f"  - name: test.devd.io/many{number}\n    driver: sim\n    match: {{devices: [{{name: card{number}}}]}}\n"
    for number in range(MANY)
)


def health(rig: Rig, *more: str) -> subprocess.CompletedProcess[str]:
    """Run 'devd health' as a probe does."""
    command = [sys.executable, "-m", "devd", "health", "--runtime-dir", str(rig.layout.root), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=GRACE_S, check=False)


def ready(rig: Rig) -> bool:
    """Return whether devd says that it is."""
    return health(rig, "--ready").returncode == 0


def test_ready_is_who_is_registered() -> None:
    """With its kubelet devd is ready; when that goes it is well and not ready, and says so; then it is ready again."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM)
        await until(lambda: ready(rig), "devd is ready")
        await rig.kubelet.stop()
        await until(lambda: not ready(rig), "devd is not ready")
        told = health(rig, "--ready")
        assert told.returncode == 1
        assert f"devd: 1 of 1 resources not registered with the kubelet: {SIM} (" in told.stderr
        assert told.stdout == ""
        assert (health(rig).returncode, health(rig).stdout) == (0, "ok\n")
        await rig.kubelet.start()
        await until(lambda: ready(rig), "devd is ready again")

    scenario(sim(ONE), play)


def test_what_never_was_registered_is_not_ready() -> None:
    """A devd that the kubelet has had nothing of is well, and not ready; the text names some and counts the others."""

    async def play() -> None:
        rig = Rig(MANY_RESOURCES)
        rig.start_daemon()
        try:
            await until(lambda: answers(rig), "devd answers")
            assert health(rig).returncode == 0
            told = health(rig, "--ready")
        finally:
            await rig.__aexit__(None, None, None)
        assert told.returncode == 1
        assert f"{MANY} of {MANY} resources not registered" in told.stderr
        assert told.stderr.count("test.devd.io/many") == MOST_NAMED
        assert f"{MANY - MOST_NAMED} more" in told.stderr
        assert len(told.stderr) < MOST_NAMED * (WHY_CHARS + 80) + 100

    asyncio.run(play())


def test_resource_that_nobody_could_look_for_is_not_ready() -> None:
    """The kubelet has an empty list in the end, which says nothing of the node: the text tells what keeps the scout."""
    rig = Rig("resources: [{name: test.devd.io/gone, driver: broken, match: {room: /tmp}}]")
    rig.environment |= {"PYTHONPATH": str(LAMP)}

    async def play() -> None:
        async with rig:
            await rig.kubelet.wait_for(lambda: "test.devd.io/gone" in rig.kubelet.resources, WITHIN_S + GRACE_S)
            await until(lambda: "not discovered" in health(rig, "--ready").stderr, "the empty list is no readiness")
            told = health(rig, "--ready")
        assert told.returncode == 1
        assert "1 of 1 resources not discovered: test.devd.io/gone (" in told.stderr

    asyncio.run(play())
