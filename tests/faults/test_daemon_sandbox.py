"""The workers' sandbox as the daemon runs it: reported, required, widened, and checked from outside."""

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from devd.daemon.demo.rig import Rig
from devd.daemon.sandbox_words import LAYERS, LEVELS
from devd.daemon.scout_feed import FIRST_LISTINGS_WITHIN_S
from devd.workers.drivers import DRIVERS, KINDS, make_driver
from tests.faults.worlds import FILES, SIM, files, scenario, sim, until

TWO = "[{name: one}, {name: two}]"
WITHOUT_SYS_ADMIN = """import os, sys
os.execvp("setpriv", ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-m", "devd",
                      *sys.argv[1:]])"""


def uids(pid: int) -> set[str]:
    """Return a process's real and effective uid."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return set(next(line for line in status.splitlines() if line.startswith("Uid:")).split()[1:3])


def cgroup_of(pid: int) -> str:
    """Return a process's cgroup of version 2."""
    lines = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8").splitlines()
    return next(line[3:] for line in lines if line.startswith("0::"))


async def confined(rig: Rig) -> None:
    """Wait until each worker has said how it stands: its verdicts come by another way, and may be there before."""
    await until(lambda: all(one["sandbox"] is not None for one in rig.status()["devices"]), "the workers' own words")


def test_sandbox_of_each_worker_is_shown() -> None:
    """The status names the layers each worker stands behind, and of those it lacks the reason."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await confined(rig)
        for name in ("one", "two"):
            sandbox = rig.device(name)["sandbox"]
            assert {"no_new_privs", "undumpable", "limits"} <= set(sandbox["active"])
            assert all(sandbox["missing"].values())
            assert sandbox["level"] in {"full", "partial", "basic"}
        assert rig.status()["resources"][0]["sandbox"] == {"mode": "best-effort", "allow": {}}

    scenario(sim(TWO), play)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a worker a uid of its own")
def test_each_worker_has_a_uid_of_its_own() -> None:
    """No worker runs as root, and no two under one uid."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await confined(rig)
        if "identity" not in rig.device("one")["sandbox"]["active"]:
            pytest.skip(f"no uids to be had here: {rig.device('one')['sandbox']['missing']}")
        seen = [uids(rig.device(name)["pid"]) for name in ("one", "two")]
        seen.append(uids(rig.status()["resources"][0]["discovery"]["pid"]))
        assert all(len(one) == 1 for one in seen)
        assert len(set.union(*seen)) == 3
        assert "0" not in set.union(*seen)

    scenario(sim(TWO), play)


def test_cgroup_is_a_layer_where_it_was_asked_for() -> None:
    """With `--cgroup` each worker has one of its own, or says why not."""

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.start_daemon("--cgroup")
        await rig.healthy(SIM, 2)
        await confined(rig)
        sandbox = rig.device("one")["sandbox"]
        if "cgroup" in sandbox["active"]:
            assert "/worker-" in cgroup_of(rig.device("one")["pid"])
        else:
            assert sandbox["missing"]["cgroup"]
            assert "workers have no cgroups of their own: " in rig.log_text()

    scenario(sim(TWO), play)


def test_required_sandbox_that_lacks_a_layer_makes_the_device_unhealthy() -> None:
    """With `sandbox: required` a missing layer is the device's reason, and its hardware is not touched.

    Discovery that only looks does so in any case, and tells what it lacks itself: the device is there to be told of.
    """
    lacks = "the sandbox is required and lacks"

    async def play(rig: Rig) -> None:
        await until(lambda: rig.device("one")["sandbox"] is not None, "its word")
        assert rig.status()["resources"][0]["sandbox"]["mode"] == "required"
        missing = rig.device("one")["sandbox"]["missing"]
        if missing:
            await until(lambda: lacks in rig.device("one")["reason"], "the reason")
            assert rig.device("one")["health"] == "Unhealthy"
            assert next(iter(missing)) in rig.device("one")["reason"]
        else:
            await rig.healthy(SIM, 1)

    scenario(sim("[{name: one}]", more="    sandbox: required\n"), play)


