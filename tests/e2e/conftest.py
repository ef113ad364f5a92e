"""The end-to-end tests deploy to a cluster, so they run only where they are asked for by name."""

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEEDED = ("KUBECONFIG", "DEVD_IMAGE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip them in a run of all tests, whatever the environment has, and where there is no cluster."""
    reason = _reason_not_to(config)
    if reason:
        for item in items:
            if item.path.is_relative_to(HERE):
                item.add_marker(pytest.mark.skip(reason=reason))


def _reason_not_to(config: pytest.Config) -> str:
    base = config.invocation_params.dir
    asked = [(base / argument.partition("::")[0]).resolve() for argument in config.args]
    if not any(path.is_relative_to(HERE) for path in asked):
        return "deploys to a cluster: only when asked for, as in 'make e2e'"
    missing = [name for name in NEEDED if not os.environ.get(name)]
    return f"needs a cluster: set {' and '.join(missing)}" if missing else ""
