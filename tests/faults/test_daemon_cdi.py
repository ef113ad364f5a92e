"""CDI by a real daemon: which names containers get, what stands in the directory, and what happens when it cannot."""

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devd.daemon.cdi import file_name
from devd.daemon.cdi_desk import SCRIBE_ID, SCRIBE_UID
from devd.daemon.demo.kubelet_rules import AdmissionError
from devd.daemon.demo.rig import Rig
from tests.faults.worlds import FILES, GRACE_S, SIM, alive, scenario, sim, until
from tests.support import cdi_rules

FILE = "devd.test.devd.io_files.json"
KIND = "devd.test.devd.io/files"
NULL = {"type": "c", "major": 1, "minor": 3, "permissions": "rw"}
ZERO = {"type": "c", "major": 1, "minor": 5, "permissions": "rw"}
RELOADED = "configuration taken"


def config(folder: Path, mode: str, *, more: str = "", name: str = FILES) -> str:
    """Return a configuration of links below a directory, offered with ``cdi: mode``."""
    return f"""resources:
  - name: {name}
    driver: node
    match: {{path: "{folder}/*"}}
    probe: {{kind: exists, period: 200ms, timeout: 500ms}}
    discovery: {{period: 1s, linger: 100ms}}
    cdi: {mode}
{more}"""


def link(folder: Path, name: str, target: str = "/dev/null") -> str:
    """Make a link to a device everybody has; return its id."""
    folder.mkdir(exist_ok=True)
    (folder / name).symlink_to(target)
    return device_id(folder, name)


def device_id(folder: Path, name: str) -> str:
    """Return the id devd gives a link outside /dev."""
    from devd.workers.drivers.base import device_id as made  # noqa: PLC0415 - named as this function is

    return made(str(folder / name))


def test_names_and_nodes_stand_beside_each_other(tmp_path: Path) -> None:
    """``auto``: the names of what stands in the specification, and all that runtimes without CDI need."""
    one, two = link(tmp_path / "d", "a0"), link(tmp_path / "d", "a1", "/dev/zero")
    more = f"""    container_path: "/dev/thing/{{name}}"
    env: {{PATHS: "{{paths}}"}}
    mounts: [{{host: "{tmp_path}", container: "/data", read_only: true}}]
"""

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 2)
        spec = cdi_rules.standing(rig.cdi_dir / FILE)
        mount = {"hostPath": str(tmp_path), "containerPath": "/data", "options": ["rbind", "rprivate", "ro"]}
        assert spec == {
            one: {
                "deviceNodes": [{"path": "/dev/thing/a0", "hostPath": f"{tmp_path}/d/a0", **NULL}],
                "mounts": [mount],
            },
            two: {
                "deviceNodes": [{"path": "/dev/thing/a1", "hostPath": f"{tmp_path}/d/a1", **ZERO}],
                "mounts": [mount],
            },
        }
        given = (await rig.kubelet.allocate(FILES, ids=[one, two])).response
        assert [cdi.name for cdi in given.cdi_devices] == [f"{KIND}={one}", f"{KIND}={two}"]
        assert [node.container_path for node in given.devices] == ["/dev/thing/a0", "/dev/thing/a1"]
        assert [bind.container_path for bind in given.mounts] == ["/data"]
        assert given.envs["PATHS"] == "/dev/thing/a0,/dev/thing/a1"
        assert (rig.cdi_dir / FILE).stat().st_mode & 0o777 == 0o644
        assert rig.status()["resources"][0]["cdi"] == {
            "mode": "auto", "kind": KIND, "file": FILE, "named": 2, "problem": "",
        }  # fmt: skip

    scenario(config(tmp_path / "d", "auto", more=more), play)


def test_names_stand_alone(tmp_path: Path) -> None:
    """``only``: no nodes and none of the mounts that the specification brings; variables tell of all devices."""
    ids = [link(tmp_path / "d", "a0"), link(tmp_path / "d", "a1", "/dev/zero")]
    more = f"""    env: {{IDS: "{{ids}}"}}
    mounts: [{{host: "{tmp_path}/{{name}}", container: "/data/{{name}}"}}]
"""

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 2)
        given = (await rig.kubelet.allocate(FILES, ids=ids)).response
        assert [cdi.name for cdi in given.cdi_devices] == [f"{KIND}={one}" for one in ids]
        assert not given.devices
        assert not given.mounts
        assert given.envs["IDS"] == ",".join(ids)
        spec = cdi_rules.standing(rig.cdi_dir / FILE)
        assert [one["mounts"][0]["containerPath"] for one in spec.values()] == ["/data/a0", "/data/a1"]

    scenario(config(tmp_path / "d", "only", more=more), play)


