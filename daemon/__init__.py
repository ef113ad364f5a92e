"""The front: the process that answers the kubelet, holds the device table and supervises. It never touches a device."""
