"""Runs the lifecycle's property tests against a mutant of the core, in a process of its own.

Usage: mutant_runner.py DIRECTORY, which holds the core's modules. Exit 1 and MUTANT KILLED when one of them
fails, 0 when the mutant survives.
"""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

CORE = ("lease", "moves", "resetting", "lifecycle")
"""The core's modules, each after those it imports."""


def take_the_place(module: str, path: Path) -> None:
    """Have a file stand for one of the core's modules."""
    name = f"devd.daemon.{module}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{path} cannot be imported")
    made = importlib.util.module_from_spec(spec)
    sys.modules[name] = made
    spec.loader.exec_module(made)


def main(directory: Path) -> int:
    """Put the mutant in the core's place, then drive it."""
    for module in CORE:
        take_the_place(module, directory / f"{module}.py")
    # Imported only now that the mutant has taken the core's place.
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    test_lifecycle = importlib.import_module("test_lifecycle")
    quick = settings(
        max_examples=1000,
        stateful_step_count=60,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],  # the shortest failure is of no interest here
        suppress_health_check=list(HealthCheck),
    )
    try:
        importlib.import_module("test_flaps").check_many()
        run_state_machine_as_test(test_lifecycle.LifecycleMachine, settings=quick)
    except Exception:  # noqa: BLE001 - whatever the property test raises is the kill
        print("MUTANT KILLED")
        traceback.print_exc(limit=3)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
