"""The configuration's JSON Schema, for editors: the models' own, put in the terms of the file.

It accepts whatever the loader accepts, and refuses wrong keys, types, words and patterns. What needs more than one
value (unique names, order of a range, bounds of a duration) only the loader checks.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from devd.daemon.config.model import Config
from devd.daemon.config.rules import BOUNDS_KEY, DURATION_PATTERN, duration_text
from devd.daemon.config.section import UNKNOWN

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12), with a description for every key."""
    schema = Config.model_json_schema(by_alias=True, schema_generator=_FileSchema)
    _show_bounds(schema)
    return {"$schema": DIALECT, **schema, "title": "devd configuration"}


def _show_bounds(schema: Any) -> None:
    """Put bounds into the descriptions, which is what editors show."""
    if isinstance(schema, dict):
        bounds = schema.pop(BOUNDS_KEY, None)
        if bounds is not None:
            schema["description"] += f" Allowed: {bounds}."
    below = schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ()
    for one in below:
        _show_bounds(one)


class _FileSchema(GenerateJsonSchema):
    """Pydantic's generator, corrected where it shows our insides instead of the file."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - the name is pydantic's
        """Leave out titles that only repeat the key."""
        return False

    def tagged_union_schema(self, schema: core_schema.TaggedUnionSchema) -> JsonSchemaValue:
        """Leave out the stand-ins for unknown kinds."""
        choices = {tag: one for tag, one in schema["choices"].items() if tag != UNKNOWN}
        return super().tagged_union_schema({**schema, "choices": choices})

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        """Refuse keys that break their rule, where pydantic only leaves their values unchecked."""
        return {
            "type": "object",
            "propertyNames": self.generate_inner(schema["keys_schema"]),
            "additionalProperties": self.generate_inner(schema["values_schema"]),
        }

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        """Show durations as they are written, and no sections: their keys have defaults of their own."""
        shown = super().default_schema(schema)
        default = shown.get("default")
        if isinstance(default, dict) or default is None:
            shown.pop("default", None)
        elif shown.get("pattern") == DURATION_PATTERN and isinstance(default, int | float):
            shown["default"] = duration_text(default)
        return shown
