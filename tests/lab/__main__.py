"""``make lab``: starts the guest, does at its machine what its scenarios ask for, and prints what they saw.

``--set-up`` only fetches what the guest is made of.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.lab import machine

LIMIT_S = 540.0
"""The guest is ended after this, whatever it does."""
MARK = "LAB "


class Monitor:
    """QEMU's own monitor: plugs, unplugs and breaks what the guest's scenarios name."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._file = self._socket.makefile("rw", encoding="utf-8")
        self._file.readline()
        self.ask({"execute": "qmp_capabilities"})

    def ask(self, order: dict[str, object]) -> dict[str, object]:
        """Carry an order out and return the answer."""
        self._file.write(json.dumps(order) + "\n")
        self._file.flush()
        while True:
            answer = dict(json.loads(self._file.readline()))
            if "event" not in answer:
                return answer


def main() -> int:
    """Run the lab; exit 0 when every scenario passed, and at least one ran."""
    began_s = time.monotonic()
    try:
        machine.fetch()
    except RuntimeError as error:
        print(f"the lab cannot be set up: {error}", file=sys.stderr)
        return 1
    if "--set-up" in sys.argv:
        return 0
    initrd = machine.initramfs(sys.executable)
    with TemporaryDirectory(prefix="devd-lab-") as folder:
        rows, ended = _watched(machine.command(initrd, Path(folder) / "qmp"), Path(folder) / "qmp")
    print(_table(rows))
    passed = sum(bool(row["ok"]) for row in rows)
    print(f"in {time.monotonic() - began_s:.0f} s:")
    print(f"lab: {passed} passed, {len(rows) - passed} failed")
    if not ended:
        print("the guest did not come to its end", file=sys.stderr)
    return 0 if rows and ended and passed == len(rows) else 1


def _watched(command: list[str], qmp: Path) -> tuple[list[dict[str, object]], bool]:
    rows: list[dict[str, object]] = []
    ended = False
    monitor: Monitor | None = None
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, errors="replace") as guest:
        limit = threading.Timer(LIMIT_S, guest.kill)
        limit.start()
        for line in guest.stdout or ():
            text = line.strip()
            if not text.startswith(MARK):
                print(f"  | {text}", file=sys.stderr)
                continue
            try:
                said = json.loads(text.removeprefix(MARK))
            except ValueError:
                print(f"  | {text}", file=sys.stderr)
                continue
            if "qmp" in said:
                monitor = monitor or Monitor(qmp)
                answer = monitor.ask(said["qmp"])
                if "error" in answer:
                    print(f"  | QEMU: {answer['error']}", file=sys.stderr)
            elif "end" in said:
                ended = True
            else:
                rows.append(said)
                print(f"  {_word(said)} {said['what']}: {said['seen']}", file=sys.stderr)
        limit.cancel()
    return rows, ended


def _word(row: dict[str, object]) -> str:
    return "PASS" if row["ok"] else "FAIL"


def _table(rows: list[dict[str, object]]) -> str:
    head = ("", "driver", "what", "seconds in the guest", "seen")
    cells = [(_word(one), str(one["driver"]), str(one["what"]), str(one["took_s"]), str(one["seen"])) for one in rows]
    widths = [max(len(row[column]) for row in (head, *cells)) for column in range(len(head) - 1)]
    return "\n".join(
        "  ".join((*(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)), row[-1]))
        for row in (head, *cells)
    )


if __name__ == "__main__":
    sys.exit(main())
