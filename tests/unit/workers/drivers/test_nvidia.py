"""The nvidia driver's discovery and reset: /proc as fixtures, NVML as the stand-in that the real binding loads."""

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devd.ipc.messages import Device
from devd.workers.command import CommandRunner
from devd.workers.drivers.nvidia import GpuReset, NvidiaDriver, NvidiaSignals, allowed
from devd.workers.errors import ResetError, SpecError
from devd.workers.hw import nvml
from devd.workers.hw.nvlinks import AFTER_S, AGAIN_S, NvLinks
from devd.workers.probes.base import Call
from tests.support import nvml_standin
from tests.unit.workers.drivers import nvidia_tree
from tests.unit.workers.drivers.nvidia_tree import ADDRESS, HEALTHY, UUID
from tests.unit.workers.drivers.tree import GARBAGE, grow


def _discover(root: Path, **match: object) -> list[Device]:
    return list(NvidiaDriver(match, root=root).discover().devices)


def _only(root: Path, **match: object) -> Device:
    (device,) = _discover(root, **match)
    return device


def _call(allowed_s: float = 5.0) -> Call:
    return Call(lambda _activity: None, time.monotonic(), allowed_s)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the stand-in's script, of a GPU that is well."""
    nvml_standin.load()
    path = tmp_path / "script"
    path.write_text(HEALTHY)
    monkeypatch.setenv(nvml_standin.VARIABLE, str(path))
    return path


@pytest.fixture
def smi(tmp_path: Path) -> Callable[[str], str]:
    """Return a maker of programs that stand where nvidia-smi would: they run a line of shell."""

    def make(line: str) -> str:
        path = tmp_path / "nvidia-smi"
        path.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/ran\n{line}\n')
        path.chmod(0o755)
        return str(path)

    return make


OTHER, OTHER_UUID = "0000:5e:00.0", "GPU-2b724e78-eef5-4163-d43c-e4da15d41176"


class Clock:
    """A clock that the test sets."""

    now_s = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now_s


def _pair(root: Path, script: Path, more: str) -> tuple[NvidiaDriver, Clock]:
    """Grow two GPUs, of which the first answers with more; return the driver that has its first look behind it."""
    nvidia_tree.gpu(root)
    nvidia_tree.gpu(root, address=OTHER, uuid=OTHER_UUID, minor=1)
    script.with_name(f"{script.name}.{ADDRESS}").write_text(HEALTHY + more)
    clock = Clock()
    driver = NvidiaDriver({}, root=root, links=NvLinks(clock_s=clock))
    assert [one.properties.get("links") for one in driver.discover().devices] == [None, None]
    return driver, clock


def _calls(script: Path) -> list[str]:
    path = Path(f"{script}.calls")
    return path.read_text().splitlines() if path.exists() else []


# ---- discovery --------------------------------------------------------------------------------------------------


def test_a_gpu_is_found_without_its_library(tmp_path: Path) -> None:
    """Id, nodes and properties come from /proc; the numbers of the nodes from /proc/devices."""
    nvidia_tree.gpu(tmp_path)
    device = _only(tmp_path)
    assert device.id == UUID
    assert [(node.path, node.major, node.minor) for node in device.nodes] == [
        ("/dev/nvidia0", 195, 0),
        ("/dev/nvidiactl", 195, 255),
        ("/dev/nvidia-uvm", 511, 0),
    ]
    assert device.numa_node == 1
    assert device.properties["model"] == "NVIDIA H200"
    assert device.properties["cdi"] == f"nvidia.com/gpu={UUID}"
    assert device.properties["driver_version"] == "570.86.15"


