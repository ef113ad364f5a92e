"""The process that tries: one for all attempts of a run of tests, so that each costs forks and no start of Python."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
ANSWER_S = 60.0
"""How long one request may take; it takes some hundredths."""


class Inside:
    """``python -m tests.escape.inside`` behind a prefix of ``unprivileged()``'s making, none as this user."""

    def __init__(self, prefix: Sequence[str] = ()) -> None:
        drop = ["--drop"] if prefix else []
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.escape.inside", *drop],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
        )

    def found(
        self, attempt: str, arguments: Mapping[str, str], kind: str, own: str, layers: Sequence[str]
    ) -> dict[str, str]:
        """Return what each mode of an attempt came to: an errno's name, or "" where it went well."""
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("started without pipes")
        request = {"attempt": attempt, "arguments": arguments, "kind": kind, "own": own, "layers": list(layers)}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = b""
        while not line.endswith(b"\n"):
            if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
                raise TimeoutError(f"{attempt} by {kind}: no answer within {ANSWER_S:g} s")
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                raise AssertionError(f"{attempt} by {kind}: the process that tries has ended")
            line += data
        answer: dict[str, str] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()
