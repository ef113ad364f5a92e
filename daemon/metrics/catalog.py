"""Every metric devd has, declared once: the page prints them in this order, docs/metrics.md is drawn from here.

Labels are bounded by the configuration: a resource's name, a device's id, and words from fixed lists. Texts that may
be anything (reasons, paths, errors) are in ``devd status`` and the logs, never in a label.
"""

from devd.daemon.metrics.text import Metric

_RESOURCE = ("resource",)
_DEVICE = ("resource", "device")

BUILD_INFO = Metric("devd_build_info", "gauge", "Always 1; the version is in the label.", ("version",))
CONFIG_ERROR = Metric(
    "devd_config_error", "gauge", "1 while the configuration file has errors and devd runs on with an older one."
)
CONFIG_TAKEN = Metric(
    "devd_config_taken_timestamp_seconds", "gauge", "When the configuration in force was taken, Unix time."
)
RELOADS = Metric("devd_reloads_total", "counter", "Changed configurations that were taken while devd runs.")
LOOP_BLOCKS = Metric(
    "devd_loop_blocks_total", "counter", "Times the event loop stood still: a bug of devd, its log tells where."
)
STALLS = Metric(
    "devd_stalls_total", "counter", "Times the daemon itself was away (stopped or starved) and put every deadline off."
)
FORKSERVER_UP = Metric("devd_forkserver_up", "gauge", "1 while the fork server runs, which starts all workers.")
FORKSERVER_RESTARTS = Metric("devd_forkserver_restarts_total", "counter", "Fork servers that were replaced.")

RESOURCE_DEVICES = Metric("devd_resource_devices", "gauge", "Devices of the resource, well or not.", _RESOURCE)
RESOURCE_HEALTHY = Metric("devd_resource_healthy", "gauge", "Devices of the resource that are Healthy.", _RESOURCE)
RESOURCE_OFFERED = Metric("devd_resource_offered", "gauge", "Devices times replicas: the node's capacity.", _RESOURCE)
RESOURCE_REGISTERED = Metric(
    "devd_resource_registered", "gauge", "1 while the kubelet has the resource registered.", _RESOURCE
)
REGISTRATION_STATE = Metric(
    "devd_registration_state",
    "gauge",
    "1 for the state the registration is in, as devd status words it; other states have no sample.",
    ("resource", "state"),
)
REGISTRATIONS = Metric(
    "devd_registrations_total", "counter", "Registrations that the kubelet accepted; grows when it restarts.", _RESOURCE
)
STREAM_OPEN = Metric(
    "devd_stream_open", "gauge", "1 while the kubelet has the resource's device list open (ListAndWatch).", _RESOURCE
)
DISCOVERY_HEALTHY = Metric(
    "devd_discovery_healthy", "gauge", "1 while the scans for the resource's devices are in time.", _RESOURCE
)
DISCOVERY_AGE = Metric(
    "devd_discovery_age_seconds", "gauge", "Age of the device list: time since the last good scan.", _RESOURCE
)
DISCOVERY_PROBLEMS = Metric(
    "devd_discovery_problems", "gauge", "Problems that discovery reports; devd status tells them.", _RESOURCE
)

DEVICE_HEALTHY = Metric("devd_device_healthy", "gauge", "1 while the device is offered as Healthy.", _DEVICE)
DEVICE_CHANGED = Metric(
    "devd_device_health_changed_timestamp_seconds",
    "gauge",
    "When the device's health last changed, Unix time.",
    _DEVICE,
)
DEVICE_PHASE = Metric(
    "devd_device_phase",
    "gauge",
    "1 for the phase of the device's lifecycle it is in; other phases have no sample.",
    ("resource", "device", "phase"),
)
DEVICE_WEDGED = Metric(
    "devd_device_wedged", "gauge", "1 while not even SIGKILL ends the device's worker: the device is fenced.", _DEVICE
)
DEVICE_CORDONED = Metric("devd_device_cordoned", "gauge", "1 while an operator keeps the device back.", _DEVICE)
DEVICE_HELD = Metric("devd_device_held", "gauge", "1 while the device is held back for its flaps.", _DEVICE)
DEVICE_FALLS = Metric(
    "devd_device_falls", "gauge", "How often the device fell from well lately, as far as flap counts it.", _DEVICE
)
DEVICE_LEASE = Metric(
    "devd_device_lease_seconds", "gauge", "What is left of the device's health lease; 0 without one.", _DEVICE
)
WORKER_UP = Metric("devd_worker_up", "gauge", "1 while the device's worker process exists.", _DEVICE)
WORKER_RESTARTS = Metric("devd_worker_restarts_total", "counter", "Workers of the device that were replaced.", _DEVICE)
PROBE_PASSED = Metric("devd_probe_passed", "gauge", "1 if the last finished probe passed.", _DEVICE)
PROBE_DURATION = Metric("devd_probe_duration_seconds", "gauge", "How long the last finished probe took.", _DEVICE)
PROBE_AGE = Metric("devd_probe_age_seconds", "gauge", "Time since the last finished probe.", _DEVICE)
SANDBOX_LEVEL = Metric(
    "devd_sandbox_level",
    "gauge",
    "How many of a resource's workers and scouts, or writers of CDI specifications, stand behind a sandbox of a level "
    "(full, partial, basic, broken); levels that none has have no sample.",
    ("role", "resource", "level"),
)
SANDBOX_MISSING = Metric(
    "devd_sandbox_missing",
    "gauge",
    "How many of them lack a layer of the sandbox, and of all roles how many lack any; layers that none of a role "
    "lacks have no sample.",
    ("role", "resource", "layer"),
)
SANDBOX_LAYERS = Metric(
    "devd_sandbox_layers",
    "gauge",
    "Layers of the sandbox the device's worker stands behind (active) and lacks (missing).",
    ("resource", "device", "state"),
)

