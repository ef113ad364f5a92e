"""The bytes on the wire, message by message: a change here is a change of the protocol.

Two versions of devd meet during an upgrade (the command line and the daemon). When this test fails either undo the
change or raise PROTOCOL_VERSION and write the file anew: ``python tests/golden/test_wire.py``.
"""

from pathlib import Path

import pytest

from devd.ipc import codec, messages
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import MESSAGES, PROTOCOL_VERSION

GOLDEN = Path(__file__).with_name("wire.txt")

HEALTH = messages.Health(
    device="gpu-1",
    incarnation=3,
    seq=42,
    verdict="fail",
    reason="open /dev/gpu1: ENODEV (No such device)",
    probe_count=20,
    probe_kind="open",
    probe_at_s=1234.5,
    probe_duration_s=0.25,
    activity="open /dev/gpu1",
    activity_at_s=1239.5,
)
DEVICE = messages.Device(
    id="gpu-1",
    nodes=(messages.Node("/dev/gpu1", "char", 195, 1), messages.Node("/dev/gpu1-mem", "other", 5, 1 << 40)),
    properties={"model": "X 100", "firmware": "1.2-\u00e9"},
    numa_node=1,
    params={"script": [{"do": "hang", "for": None}, {"do": "pass", "for": 2.5}], "n": -7, "on": True},
)
SPEC = messages.WorkerSpec(
    role="worker",
    device="gpu-1",
    resource="devd.io/gpu",
    driver="node",
    incarnation=3,
    health_endpoint="ipc:///run/devd/health.sock",
    command_endpoint="ipc:///run/devd/cmd/7.sock",
    period_s=5.0,
    timeout_s=2.0,
    probe={"kind": "open", "mode": "r"},
    reset={"kind": "exec", "timeout_s": 20, "command": ["/usr/bin/true"]},
    match={"path": ["/dev/gpu*"]},
    target=DEVICE,
    leave_alone=("/dev/gpu7",),
    injected=messages.Fault("fail", 1300.5, "as rehearsed"),
)
EXAMPLES: dict[str, object] = {
    "Hello": messages.Hello("gpu-1", 3, 4711, messages.Sandbox("basic", ("core", "nice"), {"oom": "EACCES"})),
    "Health": HEALTH,
    "Findings": messages.Findings(
        "gpu-1",
        3,
        offered=("link", "xid"),
        checked=("xid",),
        notes={"xid 13": "was seen"},
        baseline={"ecc": {"base": 7, "at_s": 1.5}},
    ),
    "ResetDone": messages.ResetDone("gpu-1", 3, 9, ok=False, reason="exit 1", duration_s=1.5, health=HEALTH),
    "Listing": messages.Listing(
        "devd.io/gpu", 1, 2, (DEVICE, messages.Device("gpu-2")), ("/dev/gpu3: EACCES",), ("/dev/gpu7",)
    ),
    "Stirred": messages.Stirred("devd.io/gpu", 1, ("gpu-1", "gpu-2")),
    "Written": messages.Written(
        "scribe:cdi/specs",
        1,
        (messages.SpecFile("devd.devd.io_gpu.json", "a" * 64, "", "ENOSPC (No space left on device)"),),
        sought=("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2"),
        known=("nvidia.com/gpu=GPU-1",),
    ),
    "ProbeNow": messages.ProbeNow(("/dev/gpu7",)),
    "Inject": messages.Inject(messages.Fault("hang")),
    "Reset": messages.Reset(
        9,
        20.0,
        messages.Usage(
            (messages.OpenFile(71, "fio", "/dev/gpu1"),),
            (messages.Mounted(259, 1, "/data"),),
            "pid 1: EPERM",
            (messages.Allocated(("/dev/gpu2", "0000:3b:00.0"), "pod shop/train (main) has gpu-2 allocated"),),
        ),
        "shared with pod shop/train (main)",
    ),
    "Stop": messages.Stop(),
    "WriteSpecs": messages.WriteSpecs(
        (messages.SpecText("devd.devd.io_gpu.json", "{}\n"),), sought=("nvidia.com/gpu=GPU-1", "nvidia.com/gpu=GPU-2")
    ),
    "Fork": messages.Fork(1, SPEC),
    "Forked": messages.Forked(1, 4711),
    "ForkFailed": messages.ForkFailed(1, "EAGAIN (Resource temporarily unavailable)"),
    "ChildExit": messages.ChildExit(4711, -1, 9, 0.5, 0.25, 20480),
    "Ping": messages.Ping(),
    "Pong": messages.Pong(),
    "ControlRequest": messages.ControlRequest("probe", {"device": "gpu-1"}),
    "ControlReply": messages.ControlReply(ok=True, error="", data={"devices": [], "version": 1}),
}


def golden() -> dict[str, bytes]:
    """Return the recorded frames by message name."""
    lines = [line.split() for line in GOLDEN.read_text().splitlines() if line and not line.startswith("#")]
    return {name: bytes.fromhex(frame) for name, frame in lines}


def test_every_message_is_recorded() -> None:
    """A message that is new or gone shows here, in the examples and in the recorded frames alike."""
    assert set(EXAMPLES) == set(MESSAGES) == set(golden())


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_frames_are_the_recorded_bytes(name: str) -> None:
    """Each message is written as the recorded bytes and those are read back as the message."""
    assert codec.encode(EXAMPLES[name]).hex() == golden()[name].hex()
    assert codec.decode(golden()[name], MESSAGES[name]) == EXAMPLES[name]


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_recorded_frames_carry_this_version(name: str) -> None:
    """The version is the frame's second byte, where another version's reader finds it; any other is refused."""
    frame = bytearray(golden()[name])
    assert frame[1] == PROTOCOL_VERSION
    frame[1] = PROTOCOL_VERSION + 1
    with pytest.raises(ProtocolError, match=rf"version {PROTOCOL_VERSION + 1}: this side speaks {PROTOCOL_VERSION}"):
        codec.decode(bytes(frame), MESSAGES[name])


if __name__ == "__main__":
    heading = f"# Frames of protocol version {PROTOCOL_VERSION}: message name, then the bytes in hex.\n"
    GOLDEN.write_text(heading + "".join(f"{name} {codec.encode(one).hex()}\n" for name, one in EXAMPLES.items()))
