"""The status as people read it."""

import re
from typing import Any

import pytest

from devd.daemon.cli.render import LEAST_WIDTH, age, brief, render
from tests.unit.cli.sample import NOW_S, device, example, resource, tree

COLUMNS = ["RESOURCE", "DEVICE", "HEALTH", "WHY", "SINCE", "PID", "RESTARTS", "LAST PROBE", "SANDBOX"]


def shown(status: dict[str, object], width: int = 120, *, wide: bool = False, colour: bool = False) -> list[str]:
    """Return the lines."""
    return render(status, width, colour=colour, wide=wide, now_s=NOW_S).split("\n")


def cells(line: str) -> list[str]:
    """Return a line's cells: columns stand two spaces apart."""
    return re.split(r" {2,}", line.strip())


def test_the_table_says_what_is_offered_and_why_not() -> None:
    """A headline with the sums, the columns in their order, and a row a device."""
    lines = shown(example())
    assert lines[0] == (
        "devd 1.2.3, pid 99, up 2h05m, on /run/devd: 2 of 3 devices Healthy, 2 of 2 resources registered"
    )
    assert cells(lines[2]) == COLUMNS
    assert cells(lines[3]) == [
        "devd.io/serial", "ttyUSB2", "Healthy", "-", "3m12s", "4711", "0", "pass 2s ago", "basic",
    ]  # fmt: skip
    why = cells(lines[4])[3]
    assert why.startswith("open /dev/ttyUSB10: no answer")
    assert why.endswith("…")
    assert cells(lines[4])[4:] == ["3m12s", "-", "12", "-", "-"]
    assert "Problems:" not in lines


@pytest.mark.parametrize("width", [LEAST_WIDTH, 80, 100, 120, 200])
def test_no_line_is_wider_than_the_terminal(width: int) -> None:
    """Long ids, reasons and problems fit any width a terminal has, and the ill device's health is always seen."""
    long = device(
        "usb-0x1a86-0x7523-serial-0123456789abcdef-port-12345678",
        "a-rather-long-domain.of.some.vendor.example.com/a-rather-long-resource-name",
        health="Unhealthy",
        reason="x " * 200,
        pid=4194303,
        restarts=123456,
    )
    ill = resource("devd.io/x" * 9, discovery={"health": "Unhealthy", "reason": "y " * 200, "problems": ["z " * 200]})
    lines = shown(tree([long, device("a")], [ill]), width)
    assert max(map(len, lines)) <= width
    assert any("Unhealthy" in line for line in lines)


def test_wide_cuts_nothing_and_tells_all() -> None:
    """Every reason, path, registration and sandbox stands there in full."""
    text = "\n".join(shown(example(), 80, wide=True))
    assert "no answer within 2 s: its driver hangs, and the worker was killed" in text
    head = next(line for line in text.split("\n") if line.startswith("RESOURCE"))
    assert cells(head) == [*COLUMNS, "PROBE", "TOOK", "PHASE", "INCARNATION", "LEASE", "NUMA", "REPLICAS", "PATHS"]
    kvm = next(line for line in text.split("\n") if line.startswith("devd.io/kvm "))
    assert cells(kvm)[9:] == ["open", "0.12ms", "serving", "1", "6s", "1", "100", "/dev/kvm"]
    assert "devd.io/serial (node): 2 of 2 devices Healthy, 2 offered; registered for 3m12s by socket" in text
    assert "sandbox basic: no_core, nice; missing: oom_score: EACCES (ttyUSB2, kvm)" in text
    assert "peers_refused (stranger 2)" in text
    assert "/etc/devd/devd.yaml" in text


def test_sandboxes_of_scouts_and_scribe_stand_with_the_workers() -> None:
    """Whoever stands behind a sandbox is named with it: a device, a resource's discovery, the writer of CDI files."""
    full = {"level": "full", "active": ["seccomp"], "missing": {}}
    discovery = {"pid": 12, "health": "Healthy", "reason": "", "age_s": 4.0, "problems": [], "sandbox": full}
    status = tree([device("a", sandbox=full)], [resource("devd.io/a", discovery=discovery)])
    status["daemon"]["cdi"] = {"sandbox": {**full, "level": "partial", "missing": {"cgroup": "EACCES"}}}
    lines = shown(status, 200, wide=True)
    assert "sandbox full: seccomp (a, discovery of devd.io/a)" in lines
    assert "sandbox partial: seccomp; missing: cgroup: EACCES (CDI)" in lines


def test_problems_are_listed_beneath() -> None:
    """What is wrong beside a device's own health is told once, with its resource."""
    status = tree(
        [device("a", wedged=True, health="Unhealthy", reason="wedged")],
        [
            resource("devd.io/a", registration={"state": "refused", "last_error": "bad resource name"}),
            resource(
                "devd.io/b",
                devices=0,
                discovery={
                    "health": "Unhealthy",
                    "reason": "scan hangs",
                    "age_s": 75.0,
                    "problems": ["twice", "twice"],
                },
            ),
        ],
    )
    status["daemon"]["config_error"] = "line 3: no"
    lines = shown(status, 200)
    assert [line.strip() for line in lines[lines.index("Problems:") + 1 :]] == [
        "configuration: line 3: no",
        "devd.io/a: refused: bad resource name",
        "devd.io/b: discovery: scan hangs; the list of devices is 1m15s old",
        "devd.io/b: twice",
        "devd.io/b: no devices",
        "a: wedged: its worker cannot be ended, nothing else may touch the device until it is gone",
    ]


def test_colour_changes_nothing_but_colour() -> None:
    """Without its escapes the painted text is the plain one, and only health and the head are painted."""
    plain, painted = "\n".join(shown(example())), "\n".join(shown(example(), colour=True))
    assert "\x1b" not in plain
    assert re.sub(r"\x1b\[\d+m", "", painted) == plain
    assert "\x1b[32mHealthy\x1b[0m" in painted
    assert "\x1b[31mUnhealthy\x1b[0m" in painted
    assert painted.count("\x1b") == 2 * (1 + 3)


def test_a_device_cannot_write_on_the_terminal() -> None:
    """Escapes and line breaks in a reason are shown, not obeyed."""
    lines = shown(tree([device("a", health="Unhealthy", reason="bad\x1b[2J\nforged\tline")], [resource("r/r")]))
    assert "\x1b" not in "".join(lines)
    assert any(r"bad\x1b[2J forged line" in line for line in lines)


def test_a_daemon_of_another_version_can_be_shown() -> None:
    """Missing, null and odd values show as a dash; nothing raises."""
    odd: list[dict[str, Any]] = [
        {},
        {"devices": None, "resources": 3, "daemon": []},
        {"devices": [{}, "x"], "resources": [{}, None]},
        tree(
            [device("a", since="soon", last_probe={"age_s": "x"}, paths="x", sandbox=[])],
            [resource("r/r", discovery=1)],
        ),
    ]
    for status in odd:
        for wide in (False, True):
            assert shown(status, wide=wide)[0].startswith("devd ")
    assert "no devices" in shown({})


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (0.9, "0s"), (59.9, "59s"), (60, "1m00s"), (192, "3m12s"), (7500, "2h05m"), (273600, "3d04h")],
)
def test_ages_are_said_as_people_say_them(seconds: float, text: str) -> None:
    """Two units at most, and a clock that was set back does not show."""
    assert age(seconds) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.00012, "0.12ms"), (0.034, "34ms"), (1.25, "1.25s")])
def test_calls_are_measured_in_fitting_units(seconds: float, text: str) -> None:
    """Milliseconds below a second, three digits."""
    assert brief(seconds) == text
