# ruff: noqa: INP001 - a script, in no package
"""Write the image's bill of materials: CycloneDX 1.5, the same bytes for the same content.

Debian's packages are read from a copy of dpkg's status file, Python's from the environment that runs this.
"""

import json
import sys
from importlib import metadata
from pathlib import Path

Component = dict[str, object]


def debian(status: str) -> list[Component]:
    """Return a component for each installed package of a dpkg status file."""
    found: list[Component] = []
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and line[0] != " ")
        if fields.get("Status", "").endswith(" installed"):
            name, version = fields["Package"], fields["Version"]
            purl = (
                f"pkg:deb/debian/{name}@{version.replace(':', '%3A').replace('+', '%2B')}?arch={fields['Architecture']}"
            )
            found.append({"type": "library", "name": name, "version": version, "purl": purl})
    return found


def python() -> list[Component]:
    """Return a component for each distribution in this environment."""
    found: list[Component] = []
    for one in metadata.distributions():
        name = one.metadata["Name"].lower().replace("_", "-")
        version = one.version
        kind = "application" if name == "devd" else "library"
        component: Component = {"type": kind, "name": name, "version": version, "purl": f"pkg:pypi/{name}@{version}"}
        licence = one.metadata.get("License-Expression")
        if licence:
            component["licenses"] = [{"expression": licence}]
        found.append(component)
    return found


def main() -> int:
    """Print the bill of materials."""
    components = debian(Path(sys.argv[1]).read_text(encoding="utf-8")) + python()
    components.sort(key=lambda one: str(one["purl"]))
    bill = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": components}
    json.dump(bill, sys.stdout, indent=1, sort_keys=True)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
