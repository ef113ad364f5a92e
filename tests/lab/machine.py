"""The guest: where its kernel and QEMU come from, its devices, and how it is started and watched.

Its root is this machine's own, read-only over 9p beneath a tmpfs: the interpreter, the packages and the project are
those of the host, nothing is built but an initramfs of a dozen files.
"""

import gzip
import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build/lab"
PACKAGES = ("qemu-system-x86", "busybox-static", "kmod", "iproute2")
PROGRAMS = ("qemu-system-x86_64", "busybox", "depmod", "modprobe", "ip", "rdma")
KERNEL_PACKAGE = "linux-image-amd64"
BOOT_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
"""What the initramfs needs before it sees the root; their dependencies are looked up."""

INIT = """#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc p /proc; $b mount -t sysfs s /sys; $b mount -t devtmpfs d /dev
for m in /modules/*.ko; do $b insmod $m || echo "LAB no module $m"; done
$b mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=mmap host /ro || echo "LAB no root"
$b mount -t tmpfs t /rw; $b mkdir /rw/u /rw/w
$b mount -t overlay -o lowerdir=/ro,upperdir=/rw/u,workdir=/rw/w o /new || echo "LAB no overlay"
for d in proc sys dev; do $b mount --move /$d /new/$d; done
$b mount -t tmpfs t /new/run; $b mount -t debugfs g /new/sys/kernel/debug
$b mkdir -p /new/dev/pts /new/dev/shm /new/lib/modules
$b mount --bind /new/{modules} /new/lib/modules
$b ip link set lo up
exec $b chroot /new /bin/sh -c '
cd {project} && {python} -m tests.lab.guest > /dev/ttyS0 2>&1
sync; echo o > /proc/sysrq-trigger; sleep 9'
"""

DEVICES = (
    *("-device", "intel-iommu"),
    *("-numa", "node,memdev=m0", "-numa", "node,memdev=m1"),
    *("-object", "memory-backend-ram,id=m0,size=1G", "-object", "memory-backend-ram,id=m1,size=1G"),
    *("-device", "pxb-pcie,id=far,bus_nr=64,numa_node=1,bus=pcie.0"),
    *("-device", "pcie-root-port,id=farport,bus=far,chassis=9,slot=9", "-device", "edu,bus=farport"),
    *(word for n in (1, 2, 3, 4) for word in ("-device", f"pcie-root-port,id=rp{n},bus=pcie.0,chassis={n},slot={n}")),
    *("-drive", "driver=null-co,if=none,id=disk,size=64M", "-device", "nvme,id=nvme0,serial=LAB1,drive=disk,bus=rp1"),
    *("-device", "edu,bus=rp2,id=edu0"),
    *("-device", "e1000e,bus=rp4,romfile="),
    *("-device", "qemu-xhci,id=xhci,bus=pcie.0"),
)


def fetch() -> None:
    """Install QEMU and unpack a kernel, once. Raises RuntimeError with the remedy where that cannot be done."""
    missing = [one for one in PROGRAMS if shutil.which(one) is None]
    if missing and os.geteuid() != 0:
        wanted = " ".join(PACKAGES)
        raise RuntimeError(f"{', '.join(missing)}: not here; as root the lab installs them (apt-get install {wanted})")
    if missing:
        _run("apt-get", "update", "-q")
        _run("apt-get", "install", "-qy", "--no-install-recommends", *PACKAGES, DEBIAN_FRONTEND="noninteractive")
    if kernels():
        return
    FOLDER.mkdir(parents=True, exist_ok=True)
    name = next(
        line.split()[1]
        for line in _run("apt-cache", "depends", KERNEL_PACKAGE).splitlines()
        if line.strip().startswith("Depends: linux-image-")
    )
    _run("apt-get", "download", name, cwd=FOLDER)
    for package in FOLDER.glob("linux-image-*.deb"):
        _run("dpkg", "-x", str(package), str(FOLDER / "kernel"))
        package.unlink()


def kernels() -> list[Path]:
    """Return the kernels that are unpacked."""
    return sorted((FOLDER / "kernel/boot").glob("vmlinuz-*"))


def initramfs(python: str) -> Path:
    """Make the initramfs and return it."""
    version = kernels()[-1].name.removeprefix("vmlinuz-")
    modules = FOLDER / "kernel/lib/modules"
    _run("depmod", "-b", str(FOLDER / "kernel"), version)
    tree = FOLDER / "initramfs"
    shutil.rmtree(tree, ignore_errors=True)
    for name in ("bin", "proc", "sys", "dev", "ro", "rw", "new", "modules"):
        (tree / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "/bin/busybox", tree / "bin/busybox")
    for number, path in enumerate(_in_order(modules / version)):
        shutil.copy(modules / version / path, tree / f"modules/{number:02}.ko")
    init = tree / "init"
    init.write_text(INIT.format(modules=str(modules).lstrip("/"), project=ROOT, python=python), encoding="utf-8")
    init.chmod(0o755)
    names = "\n".join(str(one.relative_to(tree)) for one in sorted(tree.rglob("*")))
    packed = subprocess.run(
        ["busybox", "cpio", "-o", "-H", "newc"], input=names.encode(), cwd=tree, capture_output=True, check=True
    ).stdout
    made = FOLDER / "initramfs.gz"
    made.write_bytes(gzip.compress(packed, 1))
    return made


def _in_order(folder: Path) -> Iterable[str]:
    """Return the files of the modules that are needed first, each after what it depends on."""
    needs: dict[str, list[str]] = {}
    for line in (folder / "modules.dep").read_text(encoding="utf-8").splitlines():
        path, _, rest = line.partition(":")
        needs[path] = rest.split()
    names = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in needs}
    order: dict[str, None] = {}
    for name in BOOT_MODULES:
        if name in names:
            order.update(dict.fromkeys([*reversed(needs[names[name]]), names[name]]))
    return order


def command(initrd: Path, monitor: Path) -> list[str]:
    """Return QEMU's command line; its serial line is its standard output, its monitor a socket."""
    return [
        *("qemu-system-x86_64", "-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "2G"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-nic", "none", "-serial", "stdio"),
        *("-qmp", f"unix:{monitor},server=on,wait=off"),
        *("-kernel", str(kernels()[-1]), "-initrd", str(initrd)),
        *("-append", "console=ttyS0 quiet loglevel=1 intel_iommu=on panic=-1"),
        *("-fsdev", "local,id=host,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=host,mount_tag=host"),
        *DEVICES,
    ]


def _run(*words: str, cwd: Path | None = None, **environment: str) -> str:
    environ: Mapping[str, str] = {**os.environ, **environment}
    done = subprocess.run(words, cwd=cwd, env=environ, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {(done.stderr or done.stdout).strip()[-400:]}")
    return done.stdout
