"""The front's typed errors. Each names the device or place, what was seen, and what to do about it."""


class DevdError(Exception):
    """Base of every error this package raises on purpose."""


class StartupError(DevdError):
    """Raised when the daemon cannot start: a directory, socket or lock is not to be had."""


class AlreadyRunningError(StartupError):
    """Raised when another live devd holds the runtime directory or a resource's socket."""


class AllocationRefusedError(DevdError):
    """Raised when an Allocate or GetPreferredAllocation must fail; the text reaches the pod's status."""


class PreStartError(DevdError):
    """Raised when a container's devices could not be made ready; the text reaches the pod's events."""


class RegistrationError(DevdError):
    """Raised when the kubelet refused a registration.

    ``permanent`` tells a configuration error (wrong version, bad resource name) from one worth a retry.
    """

    def __init__(self, text: str, *, permanent: bool) -> None:
        super().__init__(text)
        self.permanent = permanent
