"""ZeroMQ between devd's own processes: endpoints, messages, codec, the health bus, the command and control channels."""
