"""What all sections of the configuration have in common: frozen, strict, and able to become plain values."""

from pydantic import BaseModel, ConfigDict, JsonValue

UNKNOWN = "?"
"""Tag of the stand-ins below: they are there to report everything else in a section whose kind is misspelt."""


class Section(BaseModel):
    """A map of the configuration. Keys are the fields' aliases; what is not declared is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=False)

    def plain(self) -> dict[str, object]:
        """Return the section as plain values under the file's keys, durations in seconds, without unset keys."""
        dumped: dict[str, object] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        return dumped


def tag_of(value: object, key: str, kinds: frozenset[str], default: str = UNKNOWN) -> str:
    """Return the kind a map names under ``key``, ``UNKNOWN`` when it is none of ``kinds``."""
    kind = value.get(key, default) if isinstance(value, dict) else UNKNOWN
    return kind if isinstance(kind, str) and kind in kinds else UNKNOWN


def program_first() -> dict[str, JsonValue]:
    """Return what JSON Schema says of a command: its first entry is an absolute path (``cross`` checks it)."""
    return {"allOf": [{"prefixItems": [{"pattern": "^/"}]}]}


def exactly_one(*keys: str) -> dict[str, JsonValue]:
    """Return what JSON Schema says where exactly one of some keys has to be there (``cross`` checks it)."""
    return {"oneOf": [{"required": [key]} for key in keys]}
