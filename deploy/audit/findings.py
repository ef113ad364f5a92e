"""What the checks have to say."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be: where (file, or file:line), what was found, what to do."""

    where: str
    found: str
    remedy: str
    fatal: bool = True
    """Whether the check fails by it; else it is a warning."""

    def __str__(self) -> str:
        kind = "" if self.fatal else "warning: "
        return f"{kind}{self.where}: {self.found}; {self.remedy}"