def test_required_sandbox_without_the_right_to_it_shows_each_device() -> None:
    """Where devd may not make network namespaces, each device is listed, Unhealthy, with the layer it lacks.

    Scout and metrics name the layer as well.
    """
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("takes root and setpriv to give one capability up")

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        rig.program = ("-c", WITHOUT_SYS_ADMIN)
        rig.start_daemon()
        for name in ("one", "two"):
            await until(lambda: "lacks" in rig.device(name)["reason"], "the reason")  # noqa: B023 - waited for here
            assert "the sandbox is required and lacks network_namespace (EPERM" in rig.device(name)["reason"]
            assert rig.device(name)["health"] == "Unhealthy"
        discovery = rig.status()["resources"][0]["discovery"]
        assert discovery["health"] == "Healthy"
        assert "network_namespace" in discovery["sandbox"]["missing"]
        assert "seccomp" in discovery["sandbox"]["active"]

    scenario(sim(TWO, more="    sandbox: required\n"), play)


def test_words_of_the_sandbox_are_those_that_workers_say() -> None:
    """Levels and layers that the front knows are those of real workers and scouts: none of them is another word."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 2)
        await confined(rig)
        resource = rig.status()["resources"][0]
        for said in (rig.device("one")["sandbox"], rig.device("two")["sandbox"], resource["discovery"]["sandbox"]):
            assert said["level"] in LEVELS
            assert {*said["active"], *said["missing"]} <= set(LAYERS)
            assert {"seccomp", "capabilities", "limits"} <= {*said["active"], *said["missing"]}

    scenario(sim(TWO), play)


@pytest.mark.parametrize("driver", [*DRIVERS, *KINDS])
def test_discovery_that_runs_a_vendors_code_is_no_mere_look(driver: str) -> None:
    """Only the driver that loads a library and opens a node looks no more than a worker does without its sandbox."""
    match: dict[str, dict[str, object]] = {
        "node": {"path": "/dev/null"},
        "sim": {"count": 1},
        "usb": {"vendor": "0403"},
        "pci": {"vendor": "0x8086"},
    }
    assert make_driver(driver, match.get(driver, {})).needs.only_looks == (driver != "nvidia")


@pytest.mark.parametrize("driver", ["lamp", "broken"])
def test_resource_whose_scout_fails_keeps_no_other_waiting(driver: str) -> None:
    """First lists are waited for together; a scout that cannot look, or dies, has said what it has to say."""
    other = f"""  - name: test.devd.io/other
    driver: {driver}
    match: {{room: /nowhere}}
    probe: {{kind: driver, period: 1s, timeout: 1s}}
"""

    async def run() -> None:
        rig = Rig(sim(TWO) + other)
        rig.environment["PYTHONPATH"] = str(Path(__file__).parents[1] / "support/lamp")
        async with rig:
            assert await rig.healthy(SIM, 2) < FIRST_LISTINGS_WITHIN_S
            assert rig.status()["resources"][1]["discovery"]["health"] == "Unhealthy"

    asyncio.run(run())


def test_widened_sandbox_is_shown_and_reaches_the_worker(tmp_path: Path) -> None:
    """What the configuration leaves to a worker beyond its needs is in the status, and works."""
    marker = tmp_path / "marks"
    marker.mkdir(mode=0o777)
    marker.chmod(0o777)
    device = tmp_path / "dev-a"
    device.touch()
    probe = f"{{kind: exec, command: [/bin/touch, {marker}/seen], period: 200ms, timeout: 5s}}"
    more = f"    sandbox_allow: {{write: {marker}, syscalls: files}}\n"

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        assert (marker / "seen").exists()
        assert rig.status()["resources"][0]["sandbox"]["allow"]["write"] == [str(marker)]

    scenario(files(device, probe=probe, more=more), play)