def test_nothing_is_written_unless_asked_for(tmp_path: Path) -> None:
    """``off``, the default: no names, no scribe, not even the directory."""
    one = link(tmp_path / "d", "a0")

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        given = (await rig.kubelet.allocate(FILES, ids=[one])).response
        assert not given.cdi_devices
        assert len(given.devices) == 1
        assert rig.status()["daemon"]["cdi"] is None
        assert not rig.cdi_dir.exists()

    scenario(config(tmp_path / "d", "off"), play)


def test_the_specification_follows_the_devices(tmp_path: Path) -> None:
    """A device that comes is in it before it is offered, one that goes leaves it; what moved has its new numbers."""
    folder = tmp_path / "d"
    one = link(folder, "a0")

    async def play(rig: Rig) -> None:
        file = rig.cdi_dir / FILE
        await rig.healthy(FILES, 1)
        two = link(folder, "a1", "/dev/zero")
        await rig.healthy(FILES, 2)
        assert set(cdi_rules.standing(file)) == {one, two}
        (folder / "a0").unlink()
        await until(lambda: set(cdi_rules.standing(file)) == {two}, "the device's leave")
        (folder / "a1").unlink()
        await until(lambda: not file.exists(), "an end of the file that has no device")
        await rig.kubelet.wait_for(lambda: rig.kubelet.allocatable(FILES) == 0, GRACE_S, "the kubelet knows")
        link(folder, "a1", "/dev/null")
        await rig.healthy(FILES, 1)
        assert cdi_rules.standing(file)[two]["deviceNodes"][0].items() >= NULL.items()

    scenario(config(folder, "only"), play)


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """Somebody who reads again and again while it changes always sees a whole specification."""
    folder = tmp_path / "d"
    link(folder, "a0")
    odd: list[str] = []
    seen: set[int] = set()
    end = threading.Event()

    def read(file: Path) -> None:
        while not end.wait(0.0005):
            try:
                seen.add(len(cdi_rules.standing(file)))
            except (AssertionError, ValueError) as error:
                odd.append(repr(error))

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        reader = threading.Thread(target=read, args=(rig.cdi_dir / FILE,))
        reader.start()
        try:
            for number, target in enumerate(("zero", "full", "random", "urandom", "tty"), 1):
                link(folder, f"a{number}", f"/dev/{target}")
                await rig.healthy(FILES, number + 1)
        finally:
            end.set()
            reader.join()
        assert odd == []
        assert len(seen) > 1
        assert [one.name for one in rig.cdi_dir.iterdir()] == [FILE]

    scenario(config(folder, "auto"), play)


@contextmanager
def shut(path: Path) -> Iterator[None]:
    """Have a file stand where the directory should be: nobody writes there, not even root."""
    path.write_text("in the way")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def test_a_directory_that_cannot_be_written_withholds_what_has_no_other_way(tmp_path: Path) -> None:
    """``only``: Unhealthy with the reason, nothing is given; once the directory can be written the devices are."""
    one = link(tmp_path / "d", "a0")

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        with shut(rig.cdi_dir):
            rig.start_daemon()
            await rig.unhealthy(FILES, 1)
            await until(lambda: "could not be written" in rig.device(one)["reason"], "the reason")
            reason = rig.device(one)["reason"]
            assert "ENOTDIR" in reason
            assert "set cdi to off" in reason
            with pytest.raises(AdmissionError, match=r"is Unhealthy: .*ENOTDIR"):
                await rig.kubelet.allocate(FILES, ids=[one])
        rig.cdi_dir.mkdir(exist_ok=True)  # a scribe that has just begun makes it too
        await rig.healthy(FILES, 1)
        assert set(cdi_rules.standing(rig.cdi_dir / FILE)) == {one}

    scenario(config(tmp_path / "d", "only"), play)


