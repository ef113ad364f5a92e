"""devd: a Kubernetes device plugin daemon whose RPC process never touches a device."""

__version__ = "0.1.0"
