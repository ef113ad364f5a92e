"""What all tests share."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes tells of the machine, not of the code.
settings.register_profile("devd", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("devd")


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Make a directory with a short path: a socket's may take 107 bytes, and pytest's own use most of them."""
    with tempfile.TemporaryDirectory(prefix="devd-", ignore_cleanup_errors=True) as directory:
        yield Path(directory)
