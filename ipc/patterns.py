"""Whether a path fits a configuration's glob, by its text alone: for what scouts list, and what they may list."""

import fnmatch


def has_magic(part: str) -> bool:
    """Return whether a text is a pattern."""
    return any(sign in part for sign in "*?[")


def matches(path: str, pattern: str) -> bool:
    """Return whether a path fits a pattern as a whole, component by component (``**`` as above)."""
    return _fits([one for one in path.split("/") if one], [one for one in pattern.split("/") if one])


def _fits(names: list[str], parts: list[str]) -> bool:
    if not parts:
        return not names
    if parts[0] == "**":
        return any(_fits(names[skip:], parts[1:] or ["*"]) for skip in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], parts[0]) and _fits(names[1:], parts[1:])