def test_gpus_joined_by_nvlink_name_each_other(tmp_path: Path, script: Path) -> None:
    """The first list does not ask; a later one tells the other ends but switches, and asks each GPU once."""
    driver, clock = _pair(tmp_path, script, f"link 0 0 0000{OTHER.upper()}\nlink 1 2 00000000:0A:00.0\n")
    assert _calls(script) == []
    clock.now_s += AFTER_S
    first, second = driver.discover().devices
    assert first.properties["links"] == OTHER
    assert "links" not in second.properties
    asked = _calls(script)
    assert asked.count("init") == asked.count("shutdown") == 2
    clock.now_s += 10 * AGAIN_S
    assert driver.discover().devices == (first, second)
    assert _calls(script) == asked


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("fail links 3\n", ""),
        ("fail init 12\n", ""),
        ("fail init 9\n", ""),
        ("fail links 999\n", f"{ADDRESS}: which GPUs it is joined to is unknown: NVLink: Unknown Error"),
        ("fail handle 15\n", f"{ADDRESS}: which GPUs it is joined to is unknown: open the GPU: GPU is lost"),
    ],
)
def test_a_gpu_that_cannot_say_is_listed_without_links(tmp_path: Path, script: Path, more: str, problem: str) -> None:
    """Not supported, no library, an error: the GPU is there as ever, and asked again much later at most."""
    driver, clock = _pair(tmp_path, script, "")
    script.write_text(HEALTHY + more)
    script.with_name(f"{script.name}.{ADDRESS}").write_text(HEALTHY + more)
    clock.now_s += AFTER_S
    found = driver.discover()
    assert [one.id for one in found.devices] == [UUID, OTHER_UUID]
    assert all("links" not in one.properties for one in found.devices)
    assert any(one.startswith(problem) for one in found.problems) if problem else found.problems == ()
    asked = len(_calls(script))
    driver.discover()
    assert len(_calls(script)) == asked
    script.with_name(f"{script.name}.{ADDRESS}").write_text(f"{HEALTHY}link 0 0 00000000:5E:00.0\n")
    script.write_text(HEALTHY)
    clock.now_s += AGAIN_S
    assert driver.discover().devices[0].properties.get("links") == (None if more == "fail links 3\n" else OTHER)


def test_a_gpu_that_somebody_hangs_in_is_not_asked(tmp_path: Path, script: Path) -> None:
    """The scout is told whose nodes to leave alone: asking such a GPU would hang it as well."""
    driver, clock = _pair(tmp_path, script, f"link 0 0 0000{OTHER.upper()}\n")
    clock.now_s += AFTER_S
    driver.leave_alone = frozenset({"/dev/nvidia0"})
    driver.discover()
    assert [one for one in _calls(script) if one.startswith("open")] == [f"open {OTHER}"]


def test_a_single_gpu_is_not_asked_for_its_links(tmp_path: Path, script: Path) -> None:
    """There is nothing to choose between: it is not woken."""
    nvidia_tree.gpu(tmp_path)
    driver = NvidiaDriver({}, root=tmp_path, links=NvLinks(after_s=0.0))
    driver.discover()
    assert _calls(script) == []


def test_no_driver_at_all_is_an_empty_list(tmp_path: Path) -> None:
    """A machine without the driver has no devices, and no problem."""
    found = NvidiaDriver({}, root=tmp_path).discover()
    assert (found.devices, found.problems) == ((), ())


def test_a_gpu_in_another_slot_keeps_its_id(tmp_path: Path) -> None:
    """Address and minor may change; the UUID is the GPU."""
    nvidia_tree.gpu(tmp_path / "before")
    nvidia_tree.gpu(tmp_path / "after", address="0000:5e:00.0", minor=3)
    before, after = _only(tmp_path / "before"), _only(tmp_path / "after")
    assert before.id == after.id
    assert after.nodes[0].path == "/dev/nvidia3"


def test_a_gpu_that_comes_and_goes_is_followed(tmp_path: Path) -> None:
    """The next scan sees what is there then."""
    driver = NvidiaDriver({}, root=tmp_path)
    assert driver.discover().devices == ()
    nvidia_tree.gpu(tmp_path)
    assert [one.id for one in driver.discover().devices] == [UUID]
    (tmp_path / "proc/driver/nvidia").rename(tmp_path / "away")
    assert driver.discover().devices == ()