def test_a_directory_that_cannot_be_written_costs_names_alone(tmp_path: Path) -> None:
    """``auto``: the device is given by its nodes; the loss stands in the status and once in the log."""
    one = link(tmp_path / "d", "a0")

    async def play(rig: Rig) -> None:
        await rig.end_daemon()
        with shut(rig.cdi_dir):
            rig.start_daemon()
            await rig.healthy(FILES, 1)
            given = (await rig.kubelet.allocate(FILES, ids=[one])).response
            assert not given.cdi_devices
            assert len(given.devices) == 1
            assert "ENOTDIR" in rig.status()["resources"][0]["cdi"]["problem"]
            assert rig.log_text().count("CDI specification not written") == 1

    scenario(config(tmp_path / "d", "auto"), play)


def test_a_lost_file_is_written_again(tmp_path: Path) -> None:
    """Somebody empties the directory: what belongs there comes back by itself, and the directory too."""
    one = link(tmp_path / "d", "a0")

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        # All at once: the scribe may write it again, and make the directory again, at any moment.
        rig.cdi_dir.rename(rig.root / "emptied")
        rig.cdi_dir.mkdir(exist_ok=True)
        await until(lambda: set(cdi_rules.standing(rig.cdi_dir / FILE)) == {one}, "the file")
        await rig.healthy(FILES, 1)

    scenario(config(tmp_path / "d", "only"), play)


def test_files_of_others_stay_and_ones_own_leave_with_their_resource(tmp_path: Path) -> None:
    """A resource that left the configuration takes its file along, while devd runs or while it did not."""
    folder = tmp_path / "d"
    link(folder, "a0")
    other, third = "test.devd.io/other", "test.devd.io/third"
    both = config(folder, "auto") + config(tmp_path / "e", "auto", name=other).removeprefix("resources:\n")
    both += config(tmp_path / "f", "only", name=third).removeprefix("resources:\n")
    for name, target in (("e", "/dev/zero"), ("f", "/dev/full")):
        link(tmp_path / name, f"{name}0", target)

    async def play(rig: Rig) -> None:
        for name in (FILES, other, third):
            await rig.healthy(name, 1)
        strangers = {"nvidia.yaml": "kind: nvidia.com/gpu\n", "devd.else.where_thing.json": "{}", "README": ""}
        for name, text in strangers.items():
            (rig.cdi_dir / name).write_text(text)
        left = {*strangers, FILE, file_name(third)}
        rig.config.write_text(
            config(folder, "auto") + config(tmp_path / "f", "only", name=third).removeprefix("resources:\n")
        )
        await until(lambda: set(os.listdir(rig.cdi_dir)) == left, "the file's end")  # noqa: PTH208 - names alone
        await rig.end_daemon()
        assert set(os.listdir(rig.cdi_dir)) == left  # noqa: PTH208 - containers that start again need them
        rig.config.write_text(config(folder, "off"))
        rig.start_daemon()
        await until(lambda: set(os.listdir(rig.cdi_dir)) == set(strangers), "the files' end")  # noqa: PTH208 - as above
        for name, text in strangers.items():
            assert (rig.cdi_dir / name).read_text() == text

    scenario(both, play)


def test_a_restart_leaves_the_file_alone(tmp_path: Path) -> None:
    """Neither the end of devd nor its start touch a file that says what it should; nor does the scribe's death."""
    one = link(tmp_path / "d", "a0")

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        written_ns = (rig.cdi_dir / FILE).stat().st_mtime_ns
        await rig.end_daemon()
        rig.start_daemon()
        await rig.healthy(FILES, 1)
        scribe = rig.status()["daemon"]["cdi"]["pid"]
        os.kill(scribe, 9)
        await until(lambda: not alive(scribe), "the scribe's end")
        await until(lambda: rig.status()["daemon"]["cdi"]["pid"] not in (None, scribe), "another scribe")
        await rig.healthy(FILES, 1)
        assert (rig.cdi_dir / FILE).stat().st_mtime_ns == written_ns
        two = link(tmp_path / "d", "a1", "/dev/zero")
        await rig.healthy(FILES, 2)
        assert set(cdi_rules.standing(rig.cdi_dir / FILE)) == {one, two}
        health = [state for _, state in rig.turns(FILES, one)]
        assert "Unhealthy" not in health

    scenario(config(tmp_path / "d", "only"), play)


