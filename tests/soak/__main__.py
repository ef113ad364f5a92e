"""``python -m tests.soak``: random faults for SOAK_MINUTES (3), then all has to be as it was. Exit 1 when it is not.

SOAK_SEED repeats a soak's choices (its moments stay the machine's); SOAK_LOG names a directory that keeps logs,
journals and state of one that failed.
"""

import asyncio
import contextlib
import os
import random
import shutil
import sys
import time

from devd.daemon.demo.rig import Rig
from tests.faults.worlds import until
from tests.soak import world
from tests.soak.faults import REFUSALS, Chaos

WARM_S = 8.0
"""Until each kind of sickness has shown once: what a first time leaves (imports, pools) is no leak."""
CALM_WITHIN_S = 90.0
DEVICES = world.WELL_COUNT + len(world.SICKNESSES) + world.FILE_COUNT
GROWTH_MIB = 24.0
"""What the front may be larger by at the end: allocators keep pages; a leak over thousands of faults is more."""


async def soak(minutes: float, seed: int) -> list[str]:
    """Run it; return what is wrong at the end."""
    async with Rig("resources: []") as rig:
        await rig.end_daemon()
        files = rig.root / "files"
        files.mkdir()
        for number in range(world.FILE_COUNT):
            (files / f"dev-{number}").touch()
        rig.config.write_text(world.config(files, calm=True), encoding="utf-8")
        rig.start_daemon()
        await calm(rig)
        rig.config.write_text(world.config(files), encoding="utf-8")
        await asyncio.sleep(WARM_S)
        rig.config.write_text(world.config(files, calm=True), encoding="utf-8")
        await calm(rig)
        before = await quiet_stand(rig)
        rig.config.write_text(world.config(files), encoding="utf-8")
        chaos = Chaos(rig, files, random.Random(seed))  # noqa: S311 - faults, no secrets
        wrong = await storm(chaos, minutes * 60)
        print(f"{sum(chaos.counts.values())} faults: {chaos.counts}", flush=True)
        return wrong + await settled(rig, chaos, before)


async def quiet_stand(rig: Rig) -> world.Stand:
    """Return the least of several looks: a file that is being written, or who asked a moment ago, is open for now."""
    looks = []
    for _ in range(20):
        looks.append(world.stand(rig))
        await asyncio.sleep(0.05)
    return min(looks, key=parts)


async def storm(chaos: Chaos, seconds: float) -> list[str]:
    """Make faults for a while; return what was wrong meanwhile."""
    wrong: list[str] = []
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        with contextlib.suppress(*REFUSALS):
            await chaos.one()
        await asyncio.sleep(chaos.chance.random() * 0.5)
        twice = world.doubled(chaos.rig)
        # Two looks: /proc is not read in one instant.
        if twice and set(twice) & set(world.doubled(chaos.rig)):
            wrong.append(f"more than one process of {twice}")
        if chaos.rig.daemon is not None and chaos.rig.daemon.poll() is not None:
            return [*wrong, f"devd ended with {chaos.rig.daemon.returncode}"]
    return wrong


async def settled(rig: Rig, chaos: Chaos, before: world.Stand) -> list[str]:
    """Take all faults away and wait until everything is as it was; return what is not."""
    for number in range(world.FILE_COUNT):
        (chaos.files / f"dev-{number}").touch()
    rig.config.write_text(world.config(chaos.files, calm=True), encoding="utf-8")
    wrong = []
    try:
        await until(lambda: len(rig.status()["devices"]) == DEVICES, "all devices listed", CALM_WITHIN_S)
        for device in rig.status()["devices"]:
            rig.order("uncordon", device["id"])
        await calm(rig)
        await until(lambda: small(rig) == parts(before), f"as before: {before}", CALM_WITHIN_S)
    except (AssertionError, TimeoutError) as error:
        wrong.append(f"{error}; now {world.stand(rig)}; {missing(rig)}")
    after = world.stand(rig)
    if after.resident_mib > before.resident_mib + GROWTH_MIB:
        wrong.append(f"the front grew from {before.resident_mib:.0f} to {after.resident_mib:.0f} MiB")
    print(f"before {before}\nafter  {after}", flush=True)
    counters = rig.status()["daemon"]["counters"]
    wrong += [f"kubelet: {one}" for one in rig.kubelet.violations]
    wrong += [f"journal: {counters['journal']}"] * bool(counters["journal"]["lost"])
    wrong += [f"state: {counters['state']}"] * bool(counters["state"]["error"])
    wrong += [f"the event loop stood still {counters['loop_blocks']} times"] * bool(counters["loop_blocks"])
    if wrong and (log := os.environ.get("SOAK_LOG")):
        shutil.copytree(rig.root, log, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.sock", "plugins", "run"))
    code, took_s = await rig.end_daemon()
    wrong += [f"devd ended with {code} after {took_s:.1f} s"] * (code != 0 or took_s > 5.0)
    return wrong


def missing(rig: Rig) -> str:
    """Return which devices are not there, and what discovery says."""
    status = rig.status()
    wells = [f"well-{number}" for number in range(world.WELL_COUNT)]
    names = [*wells, *(f"sick-{number}" for number in range(len(world.SICKNESSES)))]
    there = {one["id"] for one in status["devices"]}
    files = sum(one["resource"] == world.FILES for one in status["devices"])
    return (
        f"not listed: {sorted(set(names) - there)} and {world.FILE_COUNT - files} files; "
        f"discovery: {[one['discovery'] for one in status['resources']]}; {status['daemon']['config_error']}"
    )


def parts(stand: world.Stand) -> tuple[int, int, int, int]:
    """Return what has to be the same to the last one."""
    return stand.descriptors, stand.threads, stand.processes, stand.sockets


def small(rig: Rig) -> tuple[int, int, int, int]:
    """Return the same of how devd stands now."""
    return parts(world.stand(rig))


async def calm(rig: Rig) -> None:
    """Wait until every device is served and Healthy, at devd and at the kubelet."""

    def well() -> bool:
        devices = rig.status()["devices"]
        return len(devices) == DEVICES and all(
            one["health"] == "Healthy" and one["phase"] == "serving" for one in devices
        )

    try:
        await until(well, "all devices well", CALM_WITHIN_S)
    except AssertionError as error:
        sick = [(one["id"], one["phase"], one["reason"]) for one in rig.status()["devices"] if one["reason"]]
        raise AssertionError(f"{error}: {sick}") from error
    for name, count in ((world.WELL, 2 * world.WELL_COUNT), (world.SICK, len(world.SICKNESSES))):
        await rig.healthy(name, count, CALM_WITHIN_S)


def main() -> int:
    """Run a soak by the environment's numbers."""
    minutes = float(os.environ.get("SOAK_MINUTES", "3"))
    seed = int(os.environ.get("SOAK_SEED", str(time.time_ns() % 1_000_000)))
    print(f"soak: {minutes:g} minutes, {DEVICES} devices, SOAK_SEED={seed}", flush=True)
    wrong = asyncio.run(soak(minutes, seed))
    for one in wrong:
        print(f"WRONG: {one}")
    print("soak failed" if wrong else "soak passed: everything is as it was")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
