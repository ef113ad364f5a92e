"""A worker that was taken over tries to get out: what it gets, and which layers stop it each by itself.

Each attempt is made without a sandbox as well, where it must work: else its refusal would prove nothing.
"""

import errno
import os
from pathlib import Path

import pytest

from devd.workers.drivers import KINDS
from devd.workers.sandbox import landlock
from tests.escape.cases import (
    COMMANDS,
    DRIVERS,
    EVERYBODY,
    KEEPS_A_CAPABILITY,
    ROOTS,
    ROOTS_COMMANDS,
    SCOUTS,
    Case,
)
from tests.escape.servers import Inside
from tests.support.unprivileged import NOBODY

IS_ROOT = os.geteuid() == 0
NOT_EVEN_WITHOUT = {"EPERM", "EACCES"}
"""A container's own walls: what they refuse to everybody proves nothing here."""
NO_SUCH_THING = errno.errorcode[errno.EOPNOTSUPP]
ROOTS_LAYERS = {"identity", "capabilities", "network_namespace", "process_limit"}
"""Layers that only root can put on (or that take what only root has)."""


def _found(case: Case, arguments: dict[str, str], layers: list[str], inside: Inside) -> dict[str, str]:
    """Return what each mode of an attempt came to."""
    return inside.found(case.attempt, arguments, case.kind, case.own, layers)


def _check(case: Case, arguments: dict[str, str], layers: dict[str, str], inside: Inside) -> None:
    found = _found(case, arguments, list(layers), inside)
    control = found.pop("nothing")
    if control in NOT_EVEN_WITHOUT:
        pytest.skip(f"refused here even without a sandbox: {control}")
    if control == NO_SUCH_THING:
        pytest.skip("there is no such thing on this machine, or this file system")
    # A kernel built without it: no layer but the filter comes before that answer.
    if control == "ENOSYS" != case.without:
        assert found["full"] == case.full
        return
    assert control == case.without
    assert found == {"full": case.full, **layers}


def _name(case: Case) -> str:
    return f"{case.kind}-{case.attempt}-{case.own}"


def _needs_landlock() -> None:
    try:
        version = landlock.abi()
    except OSError as error:
        pytest.skip(f"no Landlock on this kernel: {error}")
    if version < landlock.ABI_SCOPES:
        pytest.skip(f"Landlock ABI {version}: these expectations are those of {landlock.ABI_SCOPES}")


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="puts on layers that only root can")
@pytest.mark.parametrize(
    "case", [*EVERYBODY, *ROOTS, *COMMANDS, *ROOTS_COMMANDS, *KEEPS_A_CAPABILITY, *SCOUTS], ids=_name
)
def test_worker_of_roots_does_not_get_out(case: Case, scene: dict[str, str], inside: Inside) -> None:
    """Under root every attempt works without the sandbox, and is refused in it and behind each layer that counts."""
    _needs_landlock()
    _check(case, scene, case.layers, inside)


@pytest.mark.root
@pytest.mark.skipif(not IS_ROOT, reason="keeps capabilities that only root has to give")
@pytest.mark.parametrize("case", DRIVERS, ids=_name)
def test_worker_of_no_driver_gets_out(case: Case, scene: dict[str, str], inside: Inside) -> None:
    """With all that a driver's signals and resets declare, each attempt is refused but for what is known to be left."""
    _needs_landlock()
    found = _found(case, scene, [], inside)
    if found["nothing"] in {*NOT_EVEN_WITHOUT, NO_SUCH_THING}:
        pytest.skip(f"refused here even without a sandbox: {found['nothing']}")
    assert found["full"] == case.full


@pytest.mark.parametrize("case", [*EVERYBODY, *COMMANDS, *SCOUTS], ids=_name)
def test_worker_of_an_ordinary_user_does_not_get_out(
    case: Case, scene: dict[str, str], inside_as_nobody: Inside
) -> None:
    """Under an ordinary user, whose uid all workers share, the other layers refuse it still."""
    _needs_landlock()
    if IS_ROOT:
        folder = Path(scene["own"]).parent
        for path in (folder, *folder.rglob("*")):
            os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    layers = {name: code for name, code in case.layers.items() if name not in ROOTS_LAYERS}
    if not layers:
        pytest.skip("only a uid of its own stops this")
    _check(case, scene, layers, inside_as_nobody)


@pytest.mark.parametrize("kind", ["open", "exec"])
def test_worker_reaches_its_own_node(kind: str, scene: dict[str, str], inside: Inside) -> None:
    """What a worker is for still works in the sandbox: its own node opens."""
    case = Case("own_node", "", {}, kind=kind)
    assert _found(case, scene, [], inside) == {"nothing": "", "full": ""}


@pytest.mark.parametrize("driver", ["node", *sorted(KINDS)])
def test_scout_lists_the_nodes(driver: str, scene: dict[str, str], inside: Inside) -> None:
    """What a scout is for still works in the sandbox: the names below /dev can be read."""
    _needs_landlock()
    found = _found(Case("list_nodes", "", {}, kind=f"scout-{driver}"), scene, [], inside)
    assert found == {"nothing": "", "full": ""}


def test_no_layer_stops_everything() -> None:
    """Landlock, the uid and the filter each stop something that the other two let through: all three are needed."""
    strong = {"landlock", "identity", "seccomp"}
    alone = {name for case in (*EVERYBODY, *ROOTS) for name in strong if strong & set(case.layers) == {name}}
    assert alone == strong
