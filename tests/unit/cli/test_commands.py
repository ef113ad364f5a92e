"""Commands as a shell sees them: their output, their exit codes, and what they import."""

import json
import os
import pty
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from devd import __version__
from devd.daemon.cli import client
from devd.daemon.cli.exits import CommandError
from devd.daemon.cli.status import narrowed
from devd.ipc.messages import PROTOCOL_VERSION, ControlReply
from tests.unit.cli.sample import daemon, example

WITHIN_S = 30
HEAVY = ("grpc", "pydantic", "asyncio", "google.protobuf", "yaml")
GOOD = "resources:\n  - name: devd.io/null\n    driver: node\n    match: {path: /dev/null}\n"
BAD = GOOD + "    replicas: many\n    colour: red\n"


def devd(*words: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "devd", *words],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
        env={**os.environ, **environment},
    )


def answers(**replies: ControlReply) -> dict[str, ControlReply]:
    """Return what the daemon says; it knows its status unless told otherwise."""
    return {"status": ControlReply(ok=True, error="", data=example()), **replies}


def test_status_shows_the_daemons_word(tmp_path: Path) -> None:
    """Each output has the same tree; JSON and YAML have it whole, in the contract's shape."""
    with daemon(tmp_path / "run", answers()) as asked:
        table = devd("status", "--runtime-dir", tmp_path / "run", COLUMNS="120")
        as_json = devd("status", "-o", "json", DEVD_RUNTIME_DIR=str(tmp_path / "run"))
        as_yaml = devd("status", "-o", "yaml", "--runtime-dir", tmp_path / "run")
        wide = devd("status", "--output=wide", "--runtime-dir", tmp_path / "run")
    assert {one.verb for one in asked} == {"status"}
    assert [one.returncode for one in (table, as_json, as_yaml, wide)] == [0] * 4
    assert json.loads(as_json.stdout) == yaml.safe_load(as_yaml.stdout) == example()
    assert "2 of 3 devices Healthy" in table.stdout
    assert max(map(len, table.stdout.splitlines())) <= 120
    assert "\x1b" not in table.stdout
    assert "INCARNATION" in wide.stdout


@pytest.mark.parametrize(
    ("filters", "devices", "resources"),
    [
        (["kvm"], ["kvm"], ["devd.io/kvm"]),
        (["kvm::42"], ["kvm"], ["devd.io/kvm"]),
        (["devd.io/serial"], ["ttyUSB2", "ttyUSB10"], ["devd.io/serial"]),
        (["serial"], ["ttyUSB2", "ttyUSB10"], ["devd.io/serial"]),
        (["ttyUSB1?", "kvm"], ["ttyUSB10", "kvm"], ["devd.io/serial", "devd.io/kvm"]),
        ([], ["ttyUSB2", "ttyUSB10", "kvm"], ["devd.io/serial", "devd.io/kvm"]),
    ],
)
def test_filters_keep_what_they_name(filters: list[str], devices: list[str], resources: list[str]) -> None:
    """Ids, replica ids, resource names with or without domain, and patterns."""
    kept = narrowed(example(), filters)
    assert kept["devices"] == [one for one in example()["devices"] if one["id"] in devices]
    assert kept["resources"] == [one for one in example()["resources"] if one["name"] in resources]
    assert kept["daemon"] == example()["daemon"]


def test_a_filter_that_fits_nothing_is_an_error() -> None:
    """A typo is told by its name instead of an empty table."""
    with pytest.raises(CommandError, match=r"fits 'ttyusb2', 'x\*'"):
        narrowed(example(), ["kvm", "ttyusb2", "x*"])


@pytest.mark.parametrize("words", [["status"], ["status", "--watch"], ["health"], ["probe", "a"], ["restart", "a"]])
def test_without_a_daemon_the_code_is_3(tmp_path: Path, words: list[str]) -> None:
    """The message names the directory that was looked in."""
    done = devd(*words, "--runtime-dir", tmp_path / "nowhere")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"no daemon runs on {tmp_path / 'nowhere'}" in done.stderr
    assert "one whose directory was removed cannot be asked: restart it" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_daemon_that_does_not_answer_is_code_4_within_2_s(tmp_path: Path) -> None:
    """A stopped daemon still takes connections; the command does not wait for it longer than 2 s."""
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "control.sock"))
        silent.listen()
        done = devd("status", "--runtime-dir", tmp_path)
    assert done.returncode == 4
    # What it waited stands in the message; with the interpreter's own start, 0.2 s on an idle machine, it is under 2 s.
    assert f"the daemon on {tmp_path} does not answer" in done.stderr
    assert f"within {client.ANSWER_WITHIN_S:g} s" in done.stderr
    assert client.ANSWER_WITHIN_S < 1.5