RPCS = Metric(
    "devd_rpcs_total",
    "counter",
    "Calls of the kubelet that ended, a device list once its first answer was sent.",
    ("method", "result"),
)
RPC_DURATION = Metric(
    "devd_rpc_duration_seconds",
    "histogram",
    "How long the kubelet waited for an answer, whatever it was; for a device list, for the first one.",
    ("method",),
)

HEALTH_MESSAGES = Metric("devd_health_messages_total", "counter", "Messages that came on the health bus.")
HEALTH_REFUSED = Metric("devd_health_refused_total", "counter", "Messages on the health bus refused.", ("reason",))
COMMANDS_REFUSED = Metric(
    "devd_commands_refused_total", "counter", "Messages on workers' command channels refused.", ("reason",)
)
MEMORY_ENDED = Metric(
    "devd_memory_ended_total",
    "counter",
    "Workers and callers that were ended because the daemon's memory grew by what they sent.",
)
MEMORY_ACCEPTED = Metric(
    "devd_memory_accepted_total",
    "counter",
    "Times that the daemon's memory had grown by more than it may and nobody was found who sent it.",
)
PEERS_REFUSED = Metric("devd_peers_refused_total", "counter", "Connections to devd's own sockets refused.", ("reason",))
CONTROL_REQUESTS = Metric(
    "devd_control_requests_total",
    "counter",
    "Requests of the devd command, and whether the caller may ask.",
    ("result",),
)
CONTROL_CUTS = Metric(
    "devd_control_cuts_total",
    "counter",
    "Times that all connections to the control socket were ended, because they were too many.",
)
JOURNAL_LOST = Metric("devd_journal_lost_total", "counter", "Lines that the workers' journals lost.")
JOURNAL_WAITING = Metric("devd_journal_waiting_lines", "gauge", "Journal lines that wait to be written.")
JOURNAL_ERROR = Metric("devd_journal_error", "gauge", "1 while journals cannot be written.")
STATE_WAITING = Metric("devd_state_waiting_files", "gauge", "Files of the state directory that wait to be written.")
STATE_FAILED = Metric("devd_state_failed_writes_total", "counter", "Writes to the state directory that failed.")
STATE_ERROR = Metric("devd_state_error", "gauge", "1 while the state directory cannot be written.")
LOG_LOST = Metric("devd_log_lost_total", "counter", "Records of the daemon's log that stderr did not take.")

PROCESS_CPU = Metric("process_cpu_seconds_total", "counter", "CPU time of the daemon's own process, user and system.")
PROCESS_RSS = Metric("process_resident_memory_bytes", "gauge", "Resident memory of the daemon's own process.")
PROCESS_VIRTUAL = Metric("process_virtual_memory_bytes", "gauge", "Virtual memory of the daemon's own process.")
PROCESS_OPEN_FDS = Metric("process_open_fds", "gauge", "Descriptors the daemon's own process has open.")
PROCESS_MAX_FDS = Metric("process_max_fds", "gauge", "Descriptors it may open.")
PROCESS_THREADS = Metric("process_threads", "gauge", "Threads of the daemon's own process.")
PROCESS_STARTED = Metric("process_start_time_seconds", "gauge", "When the process was started, Unix time.")

CATALOG: tuple[Metric, ...] = tuple(one for one in list(globals().values()) if isinstance(one, Metric))
"""All of them, in the order they stand here."""