def test_twins_are_told_apart_by_address(tmp_path: Path) -> None:
    """Two GPUs that claim one UUID both carry their address, within the length of an id."""
    nvidia_tree.gpu(tmp_path)
    nvidia_tree.gpu(tmp_path, address="0000:5e:00.0", minor=1)
    found = NvidiaDriver({}, root=tmp_path).discover()
    assert [one.id for one in found.devices] == [f"{UUID}-{ADDRESS}", f"{UUID}-0000:5e:00.0"]
    assert all(len(one.id) <= 56 for one in found.devices)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"uuid": "GPU-????????-????-????-????-????????????"},
            "has no UUID yet: start nvidia-persistenced, or use it once",
        ),
        ({"uuid": ""}, "has no UUID yet: start nvidia-persistenced, or use it once"),
        ({"excluded": "Yes"}, "is excluded by the driver's settings: skipped"),
    ],
)
def test_a_gpu_that_cannot_be_offered_is_a_problem(tmp_path: Path, changes: dict[str, str], problem: str) -> None:
    """One without a UUID would change its id later; an excluded one is not usable."""
    nvidia_tree.gpu(tmp_path, **changes)  # type: ignore[arg-type]  # the names are those of texts
    found = NvidiaDriver({}, root=tmp_path).discover()
    assert (found.devices, found.problems) == ((), (f"{ADDRESS} {problem}",))


def test_a_gpu_without_device_numbers_is_a_problem(tmp_path: Path) -> None:
    """Without the driver's line in /proc/devices there is nothing to give to a container."""
    grow(nvidia_tree.gpu(tmp_path), {"proc/devices": "Block devices:\n195 nvidia"})
    found = NvidiaDriver({}, root=tmp_path).discover()
    assert found.devices == ()
    assert found.problems == (f"{ADDRESS} has no device numbers in /proc/devices: skipped",)


def test_mig_devices_are_known_by_their_place(tmp_path: Path, script: Path) -> None:
    """Each has its own id and capability nodes; NVML adds the UUID by which containers ask."""
    nvidia_tree.gpu(tmp_path)
    nvidia_tree.instance(tmp_path, 1, 0)
    nvidia_tree.instance(tmp_path, 13, 0)
    script.write_text(HEALTHY + "instance 1 0 MIG-aaa\ninstance 13 0 MIG-bbb\n")
    found = NvidiaDriver({"offer": "mig"}, root=tmp_path).discover()
    assert [one.id for one in found.devices] == [f"{UUID}-gi1-ci0", f"{UUID}-gi13-ci0"]
    assert all(len(one.id) <= 56 for one in found.devices)
    assert [node.path for node in found.devices[0].nodes][:3] == [
        "/dev/nvidia0",
        "/dev/nvidia-caps/nvidia-cap12",
        "/dev/nvidia-caps/nvidia-cap13",
    ]
    assert [one.properties["cdi"] for one in found.devices] == ["nvidia.com/gpu=MIG-aaa", "nvidia.com/gpu=MIG-bbb"]
    whole = NvidiaDriver({}, root=tmp_path).discover()
    assert whole.devices == ()
    assert whole.problems == (f"{ADDRESS} is split into 2 MIG devices: offer them with 'offer: mig'",)


def test_mig_devices_keep_their_ids_without_nvml(tmp_path: Path, script: Path) -> None:
    """NVML that fails costs the UUID, with a problem, and no id."""
    nvidia_tree.gpu(tmp_path)
    nvidia_tree.instance(tmp_path, 1, 0)
    script.write_text("fail init 9\n")
    found = NvidiaDriver({"offer": "mig"}, root=tmp_path).discover()
    assert [one.id for one in found.devices] == [f"{UUID}-gi1-ci0"]
    assert "cdi" not in found.devices[0].properties
    assert found.problems[0].startswith(
        f"{ADDRESS}: the UUIDs of its MIG devices are unknown: start NVML: Driver Not Loaded"
    )


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_in_every_file_breaks_nothing(tmp_path: Path, script: Path, garbage: bytes) -> None:
    """Whatever /proc and NVML say, a scan ends and every check answers in plain text."""
    nvidia_tree.gpu(tmp_path)
    device = _only(tmp_path)
    nvidia_tree.instance(tmp_path, 1, 0)
    for path in tmp_path.rglob("*"):
        if path.is_file() and path != script:
            path.write_bytes(garbage)
            assert _discover(tmp_path) == []
            _discover(tmp_path, offer="mig")
    script.write_bytes(garbage + b"\nuuid " + garbage.replace(b"\n", b""))
    signals = NvidiaSignals(device, root=tmp_path, events=False)
    try:
        for name in signals.offered:
            assert signals.check(name).isprintable()
    finally:
        signals.release()