def test_a_daemon_of_another_version_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command and daemon of two protocol versions: one line with both, and what to do."""
    monkeypatch.setattr("devd.ipc.codec.PROTOCOL_VERSION", PROTOCOL_VERSION + 1)
    with daemon(tmp_path / "run", answers()) as asked:
        done = devd("status", "--runtime-dir", tmp_path / "run")
    assert (done.returncode, done.stdout, asked) == (1, "", [])
    assert f"protocol version {PROTOCOL_VERSION + 1}: this side speaks {PROTOCOL_VERSION}" in done.stderr
    assert "use the devd command of that version" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_restart_says_what_is_forgotten_only_when_asked(tmp_path: Path) -> None:
    """``--forget`` goes to the daemon with the order."""
    with daemon(tmp_path / "run", answers(restart=ControlReply(ok=True, error=""))) as asked:
        done = devd("restart", "disk", "--forget", "--runtime-dir", tmp_path / "run")
    assert [(one.verb, dict(one.args)) for one in asked] == [("restart", {"device": "disk", "forget": True})]
    assert (done.returncode, done.stderr) == (0, "")


def test_orders_name_the_device(tmp_path: Path) -> None:
    """Probe and restart reach the daemon with the device's id, and its refusal reaches the operator."""
    replies = answers(
        probe=ControlReply(ok=True, error=""),
        restart=ControlReply(ok=False, error="no device 'x'"),
        health=ControlReply(ok=False, error="fork server gone"),
    )
    with daemon(tmp_path / "run", replies) as asked:
        probe, restart, health = (
            devd(*words, "--runtime-dir", tmp_path / "run")
            for words in (["probe", "ttyUSB2"], ["restart", "x"], ["health"])
        )
    assert [(one.verb, dict(one.args)) for one in asked] == [
        ("probe", {"device": "ttyUSB2"}),
        ("restart", {"device": "x"}),
        ("health", {}),
    ]
    assert (probe.returncode, restart.returncode, health.returncode) == (0, 1, 1)
    assert restart.stderr == "devd: no device 'x'\n"
    assert health.stderr == "devd: fork server gone\n"


def test_health_is_silent_success(tmp_path: Path) -> None:
    """A daemon that is well makes a liveness probe pass."""
    with daemon(tmp_path / "run", answers(health=ControlReply(ok=True, error=""))):
        assert devd("health", "--runtime-dir", tmp_path / "run").returncode == 0


