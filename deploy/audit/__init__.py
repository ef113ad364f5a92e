"""Checks devd's dependencies: pins, hashes, ranges, what is installed, advisories. See ``python -m deploy.audit``."""
