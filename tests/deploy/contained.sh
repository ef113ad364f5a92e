#!/bin/sh
# Start the image's devd as a container runtime would: PID 1 of its own namespaces, on a read-only root.
#   contained.sh ROOTFS SHARED [DEVD'S ARGUMENTS...]
# SHARED (plugins, registry, run, state, log, devd.yaml) is mounted at the same path inside, so that both sides agree.
set -e
rootfs=$1 shared=$2
shift 2
mount --make-rprivate /
mount --bind "$rootfs" "$rootfs"
mount -t proc proc "$rootfs/proc"
mount --rbind /dev "$rootfs/dev"
mount --rbind /sys "$rootfs/sys"
mkdir -p "$rootfs$shared"
mount --bind "$shared" "$rootfs$shared"
mount -o remount,ro,bind "$rootfs"
exec env -i PATH=/opt/devd/bin:/usr/sbin:/usr/bin:/sbin:/bin chroot "$rootfs" devd "$@"
