"""NVIDIA's XIDs: what each asks for. Data only, after NVIDIA's XID catalogue of mid-2026; the configuration may differ.

Plugins and clouds disagree on 31, 43, 45, 63, 68, 94 and 109; where they do this follows the catalogue.
"""

from collections.abc import Mapping
from typing import Literal

Cure = Literal["ignore", "app", "ask", "reset", "reboot", "vm", "check"]
"""What an XID asks for: nothing; the application's restart; NVML's recovery action (and a reset where that is not
offered); a reset of the GPU; a reboot of the node; a restart of the virtual machine; a look at seating and power."""

CURES: Mapping[Cure, frozenset[int]] = {
    "ignore": frozenset(
        {14, 37, 38, 43, 44, 63, 66, 67, 92, 93, 106, 107, 108, 121, 137, 141, 152, 153, 157, 160, 161}
    ),
    "app": frozenset(
        {8, 11, 13, 25, 31, 32, 39, 40, 41, 60, 68, 69, 70, 71, 72, 75, 76, 77, 80, 82, 83, 84, 85, 86, 88, 89, 94}
        | set(range(96, 106))
        | set(range(126, 136))
        | {139}
    ),
    "reset": frozenset({46, 62, 64, 95, 109, 110, 119, 120, 136, 140, 143, 155, 156, 158}),
    "reboot": frozenset({79}),
    "vm": frozenset({151}),
    "check": frozenset({54}),
    "ask": frozenset({45, 48, 74, 154} | set(range(144, 151))),
}

OTHERWISE: Mapping[int, Cure] = {45: "app"}
"""Of those to ask about: what they mean where NVML tells no recovery action; a reset for all others."""

NAMES: Mapping[int, str] = {
    8: "GPU stopped processing",
    13: "graphics engine exception",
    31: "GPU memory page fault",
    32: "invalid or corrupted push buffer stream",
    38: "driver firmware error",
    43: "GPU stopped processing",
    45: "preemptive cleanup, due to previous errors",
    48: "double bit ECC error",
    54: "auxiliary power is not connected",
    62: "internal micro-controller halt",
    63: "row remapping or page retirement recorded",
    64: "row remapping or page retirement not recorded",
    68: "video processor exception",
    74: "NVLink error",
    79: "GPU has fallen off the bus",
    92: "high single-bit ECC error rate",
    94: "contained ECC error",
    95: "uncontained ECC error",
    109: "context switch timeout",
    119: "GSP RPC timeout",
    120: "GSP error",
    140: "unrecovered ECC error",
    143: "GPU initialization failure",
    154: "GPU recovery action changed",
}
