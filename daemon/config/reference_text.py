"""The prose of docs/configuration.md; its tables are drawn from the models by ``reference``."""

INTRO = """# Configuration

devd reads one YAML file: `devd run --config FILE`. This page is drawn from the code (`make docs`); a test fails
when it differs.

- `devd check FILE` prints every error of a file at once, each as `FILE:LINE: key: message (found X; allowed Y)`,
  and exits 2. `devd run` refuses to start on the same errors.
- `devd schema` prints a JSON Schema (draft 2020-12). With the YAML language server, name it on the file's first
  line: `# yaml-language-server: $schema=./devd.schema.json`.
- `devd discover --config FILE` shows what would be offered on this node, and starts nothing.

```yaml
kubelet:
  dir: /var/lib/kubelet/device-plugins
resources:
  - name: devd.io/serial               # what pods ask for
    driver: node
    match:
      path: "/dev/ttyUSB*"
    access: rw
    probe: {kind: exists, period: 5s, timeout: 2s, failures: 1, successes: 1}
    reset: {kind: exec, command: [/usr/bin/usbreset, "{path}"], timeout: 20s}
    env: {SERIAL_PORTS: "{paths}"}
    container_path: "/dev/serial{index}"
```

More files are in [examples/](../examples/); [everything.yaml](../examples/everything.yaml) has every key.

## How the file is read

- **Unknown keys are errors**, and so is a key given twice.
- **Durations** have a unit: `500ms`, `5s`, `1.5s`, `2m`, `1h`. A bare number is an error.
- **Text** that YAML takes for something else (`1`, `on`, `no`) needs quotes.
- **Anchors, aliases and merges** (`&a`, `*a`, `<<: *a`) work. The file may have {size} KiB, {values} values with
  aliases followed, and {depth} levels.
- An absent key has its default; a key without a value (`probe:`) is an error, but for `reset` and `container_path`,
  where it means absent.
"""

MATCH = """### match

Which devices a resource offers. Its keys depend on the driver. No device may be offered by two resources, nor under two
ids by one: the first one that lists it keeps it, and `devd status` shows the conflict. A device that is gone keeps its
node as long as it stands in the list (`discovery.linger`); what has come to that node meanwhile is offered after that.
"""

NODE_IDS = """A device's id is its path below /dev (`ttyUSB0`). A path with other characters than letters, digits
and `. _ : -`, or of more than 56 of them, is shortened and gets a hash (`serial-by-id-usb-...-1f3a8e02`). Ids should
outlive a reboot and a change of order: match `/dev/serial/by-id/*` rather than `/dev/ttyUSB*` where such links exist.
"""

PROBE = """### probe

Each device has a worker process of its own that probes it. A probe may hang or crash: that costs this device, and
nothing else.

- **`period` is the pause** between the end of one probe and the start of the next, so slow probes never pile up.
- **Health is a lease.** A passing probe makes a device Healthy for `period + timeout` and a slack of {slack}. Only
  the next passing probe renews it. A worker that hangs, crashes, is stopped or cannot be heard lets the lease run
  out, and the device turns Unhealthy by itself, with the reason. A worker that is back in time never shows at the
  kubelet. With `failures` above 1, a failed probe that is still tolerated carries a live lease to the next probe.
- **`failures` and `successes` are thresholds**: so many in a row turn a device Unhealthy, or Healthy again. A
  single failed probe of `failures: 3` changes nothing at the kubelet and shows in `devd status`.
- **A probe over its `timeout` fails.** If it does not return at all, the worker is killed and started again. If not
  even SIGKILL ends it, the kernel holds it inside the driver: the device is fenced until the kernel lets go.
- **EBUSY means in use, and in use means alive**: `open` and `read` pass when an exclusive node is held by a pod.
- **Do not use `open` or `read` on serial ports** (ttyS, ttyUSB, ttyACM): opening one raises DTR, which resets many
  boards and hangs up modems, also under a pod that works with it. Use `exists` or `sysfs`.
"""

PROBE_KINDS = """#### Probe kinds

Driver `node` takes {node_kinds}; driver `sim` takes `sim`. Each kind has the keys above and its own.
"""

RESET = """### reset

With a reset, the kubelet calls devd before each start of a container (PreStartContainer). Its devices are reset in
their workers, all at once, and then probed; the container starts only if every one is well. A second call for the
same device joins the reset that runs. Reset and the probe after it have to end within 24 s together: the kubelet
gives up after 30 s and would not tell why.

A device with `replicas` is reset for the first of its containers only: while another container has a share, it is
probed and not reset. Nor does a driver's reset take along a device that another container has: it refuses, and names
the pod.
The kubelet's PodResources tells who has what (decision [0008](decisions/0008-who-is-in-the-way-of-a-reset.md)).
"""

RESET_KINDS = """#### Reset kinds

Each kind has the keys above and its own.
"""

SCRIPTS = """### Scripts

A script tells simulated devices what to do over time, as a list of steps. Time runs from the start of the device's
worker, so a worker that crashed and was started again begins with the first step. When all steps have `for`, the
script repeats; a last step without it lasts for ever. A device's own `script` goes before `probe.script`. Without
any, probes pass.

```yaml
script:
  - {for: 30s, do: pass}
  - {for: 10s, do: fail, reason: link down}
```
"""

TEMPLATES = """### Templates

Values of `env` and `annotations`, the paths of `mounts`, and `container_path` may hold placeholders. Braces that
should stay are doubled: `{{` and `}}`. An unknown placeholder is an error.

A mount or container path that names one device (`{id}`, `{path}`, `{name}`, `{index}`, a property) is made for each
device the container gets, any other once. Two things on one path of the container fail the pod. In `env` paths are
those the container sees, everywhere else those of the node.

Every container gets the ids of its devices in a variable named after the resource, whatever `env` says:
`DEVD_EXAMPLE_COM_SERIAL_DEVICES` for `example.com/serial`. Where two resources set one variable or annotation to
different values, a container that takes both gets one of them, no telling which, and
likewise of two devices whose resources have one `container_path`: `devd check` warns of it.
"""

PROPERTIES = """**Properties** of the device may stand in braces as well, `{address}` or `{serial}`: in `env` and
`annotations` those of all the container's devices, joined by commas in natural order, in paths each device's own. A
name that no device of the driver has is an error of the file; a device that lacks one of the others (a stick without a
serial number) is refused to the container, with the reason. In a path a property that contains a slash is refused, but
for `sysfs`. Placeholders above go before properties of the same name. A third party's driver has its own properties.

"""

COMMAND_TEMPLATES = """The arguments of `exec` probes and resets know fewer, as they run for one device:
"""

SYSFS_TEMPLATES = """So do the attributes of `sysfs` probes and resets (a reset's `value` knows `{name}` alone):
"""
