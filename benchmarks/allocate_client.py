"""Calls Allocate in a row and prints each call's seconds as JSON: a process of its own, as the kubelet is.

Usage: python -m benchmarks.allocate_client SOCKET DEVICE CALLS PAUSE_S
"""

import json
import sys
import time

import grpc

from devd.proto.gen import deviceplugin_pb2 as pb
from devd.proto.gen import deviceplugin_pb2_grpc as rpc

WARM_UP = 200


def main(socket: str, device: str, calls: int, pause_s: float) -> None:
    """Warm the connection up, then measure; ``pause_s`` between calls spreads them over the time that matters."""
    request = pb.AllocateRequest(container_requests=[pb.ContainerAllocateRequest(devices_ids=[device])])
    took: list[float] = []
    with grpc.insecure_channel(f"unix:{socket}") as channel:
        stub = rpc.DevicePluginStub(channel)
        for number in range(WARM_UP + calls):
            began_s = time.perf_counter()
            stub.Allocate(request)
            if number >= WARM_UP:
                took.append(time.perf_counter() - began_s)
                time.sleep(pause_s)
    print(json.dumps(took))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
