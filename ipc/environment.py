"""Which of the daemon's variables its workers get, and which of a worker's its commands get: named ones and no others.

The daemon's environment may hold credentials (a registry's token, a proxy's password), and each process that was taken
over can read its own.
"""

from collections.abc import Mapping

FOR_COMMANDS = ("PATH", "LD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""What a program of the operator's needs to run as it does in his shell."""
FOR_WORKERS = (
    *FOR_COMMANDS,
    *("LANGUAGE", "LC_CTYPE", "LC_MESSAGES", "LC_COLLATE", "LC_NUMERIC", "LC_TIME"),
    *("LD_PRELOAD", "VIRTUAL_ENV"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "PYTHONUSERBASE", "PYTHONPYCACHEPREFIX"),
    *("PYTHONDONTWRITEBYTECODE", "PYTHONOPTIMIZE", "PYTHONHASHSEED", "PYTHONUTF8", "PYTHONIOENCODING"),
    *("PYTHONCOERCECLOCALE", "PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONFAULTHANDLER", "PYTHONMALLOC"),
    *("PYTHONTRACEMALLOC", "PYTHONASYNCIODEBUG", "COVERAGE_PROCESS_START"),
)
"""What the interpreter and its libraries need to start where the daemon's own did."""
MORE = "DEVD_WORKER_ENV"
"""Names further variables that workers get, with commas between: what a vendor's library or a third party's driver
reads."""


def for_workers(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of the daemon's environment the fork server and its workers get."""
    more = (name.strip() for name in environment.get(MORE, "").split(","))
    return _named(environment, (*FOR_WORKERS, *more))


def for_commands(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of a worker's environment a command of the operator's gets."""
    return _named(environment, FOR_COMMANDS)


def _named(environment: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: environment[name] for name in names if name in environment}