def test_what_a_vendor_specifies_goes_by_his_name() -> None:
    """The property ``cdi`` is given instead of a name of devd's, as soon as somebody's specification has it."""
    devices = "[{name: gpu0, properties: {cdi: vendor.example/gpu=GPU-1}}]"

    async def play(rig: Rig) -> None:
        await rig.unhealthy(SIM, 1)
        assert "no CDI specification in /etc/cdi and" in rig.device("gpu0")["reason"]
        assert "vendor.example/gpu=GPU-1" in rig.device("gpu0")["reason"]
        (rig.cdi_dir / "vendor.yaml").write_text(
            "cdiVersion: 0.5.0\nkind: vendor.example/gpu\ndevices:\n- name: GPU-1\n  containerEdits: {}\n"
        )
        await rig.healthy(SIM, 1)
        given = (await rig.kubelet.allocate(SIM, ids=["gpu0"])).response
        assert [cdi.name for cdi in given.cdi_devices] == ["vendor.example/gpu=GPU-1"]
        assert rig.device("gpu0")["cdi"] == "vendor.example/gpu=GPU-1"
        assert not (rig.cdi_dir / "devd.test.devd.io_sim.json").exists()

    scenario(sim(devices, more="    cdi: only\n"), play)


def test_what_has_no_node_needs_no_name() -> None:
    """A simulated device has nothing that CDI could bring, and is given as ever."""

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        assert not (await rig.kubelet.allocate(SIM)).response.cdi_devices
        assert json.dumps(rig.status()["resources"][0]["cdi"]["problem"]) == '""'

    scenario(sim("[{name: a}]", more="    cdi: only\n"), play)


def test_a_plain_file_cannot_be_given_by_name(tmp_path: Path) -> None:
    """CDI knows device nodes alone: the reason says so."""
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a0").write_text("x")

    async def play(rig: Rig) -> None:
        await rig.unhealthy(FILES, 1)
        assert "is no device node: CDI cannot give it" in rig.device(device_id(tmp_path / "d", "a0"))["reason"]

    scenario(config(tmp_path / "d", "only").replace('/*"', '/*", type: any'), play)


def test_many_resources_are_written_in_few_orders() -> None:
    """More specifications than a worker may send messages in a row: all stand at once, and the scribe is no flood."""
    names = [f"test.devd.io/r{number}" for number in range(256)]
    mount = "mounts: [{host: /tmp, container: /t}]"
    text = "".join(
        f"  - {{name: {name}, driver: sim, match: {{devices: [{{name: d{number}}}]}}, cdi: only, {mount}}}\n"
        for number, name in enumerate(names)
    )

    async def play(rig: Rig) -> None:
        for name in names:
            await rig.healthy(name, 1)
        scribe = rig.status()["daemon"]["cdi"]
        assert len(list(rig.cdi_dir.glob("devd.*.json"))) == len(names)
        assert scribe["health"] == "Healthy"
        assert [one["event"] for one in rig.journal(SCRIBE_ID) if one["event"] in {"crash", "kill"}] == []

    scenario(f"resources:\n{text}", play)


@pytest.mark.root
def test_the_scribe_stands_behind_the_sandbox(tmp_path: Path) -> None:
    """Whatever layer a worker has, the scribe has; its uid is no worker's, and the file is readable by all."""
    one = link(tmp_path / "d", "a0")

    async def play(rig: Rig) -> None:
        await rig.healthy(FILES, 1)
        await until(lambda: rig.device(one)["sandbox"] is not None, "the worker's own word")
        scribe, worker = rig.status()["daemon"]["cdi"]["sandbox"], rig.device(one)["sandbox"]
        assert set(worker["active"]) <= set(scribe["active"])
        assert scribe["active"]
        if "identity" in scribe["active"]:
            assert (rig.cdi_dir / FILE).stat().st_uid == SCRIBE_UID
        assert (rig.cdi_dir / FILE).stat().st_mode & 0o777 == 0o644

    scenario(config(tmp_path / "d", "auto"), play)
