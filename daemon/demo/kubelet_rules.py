"""What the kubelet demands and allows: names, versions, limits and pauses, in its own words and numbers.

Names and error texts are those of the device manager (pkg/kubelet/cm/devicemanager) of Kubernetes 1.36.
"""

import re
from dataclasses import dataclass

import grpc

API_VERSION = "v1beta1"
HEALTHY = "Healthy"
UNHEALTHY = "Unhealthy"
MAX_DEVICE_ID_CHARS = 63
"""By the API's comment on Device.ID; the kubelet itself does not check."""
MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""gRPC's default receive limit, which the kubelet's client keeps: a longer device list ends the stream."""
PRE_START_DEADLINE_S = 30.0
"""The kubelet's deadline on PreStartContainer, exactly (KubeletPreStartContainerRPCTimeoutInSecs)."""

_QUOTA_PREFIX = "requests."
_MAX_DOMAIN_CHARS = 253
_MAX_NAME_CHARS = 63
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_NAME = re.compile(r"(?:[A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")


class RegistrationRefusedError(Exception):
    """Raised when the kubelet does not take a plugin in; the text is what the plugin gets to read."""


class AdmissionError(Exception):
    """Raised when the kubelet fails a pod (UnexpectedAdmissionError): it is not tried again."""


class ContainerStartError(Exception):
    """Raised when a start attempt of a container fails; the kubelet would try again with its container backoff."""


@dataclass(frozen=True, slots=True)
class KubeletTiming:
    """The kubelet's own limits and pauses, in seconds. Tests may shorten them."""

    dial_s: float = 10.0
    """Blocking dial to a plugin, in Register and in the plugin watcher."""
    grace_s: float = 300.0
    """From the end of the stream until the capacity is 0."""
    get_info_s: float = 1.0
    notify_s: float = 5.0
    reconcile_s: float = 1.0
    """Period of the plugin watcher's loop."""
    retry_s: float = 0.5
    """First pause after a failed try of the plugin watcher; doubles with each, up to ``retry_max_s``."""
    retry_max_s: float = 122.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How the stub misbehaves; as made, it does not. A hang lasts until the behaviour is set to one without it."""

    register_delay_s: float = 0.0
    """Seconds a valid Register waits before the plugin is dialled."""
    register_hang: bool = False
    """A valid Register is not dealt with, nor answered."""
    register_error: str = ""
    """A valid Register is refused with this text."""
    register_code: grpc.StatusCode = grpc.StatusCode.UNKNOWN
    """The status of refusals; the real kubelet knows UNKNOWN alone."""
    dial_back: bool = True
    """False: the plugin is never dialled, and Register fails once the dial's time is over."""
    options_hang: bool = False
    """The plugin is asked for its options, but its answer never gets to the kubelet."""
    stream_hang: bool = False
    """Register is answered, but ListAndWatch not opened."""


def check_version(offered: str) -> None:
    """Raise RegistrationRefusedError unless it is the one version the kubelet speaks."""
    if offered != API_VERSION:
        raise RegistrationRefusedError(
            f'requested API version "{offered}" is not supported by kubelet. Supported version is ["{API_VERSION}"]'
        )


def check_resource_name(name: str) -> None:
    """Raise RegistrationRefusedError unless it is the name of an extended resource."""
    if not is_extended_resource(name):
        raise RegistrationRefusedError(f'the ResourceName "{name}" is invalid')


def is_extended_resource(name: str) -> bool:
    """Return whether the kubelet takes the name for an extended resource: ``domain/name``, not one of its own."""
    if "/" not in name or "kubernetes.io/" in name or name.startswith(_QUOTA_PREFIX):
        return False
    # The name must still be a qualified one when it is made the name of a quota.
    domain, _, rest = f"{_QUOTA_PREFIX}{name}".partition("/")
    return (
        len(domain) <= _MAX_DOMAIN_CHARS
        and _DOMAIN.fullmatch(domain) is not None
        and len(rest) <= _MAX_NAME_CHARS
        and _NAME.fullmatch(rest) is not None
    )


def go_error(error: grpc.aio.AioRpcError) -> str:
    """Return a failed call's error as grpc-go writes it, since that text reaches a pod's status."""
    code = "".join(word.capitalize() for word in error.code().name.split("_"))
    return f"rpc error: code = {code} desc = {error.details()}"
