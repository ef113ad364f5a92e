"""A kubectl that answers by rules and writes down how it was called: for what the end-to-end tests do when it fails."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

PROGRAM = f"""#!{sys.executable}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
words = " ".join(sys.argv[1:])
given = sys.stdin.read() if "-" in sys.argv else ""
with (here / "calls").open("a") as calls:
    calls.write(json.dumps([words, given]) + "\\n")
for number, (part, answers) in enumerate(json.loads((here / "rules").read_text())):
    if part in words:
        seen = here / f"seen{{number}}"
        count = len(seen.read_text()) if seen.exists() else 0
        seen.write_text("." * (count + 1))
        code, out, complaint = answers[min(count, len(answers) - 1)]
        sys.stderr.write(complaint)
        sys.stdout.write(out)
        sys.exit(code)
"""

Answer = tuple[int, str, str]
"""Exit code, what it prints, and its complaint."""


def says(text: str) -> Answer:
    """Return the answer of a call that goes well."""
    return 0, text, ""


def fails(complaint: str) -> Answer:
    """Return the answer of a call that fails."""
    return 1, "", complaint


@dataclass(frozen=True)
class FakeKubectl:
    """The program below a directory. A call gets its rule's answers in order, the last one for ever.

    The first rule whose text is in the call's words is its rule; without one it goes well and prints nothing.
    """

    directory: Path

    def __post_init__(self) -> None:
        self.program.write_text(PROGRAM, encoding="utf-8")
        self.program.chmod(0o755)
        self.rules()

    @property
    def program(self) -> Path:
        """What KUBECTL is to name."""
        return self.directory / "kubectl"

    def rules(self, *rules: tuple[str, list[Answer]]) -> None:
        """Set the rules: a part of a call's words, and its answers."""
        (self.directory / "rules").write_text(json.dumps(rules), encoding="utf-8")

    def calls(self) -> list[tuple[str, str]]:
        """Return the words and the standard input of each call so far."""
        file = self.directory / "calls"
        lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
        return [(words, given) for words, given in map(json.loads, lines)]
