"""The stub kubelet, strict as the real one's device manager, and the demo that shows devd against it."""
