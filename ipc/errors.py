"""The errors of the IPC layer, split into the peer's fault and ours."""


class IpcError(Exception):
    """Base of everything this package raises on purpose."""


class ProtocolError(IpcError):
    """Raised when what a peer sent is not a message of this protocol: the peer's fault, never ours."""


class EndpointError(IpcError):
    """Raised when a socket path cannot be used: too long, in use, or not ours to remove."""


class PeerUnavailableError(IpcError):
    """Raised when nobody listens on an endpoint."""


class PeerSilentError(IpcError):
    """Raised when a peer took a request and did not answer in time."""