def test_the_sandbox_is_told_what_a_probe_needs(tmp_path: Path) -> None:
    """The GPU's node and the control node, and the library."""
    needs = allowed(_only(nvidia_tree.gpu(tmp_path)))
    assert needs.ioctl == ("/dev/nvidia0", "/dev/nvidiactl")
    assert needs.libraries


def test_this_machines_own_gpus_are_listed() -> None:
    """Whatever is in the real /proc, a scan ends with clean ids, and twice the same."""
    first, second = NvidiaDriver({}).discover(), NvidiaDriver({}).discover()
    assert [one.id for one in first.devices] == [one.id for one in second.devices]
    assert all(one.nodes for one in first.devices)


# ---- the binding ------------------------------------------------------------------------------------------------


def test_addresses_are_the_kernels() -> None:
    """NVML writes a domain of eight digits in capitals; one that needs them keeps them."""
    assert nvml.short_address("00000000:3B:00.0") == "0000:3b:00.0"
    assert nvml.short_address("00010000:3B:00.0") == "00010000:3b:00.0"
    assert nvml.short_address("0000:3B:00.0") == "0000:3b:00.0"


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (
            "",
            "not the GPU's fault: start NVML: NVML Shared Library Not Found (NVML error 12): libnvidia-ml.so.1 is not",
        ),
        (
            "import sys; sys.modules['pynvml'] = None",
            "not the GPU's fault: load NVML: the Python package nvidia-ml-py is missing: install devd with the extra",
        ),
    ],
)
def test_a_missing_library_or_binding_is_no_sick_gpu(tmp_path: Path, prepare: str, reason: str) -> None:
    """In a process of its own, where no library can be found, the reason says so and the GPU is not accused."""
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has the real library")
    nvidia_tree.gpu(tmp_path)
    code = (
        f"{prepare}\nfrom pathlib import Path\nfrom devd.workers.drivers.nvidia import NvidiaDriver, NvidiaSignals\n"
        f"root = Path({str(tmp_path)!r})\n(device,) = NvidiaDriver({{}}, root=root).discover().devices\n"
        "signals = NvidiaSignals(device, root=root)\n"
        "print(signals.check('nvml')); print(repr(signals.check('gpu'))); print(signals.check('ecc'))\n"
        "signals.release()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    told, gpu, ecc = done.stdout.splitlines()
    assert told.startswith(reason)
    assert gpu == "''"
    assert ecc == told


# ---- reset ------------------------------------------------------------------------------------------------------


def test_a_free_gpu_is_reset_with_no_session_left_open(tmp_path: Path, script: Path, smi: Callable[[str], str]) -> None:
    """The worker's own session is closed before nvidia-smi runs, and opened again by the next check."""
    nvidia_tree.gpu(tmp_path)
    device = _only(tmp_path)
    signals = NvidiaSignals(device, root=tmp_path)
    assert signals.check("xid") == ""
    calls = Path(f"{script}.calls")
    program = smi(f"cp {calls} {tmp_path}/before")
    GpuReset(device, CommandRunner(), root=tmp_path, release=signals.release, program=program).run(_call())
    assert (tmp_path / "ran").read_text() == f"--gpu-reset -i {ADDRESS}\n"
    before = (tmp_path / "before").read_text().splitlines()
    assert before.count("init") == before.count("shutdown") == 2
    assert before.count("set") == before.count("free") == 1
    signals.cured()
    assert signals.check("gpu") == ""
    signals.release()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ("process 4711", f"refused, {ADDRESS} would be reset: pid 4711 computes on it"),
        (
            "link 3 0 00000000:5E:00.0",
            f"refused, {ADDRESS} would be reset: 0000:5e:00.0 is joined to it by NVLink: they are reset together",
        ),
        ("fail processes 999", f"refused: who uses {ADDRESS} is unknown: processes: Unknown Error"),
        (
            "fail init 18",
            f"refused: who uses {ADDRESS} is unknown: start NVML: RM has detected an NVML/RM version mismatch",
        ),
    ],
)
def test_a_gpu_in_use_or_joined_is_not_reset(
    tmp_path: Path, script: Path, smi: Callable[[str], str], more: str, reason: str
) -> None:
    """Everyone in the way is named, and nvidia-smi is not run; who cannot be known is in the way as well."""
    nvidia_tree.gpu(tmp_path)
    script.write_text(f"{HEALTHY}{more}\n")
    reset = GpuReset(_only(tmp_path), CommandRunner(), root=tmp_path, program=smi("exit 0"))
    with pytest.raises(ResetError) as caught:
        reset.run(_call())
    assert str(caught.value).startswith(reason)
    assert not (tmp_path / "ran").exists()