def test_watch_goes_on_until_ctrl_c(tmp_path: Path) -> None:
    """Watching gives one JSON document a line, survives the daemon's end, and ends with 130 and no traceback."""
    command = [sys.executable, "-m", "devd", "status", "-o", "json", "--watch", "--interval", "0.1"]
    with daemon(tmp_path / "run", answers()) as asked:
        watch = subprocess.Popen(
            [*command, "--runtime-dir", tmp_path / "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert watch.stdout is not None
        assert watch.stderr is not None
        first, second = watch.stdout.readline(), watch.stdout.readline()
        assert json.loads(first) == json.loads(second) == example()
        assert len(asked) >= 2
    assert "no daemon runs" in watch.stderr.readline()
    watch.send_signal(signal.SIGINT)
    _, error = watch.communicate(timeout=WITHIN_S)
    assert watch.returncode == 130
    assert "Traceback" not in error


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    """A pipe into head ends with SIGPIPE's code and without a word."""
    with daemon(tmp_path / "run", answers()):
        command = [sys.executable, "-m", "devd", "status", "--watch", "--interval", "0.1"]
        watch = subprocess.Popen(
            [*command, "--runtime-dir", tmp_path / "run"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert watch.stdout is not None
        assert watch.stderr is not None
        watch.stdout.readline()
        watch.stdout.close()
        assert watch.wait(WITHIN_S) == 141
        assert watch.stderr.read() == b""
        watch.stderr.close()


@pytest.mark.parametrize(("no_colour", "painted"), [("", True), ("1", False)])
def test_on_a_terminal_the_page_is_redrawn_and_cut(tmp_path: Path, no_colour: str, painted: bool) -> None:  # noqa: FBT001 - a parameter
    """Each picture is drawn over the last from the top, no taller than the terminal, in colour unless unwanted."""
    environment = {**os.environ, "NO_COLOR": no_colour, "TERM": "xterm", "LINES": "6", "COLUMNS": "100"}
    command = [sys.executable, "-m", "devd", "status", "--watch", "--interval", "0.1"]
    master, slave = pty.openpty()
    with daemon(tmp_path / "run", answers()), open(master, "rb", buffering=0, closefd=True) as terminal:  # noqa: PTH123 - a descriptor
        watch = subprocess.Popen([*command, "--runtime-dir", tmp_path / "run"], stdout=slave, env=environment)
        os.close(slave)
        seen = b""
        while seen.count(b"\x1b[H") < 3:
            seen += terminal.read(4096)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(WITHIN_S) == 130
    page = seen.split(b"\x1b[H")[1]
    assert page.count(b"\n") == 5
    assert b"2 more lines" in page
    assert page.endswith(b"\x1b[J")
    assert (b"\x1b[32mHealthy" in page) == painted


def test_output_that_cannot_be_written_is_an_error() -> None:
    """A full disk behind the output is told, with code 1."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "devd", "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "devd: the output cannot be written: No space left on device\n")


def test_check_tells_all_errors(tmp_path: Path) -> None:
    """A good file is one line and 0; a bad one every error with its place and 2, on stderr."""
    for name, text in (("good", GOOD), ("bad", BAD)):
        (tmp_path / name).write_text(text)
    good, bad, none = (devd("check", tmp_path / name) for name in ("good", "bad", "none"))
    assert (good.returncode, good.stdout) == (0, f"{tmp_path / 'good'}: ok, 1 resource: devd.io/null\n")
    assert (bad.returncode, bad.stdout, none.returncode) == (2, "", 2)
    assert f"{tmp_path / 'bad'}:5:" in bad.stderr
    assert f"{tmp_path / 'bad'}:6:" in bad.stderr
    assert bad.stderr.endswith("2 errors\n")
    assert "ENOENT" in none.stderr


def test_schema_and_version_are_printed() -> None:
    """The schema is JSON, the version the package's."""
    assert isinstance(json.loads(devd("schema").stdout), dict)
    assert devd("version").stdout == f"devd {__version__}\n"


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["frob"],
        ["status", "-o", "xml"],
        ["status", "--watch", "--interval", "0"],
        ["status", "--watch", "--interval", "nan"],
        ["run"],
        ["check"],
        ["probe"],
        ["demo", "--seconds", "-1"],
        ["run", "--config", "x", "--log-level", "loud"],
    ],
)
def test_wrong_arguments_are_code_2(words: list[str]) -> None:
    """The usage goes to stderr."""
    done = devd(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: devd" in done.stderr


@pytest.mark.parametrize("words", [["version"], ["status"], ["health"], ["status", "-o", "json"]])
def test_quick_commands_import_nothing_heavy(tmp_path: Path, words: list[str]) -> None:
    """What a person or a liveness probe waits for loads neither gRPC, pydantic, YAML nor asyncio."""
    script = (
        "import sys\nfrom devd.daemon.cli import main\ncode = main(sys.argv[1:])\n"
        f"print(code, [one for one in {HEAVY!r} if one in sys.modules], file=sys.stderr)\n"
    )
    with daemon(tmp_path / "run", answers(health=ControlReply(ok=True, error=""))):
        done = subprocess.run(
            [sys.executable, "-c", script, *words],
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=True,
            env={**os.environ, "DEVD_RUNTIME_DIR": str(tmp_path / "run")},
        )
    assert done.stderr == "0 []\n"
