"""Anything at a real daemon's sockets: it is taken, or refused in words, and the daemon answers the next as before."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import grpc
import pytest
import zmq

from devd.daemon.demo.rig import Rig
from devd.daemon.plugin_server import CHANNEL_OPTIONS, grpc_address
from devd.ipc import codec
from devd.ipc.endpoints import ipc_address
from devd.ipc.errors import ProtocolError
from devd.ipc.messages import ControlReply, ControlRequest
from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc
from tests.faults.worlds import GRACE_S, SIM, scenario, sim

REQUESTS = 400
SERVICE = "/v1beta1.DevicePlugin/"
METHODS = ("Allocate", "GetPreferredAllocation", "PreStartContainer", "GetDevicePluginOptions")
REFUSED = {
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
WRONG_ORDERS: tuple[tuple[str, dict[str, object]], ...] = (
    ("nothing", {}),
    ("restart", {}),
    ("cordon", {"device": 7}),
)
IDS = ("one::0", "one::1", "two::0", "two", "one", "", "::", "one::9", "one::-1", "x" * 5000, "\x00", "é☃", "one::0 ")


def ids(chance: random.Random) -> list[str]:
    """Return some ids: known, unknown, doubled, empty, very many."""
    if chance.random() < 0.05:
        return [f"none-{number}" for number in range(5000)]
    return [chance.choice(IDS) for _ in range(chance.randrange(6))]


def allocate(chance: random.Random) -> pb.AllocateRequest:
    """Return an Allocate for some containers, or none."""
    containers = [pb.ContainerAllocateRequest(devices_ids=ids(chance)) for _ in range(chance.randrange(4))]
    return pb.AllocateRequest(container_requests=containers)


def prefer(chance: random.Random) -> pb.PreferredAllocationRequest:
    """Return a GetPreferredAllocation with any sizes."""
    containers = [
        pb.ContainerPreferredAllocationRequest(
            available_deviceIDs=ids(chance),
            must_include_deviceIDs=ids(chance),
            allocation_size=chance.choice([-(2**31), -1, 0, 1, 2, 7, 2**31 - 1]),
        )
        for _ in range(chance.randrange(4))
    ]
    return pb.PreferredAllocationRequest(container_requests=containers)


def pre_start(chance: random.Random) -> pb.PreStartContainerRequest:
    """Return a PreStartContainer for any ids."""
    return pb.PreStartContainerRequest(devices_ids=ids(chance))


async def outcome(call: Awaitable[object]) -> grpc.StatusCode:
    """Return how a call ended; a refusal without a word counts as unknown."""
    try:
        await asyncio.wait_for(asyncio.ensure_future(call), GRACE_S)
    except grpc.aio.AioRpcError as error:
        return error.code() if error.details() else grpc.StatusCode.UNKNOWN
    return grpc.StatusCode.OK


def raw(channel: grpc.aio.Channel, method: str, request: bytes) -> Awaitable[object]:
    """Call a method with bytes as they are."""
    call: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(SERVICE + method)
    return call(request)


def test_any_request_is_taken_or_refused_in_words() -> None:
    """Requests of any ids and sizes get an answer or a status with a reason; the next right one is granted."""
    chance = random.Random(7)  # noqa: S311 - requests, no secrets

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 4)
        path = rig.status()["resources"][0]["registration"]["socket"]
        async with grpc.aio.insecure_channel(grpc_address(path), options=CHANNEL_OPTIONS) as channel:
            stub = rpc.DevicePluginStub(channel)
            calls: tuple[Callable[[], Awaitable[object]], ...] = (
                lambda: stub.Allocate(allocate(chance)),
                lambda: stub.GetPreferredAllocation(prefer(chance)),
                lambda: stub.PreStartContainer(pre_start(chance)),
            )
            seen = [await outcome(chance.choice(calls)()) for _ in range(REQUESTS)]
            assert set(seen) <= {grpc.StatusCode.OK, *REFUSED}, set(seen)
            assert grpc.StatusCode.OK in seen
            assert len(set(seen)) > 1
            right = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=["one::0"])])
            assert len((await stub.Allocate(right)).container_responses) == 1
        assert "Traceback" not in rig.log_text()
        assert [word for _at_s, word in rig.turns(SIM, "one::0")] == ["Healthy"]

    scenario(sim("[{name: one}, {name: two}]", more="    replicas: 2\n    reset: {kind: sim, timeout: 2s}\n"), play)


def test_bytes_that_are_no_request_are_refused() -> None:
    """Garbage in place of a request ends that call alone, whatever the method; an unknown method is refused."""
    chance = random.Random(8)  # noqa: S311 - requests, no secrets

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        path = rig.status()["resources"][0]["registration"]["socket"]
        async with grpc.aio.insecure_channel(grpc_address(path), options=CHANNEL_OPTIONS) as channel:
            for number in range(100):
                garbage = b"\xff" + chance.randbytes(chance.randrange(200))
                assert await outcome(raw(channel, METHODS[number % len(METHODS)], garbage)) is not grpc.StatusCode.OK
            assert await outcome(raw(channel, "Nothing", b"")) is grpc.StatusCode.UNIMPLEMENTED
            huge = bytes(16 * 1024 * 1024)
            assert await outcome(raw(channel, "Allocate", huge)) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (await rig.kubelet.allocate(SIM)).ids
        assert [word for _at_s, word in rig.turns(SIM, "one")] == ["Healthy"]

    scenario(sim("[{name: one}]"), play)


@pytest.mark.parametrize("socket", ["control", "health", "command"])
def test_any_frames_on_a_zeromq_socket(socket: str) -> None:
    """Any frames in any number on each socket change nothing; on the control socket they are answered in words."""
    chance = random.Random(9)  # noqa: S311 - frames, no secrets

    async def play(rig: Rig) -> None:
        await rig.healthy(SIM, 1)
        commands = sorted(rig.layout.commands.iterdir())
        path = {"control": rig.layout.control, "health": rig.layout.health, "command": commands[0]}[socket]
        kind = {"control": zmq.DEALER, "health": zmq.PUB, "command": zmq.PAIR}[socket]
        with zmq.Context() as context, context.socket(kind) as peer:
            peer.linger = 0
            peer.sndtimeo = peer.rcvtimeo = 2000
            peer.connect(ipc_address(path))
            for _ in range(100):
                frames = [chance.randbytes(chance.choice([0, 1, 10, 300])) for _ in range(chance.randrange(1, 5))]
                if socket == "control":
                    await asyncio.to_thread(_asked, peer, frames)
                else:
                    await asyncio.to_thread(_told, peer, frames)
            if socket == "control":
                for verb, args in WRONG_ORDERS:
                    request = ControlRequest(verb, args)
                    reply = await asyncio.to_thread(_asked, peer, [codec.encode(request)])
                    assert not reply.ok
                    assert reply.error
        assert [word for _at_s, word in rig.turns(SIM, "one")] == ["Healthy"]
        assert rig.device("one")["restarts"] == 0

    scenario(sim("[{name: one}]"), play)


def _asked(peer: "zmq.Socket[bytes]", frames: list[bytes]) -> ControlReply:
    peer.send_multipart(frames)
    answer = peer.recv_multipart()
    reply = codec.decode(answer[-1], ControlReply)
    assert reply.ok or reply.error
    return reply


def _told(peer: "zmq.Socket[bytes]", frames: list[bytes]) -> None:
    try:
        peer.send_multipart(frames, zmq.NOBLOCK)
    except zmq.Again:
        return  # nobody took the connection


def test_the_fuzz_itself_sends_what_the_codec_refuses() -> None:
    """What the test above sends is indeed no message."""
    chance = random.Random(9)  # noqa: S311 - frames, no secrets
    with pytest.raises(ProtocolError):
        codec.decode(chance.randbytes(300), ControlRequest)
