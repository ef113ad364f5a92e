"""The configuration file: read, checked as a whole, described. Nothing here touches a device."""

from devd.daemon.config.errors import ConfigError, Problem
from devd.daemon.config.given import collisions
from devd.daemon.config.listen import ListenAddress
from devd.daemon.config.loader import load, load_text
from devd.daemon.config.model import Config, Discovery, Kubelet, Metrics, Mount, Resource, Restart
from devd.daemon.config.probes import Probe
from devd.daemon.config.resets import Reset
from devd.daemon.config.schema import json_schema

__all__ = [
    "Config",
    "ConfigError",
    "Discovery",
    "Kubelet",
    "ListenAddress",
    "Metrics",
    "Mount",
    "Probe",
    "Problem",
    "Reset",
    "Resource",
    "Restart",
    "collisions",
    "json_schema",
    "load",
    "load_text",
]