def test_a_link_to_a_switch_joins_nobody(tmp_path: Path, script: Path) -> None:
    """Only links from GPU to GPU make a set; a GPU behind a switch is reset alone."""
    nvidia_tree.gpu(tmp_path)
    script.write_text(HEALTHY + "link 0 2 00000000:5E:00.0\nlink 1 0 00000000:5F:00.0\n")
    assert GpuReset(_only(tmp_path), CommandRunner(), root=tmp_path).blast_radius() == (ADDRESS, "0000:5f:00.0")


def test_an_open_node_is_in_the_way_of_a_lost_gpu_as_well(
    tmp_path: Path, script: Path, smi: Callable[[str], str]
) -> None:
    """NVML cannot tell who uses a lost GPU; /proc can."""
    nvidia_tree.gpu(tmp_path)
    script.write_text("fail handle 15\n")
    reset = GpuReset(_only(tmp_path), CommandRunner(), root=tmp_path, program=smi("exit 0"))
    grow(tmp_path, {"proc/900/comm": "nvidia-persiste", "proc/900/fd/3": "-> /dev/nvidia0"})
    with pytest.raises(ResetError, match=r"pid 900 \(nvidia-persiste\) has /dev/nvidia0 open"):
        reset.run(_call())
    (tmp_path / "proc/900/fd/3").unlink()
    reset.run(_call())
    assert (tmp_path / "ran").exists()


def test_a_split_gpu_and_its_parts_are_not_reset(tmp_path: Path, script: Path, smi: Callable[[str], str]) -> None:
    """A reset of one MIG device would take its neighbours along."""
    nvidia_tree.gpu(tmp_path)
    whole = _only(tmp_path)
    nvidia_tree.instance(tmp_path, 1, 0)
    script.write_text(HEALTHY.replace("mig 0", "mig 1") + "instance 1 0 MIG-aaa\n")
    part = _only(tmp_path, offer="mig")
    for device, reason in ((part, "would take all parts along"), (whole, "is split by MIG")):
        with pytest.raises(ResetError, match=reason):
            GpuReset(device, CommandRunner(), root=tmp_path, program=smi("exit 0")).run(_call())
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("echo 'GPU 0000:3B:00.0 is currently In use by another client'; exit 255", "is in use by another client"),
        ("echo 'not supported'; exit 3", "exit code 3: not supported"),
    ],
)
def test_the_tools_refusal_is_told(
    tmp_path: Path, script: Path, smi: Callable[[str], str], line: str, reason: str
) -> None:
    """A client that nobody saw is a refusal; anything else quotes the tool."""
    nvidia_tree.gpu(tmp_path)
    assert script.exists()
    with pytest.raises(ResetError, match=reason):
        GpuReset(_only(tmp_path), CommandRunner(), root=tmp_path, program=smi(line)).run(_call())


def test_a_wrong_selection_is_refused() -> None:
    """What makes no sense is an error, not everything."""
    for match in ({"offer": "vgpu"}, {"serial": "1"}):
        with pytest.raises(SpecError):
            NvidiaDriver(match)
