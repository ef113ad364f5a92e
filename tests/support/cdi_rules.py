"""What a container runtime demands of a CDI specification before it takes any device of it, after CDI's own schema."""

import json
import re
from pathlib import Path
from typing import Any

VERSIONS = ("0.3.0", "0.4.0", "0.5.0", "0.6.0")
_LABEL = r"[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?"
KIND = re.compile(rf"{_LABEL}/{_LABEL}")
DEVICE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.:-]*[A-Za-z0-9])?")
NODE_KEYS = {"path", "hostPath", "type", "major", "minor", "fileMode", "permissions", "uid", "gid"}
MOUNT_KEYS = {"hostPath", "containerPath", "options", "type"}


def devices(text: str) -> dict[str, dict[str, Any]]:
    """Return the edits of each device of a specification that keeps all rules. Raises AssertionError."""
    spec = json.loads(text)
    assert set(spec) == {"cdiVersion", "kind", "devices"}
    assert KIND.fullmatch(spec["kind"]), spec["kind"]
    assert spec["devices"], "a specification without devices is refused"
    found: dict[str, dict[str, Any]] = {}
    for device in spec["devices"]:
        assert set(device) == {"name", "containerEdits"}
        assert DEVICE.fullmatch(device["name"]), device["name"]
        assert device["name"] not in found, "a device that stands twice cannot be resolved"
        found[device["name"]] = device["containerEdits"]
        _check(device["containerEdits"])
    assert spec["cdiVersion"] == _least_version(spec["kind"], found)
    return found


def standing(file: Path) -> dict[str, dict[str, Any]]:
    """Return the devices of a file, none where there is no file."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    return devices(text)


def _check(edits: dict[str, Any]) -> None:
    assert set(edits) <= {"deviceNodes", "mounts"}
    assert edits, "a device without edits is refused"
    for node in edits.get("deviceNodes", ()):
        assert set(node) <= NODE_KEYS
        assert node["path"].startswith("/")
        assert node["type"] in {"b", "c", "u", "p"}
        assert node["major"] > 0, "zero counts as left out: the runtime would stat what may be a link"
        assert set(node["permissions"]) <= set("rwm")
    for mount in edits.get("mounts", ()):
        assert set(mount) <= MOUNT_KEYS
        assert mount["hostPath"].startswith("/")
        assert mount["containerPath"].startswith("/")


def _least_version(kind: str, found: dict[str, dict[str, Any]]) -> str:
    nodes = [node for edits in found.values() for node in edits.get("deviceNodes", ())]
    mounts = [mount for edits in found.values() for mount in edits.get("mounts", ())]
    if "." in kind.partition("/")[2]:
        return "0.6.0"
    if any("hostPath" in node for node in nodes) or any(not name[0].isalpha() for name in found):
        return "0.5.0"
    return "0.4.0" if any("type" in mount for mount in mounts) else "0.3.0"
