"""Code that runs what somebody else wrote, where ruff does not see it: by a shell, by a name in pieces, behind a noqa.

``python -m deploy.audit.code`` looks at every Python file of the project, prints what it finds, one a line, and exits 1
for anything. It reads what stands there and runs nothing: a name that is put together at run time from somewhere else
escapes it. It is there so that nobody does such a thing without being noticed, not against one who wants to hide it.
"""

import argparse
import ast
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
FOLDERS = ("daemon", "workers", "ipc", "proto", "deploy", "benchmarks", "tests")
GENERATED = "proto/gen/"
TESTS = "tests/"
"""Their own commands may be a shell's; all else holds for them as well."""
SECURITY_RULES = frozenset(
    ("S102", "S301", "S302", "S306", "S307", "S506", "S602", "S604", "S605", "S606", "S609", "TID251")
)
"""Of ruff: what runs code or a shell, unpickles, or is banned by name."""
SILENCED = {("tests/escape/attempts.py", "S606")}
"""Where one of them may be silenced: the attempt to start a shell is what that file is for."""
SHELLS = frozenset(("sh", "bash", "dash", "ash", "zsh", "ksh", "csh", "tcsh", "fish", "busybox"))
RUN_TEXT = frozenset(("eval", "exec", "compile", "__import__"))
PICKLING = frozenset(("send_pyobj", "recv_pyobj"))
"""Methods of zmq's sockets; what a name is bound to shows only at run time."""
HIDDEN = PICKLING | RUN_TEXT | {"system", "popen", "getoutput", "getstatusoutput", "create_subprocess_shell"}
"""What nobody fetches by a name in quotes."""
IMPORTING = frozenset(("import_module", "__import__"))
_STARTS = re.compile(r"^(exec[lv]p?e?|spawn[lv]p?e?|posix_spawnp?)$")
_NOQA = re.compile(
    r"#\s*(?:ruff:\s*|flake8:\s*)?noqa\b(?P<codes>\s*:\s*[A-Z]+[0-9]+(?:[\s,]+[A-Z]+[0-9]+)*)?", re.IGNORECASE
)

Say = Callable[[int, str], None]
"""Takes a line's number and what is wrong there."""


def findings(path: str, text: str, banned: frozenset[str]) -> list[str]:
    """Return what is wrong with a file; ``path`` is relative to the tree, ``banned`` are modules nobody imports."""
    found: list[tuple[int, str]] = []
    say: Say = lambda line, words: found.append((line, words))  # noqa: E731 - a name for what is handed on
    for line, code in _silenced(text):
        if (path, code) not in SILENCED:
            say(line, f"silences {code or 'every rule'}, one of those that nobody may")
    for node in ast.walk(ast.parse(text)):
        _look(node, banned, say)
        if not path.startswith(TESTS):
            _look_for_shells(node, say)
    return [f"{path}:{line}: {words}" for line, words in sorted(set(found))]


def _silenced(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, code) of comments that silence a security rule; "" for those that silence all."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        for match in _NOQA.finditer(token.string):
            codes = re.findall(r"[A-Z]+[0-9]+", (match["codes"] or "").upper())
            if not codes:
                yield token.start[0], ""
            for code in codes:
                yield from ((token.start[0], rule) for rule in SECURITY_RULES if rule.startswith(code))


def _look(node: ast.AST, banned: frozenset[str], say: Say) -> None:
    match node:
        case ast.Attribute(attr=name) if name in PICKLING:
            say(node.lineno, f"{name} pickles")
        case ast.Name(id="__builtins__"):
            say(node.lineno, "__builtins__ hides what is called")
        case ast.Name(id=name) if name in RUN_TEXT:
            say(node.lineno, f"{name} runs a text")
        case ast.Attribute(value=ast.Name(id="builtins"), attr=name) if name in RUN_TEXT:
            say(node.lineno, f"{name} runs a text")
        case ast.Dict(keys=keys) if any(key is not None and _text(key) == "shell" for key in keys):
            say(node.lineno, "'shell' among keyword arguments")
        case ast.Call(func=function, args=[first, *_]) if _name(function) in IMPORTING:
            _look_at_import(node.lineno, _text(first), banned, say)
        case ast.Call(func=ast.Name(id="getattr"), args=[_, name, *_]) if _text(name) in HIDDEN | banned:
            say(node.lineno, f"getattr of {_text(name)}")
        case ast.Subscript(value=value, slice=key) if _is_namespace(value) and _text(key) in HIDDEN | banned:
            say(node.lineno, f"{_text(key)} by its name in quotes")


def _look_at_import(line: int, module: str | None, banned: frozenset[str], say: Say) -> None:
    if module is None:
        say(line, "a module is imported by a name that stands nowhere")
    elif not banned.isdisjoint({module, module.partition(".")[0]}):
        say(line, f"{module} is banned")


def _look_for_shells(node: ast.AST, say: Say) -> None:
    match node:
        case ast.List(elts=[program, option, *_]) | ast.Tuple(elts=[program, option, *_]) if _is_shell(program):
            words = _text(option) or ""
            if words.startswith("-") and "c" in words:
                say(node.lineno, "a shell that is given a text")
        case ast.Call(func=function, args=arguments) if _STARTS.match(_name(function)):
            if any(_is_shell(one) for one in arguments):
                say(node.lineno, "a shell is started")


def _is_namespace(node: ast.expr) -> bool:
    """Return whether this is what names are looked up in: ``__dict__``, vars(...), globals(), sys.modules."""
    if isinstance(node, ast.Call):
        return _name(node.func) in {"vars", "globals", "locals"}
    return _name(node) in {"__dict__", "__builtins__", "modules"}


def _is_shell(node: ast.expr) -> bool:
    return (_text(node) or "").rpartition("/")[2] in SHELLS


def _name(function: ast.expr) -> str:
    """Return the last part of what is called."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _text(node: ast.expr) -> str | None:
    """Return a text that stands there, in one piece or several; None for what is made at run time."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            first, second = _text(left), _text(right)
            return None if first is None or second is None else first + second
        case ast.JoinedStr(values=values):
            parts = [_text(one) for one in values]
            return None if None in parts else "".join(part for part in parts if part is not None)
        case ast.FormattedValue(value=value):
            return _text(value)
    return None


def banned_modules(root: Path) -> frozenset[str]:
    """Return what pyproject.toml bans by name. Raises OSError, KeyError."""
    ruff = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]
    return frozenset(ruff["lint"]["flake8-tidy-imports"]["banned-api"])


def check(root: Path) -> list[str]:
    """Return what is wrong with all files of the tree. Raises OSError, KeyError, SyntaxError."""
    banned = banned_modules(root)
    found = []
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*.py")):
            path = file.relative_to(root).as_posix()
            if not path.startswith(GENERATED):
                found += findings(path, file.read_text(encoding="utf-8"), banned)
    return found


def main() -> int:
    """Check, print, and return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit.code", description="Look for code that runs texts.")
    parser.add_argument("--root", type=Path, default=ROOT, help="the source tree (default: this one)")
    found = check(parser.parse_args().root)
    for one in found:
        print(one)
    if not found:
        print("Code: no shell, no pickle, no text that is run, nothing silenced that says so")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
