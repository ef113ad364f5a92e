"""File or text to a ``Config``, or one error with everything that is wrong."""

import errno
from pathlib import Path

from pydantic import ValidationError

from devd.daemon.config import cross
from devd.daemon.config.document import MAX_BYTES, Document, parse
from devd.daemon.config.errors import ConfigError, Problem
from devd.daemon.config.model import Config
from devd.daemon.config.translate import problem_at, problems_of


def load(path: Path) -> Config:
    """Return the configuration in a file. Raises ConfigError with all problems: unreadable, not YAML, wrong values."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "error")
        raise ConfigError(str(path), [_whole_file(f"cannot be read: {name} ({error.strerror})")]) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x}"
        raise ConfigError(str(path), [Problem(line, "", found, "UTF-8", "not UTF-8 text")]) from error
    return load_text(text, str(path))


def load_text(text: str, source: str = "<text>") -> Config:
    """Return the configuration in a text; ``source`` names it in messages. Raises ConfigError with all problems."""
    document = parse(text)
    if document.root is None:
        raise ConfigError(source, document.problems)
    problems = list(document.problems)
    config = _validated(document, problems)
    problems += cross.check(document.data, document.root)
    if config is None or problems:
        raise ConfigError(source, problems)
    return config


def _validated(document: Document, problems: list[Problem]) -> Config | None:
    root = document.root
    if root is None or not isinstance(document.data, dict):
        if root is not None:
            problems.append(problem_at(root, (), "a map with the keys kubelet and resources is needed", "a map"))
        return None
    try:
        return _inherited(Config.model_validate(document.data))
    except ValidationError as error:
        problems += problems_of(error, root)
        return None


def _inherited(config: Config) -> Config:
    """Return the configuration with what resources take over from the file spelt out."""
    resources = tuple(
        one if one.sandbox is not None else one.model_copy(update={"sandbox": config.sandbox})
        for one in config.resources
    )
    return config.model_copy(update={"resources": resources})


def _whole_file(message: str) -> Problem:
    return Problem(0, "", "", "", message)
