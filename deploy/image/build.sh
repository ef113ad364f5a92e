#!/usr/bin/env bash
# Build the image without a container daemon: buildah in chroot isolation, as root, on Debian.
#   deploy/image/build.sh [ARCHIVE]     default: build/devd-VERSION.tar (an OCI archive)
# IMAGE     name in the archive, before the tag VERSION (default: docker.io/library/devd). With its registry, always:
#           what a cluster asks for as devd:VERSION its runtime looks for under docker.io/library/devd:VERSION.
# SOURCE    where the sources are, a URL, for the label org.opencontainers.image.source (default: no such label)
# BASE      image to build on (default: a Debian made here by mmdebstrap, for where no image registry is reached)
# SUITE     Debian release of that base (default: bookworm)
# PYTHON    interpreter whose pip fetches the wheels (default: python3)
# buildah and mmdebstrap are installed from Debian where they are missing.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-python3}
suite=${SUITE:-bookworm}
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' devd/__init__.py)
archive=${1:-build/devd-$version.tar}
name=${IMAGE:-docker.io/library/devd}:$version
if [[ ! $name =~ ^(localhost|[a-z0-9-]+(\.[a-z0-9-]+)+|[a-z0-9.-]+:[0-9]+)/[^:@]*[^/:@]:$version$ ]]; then
  echo "IMAGE=$IMAGE: name its registry as well and leave out the tag, as in registry.example.com/devd" >&2
  exit 2
fi
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
# The commit's time: the same commit gives the same image.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}

missing=()
command -v buildah >/dev/null || missing+=(buildah crun)
[ -n "${BASE:-}" ] || command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
if [ ${#missing[@]} -gt 0 ]; then
  apt-get update -q
  DEBIAN_FRONTEND=noninteractive apt-get install -qy --no-install-recommends "${missing[@]}"
fi

began=$SECONDS
work=$PWD/build/image
mkdir -p "$work" "$(dirname "$archive")"
export BUILDAH_ISOLATION=chroot

if [ -z "${BASE:-}" ]; then
  root=$work/base-$suite.tar
  if [ ! -f "$root" ]; then
    # A base that was left half made is made anew.
    rm -rf "$root.part"
    mmdebstrap --quiet --format=tar --variant=minbase --include=python3 \
      --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
      --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
      --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
      --customize-hook='rm -rf "$1"/var/cache/* "$1"/var/log/* "$1"/etc/machine-id "$1"/etc/resolv.conf "$1"/etc/hostname' \
      "$suite" "$root.part"
    mv "$root.part" "$root"
  fi
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$root" / >/dev/null
  BASE=localhost/devd-base:$suite
  buildah config --cmd /bin/bash "$container"
  buildah commit --quiet --rm --timestamp "$SOURCE_DATE_EPOCH" "$container" "$BASE" >/dev/null
fi

# pip of this machine fetches the wheels, with its own index and certificates; the build itself asks nobody. They are
# mounted where the base has a directory already: one that is made for a mount stays in the image.
wheels=$work/wheels
rm -rf "$wheels"
for lock in requirements build-requirements; do
  "$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
    --python-version "${PYTHON_VERSION:-3.11}" --platform "manylinux_2_28_$(uname -m)" \
    --platform "manylinux2014_$(uname -m)" -r "deploy/image/$lock.lock" -d "$wheels"
done

buildah build --quiet --file deploy/Containerfile --ignorefile deploy/Containerfile.dockerignore \
  --timestamp "$SOURCE_DATE_EPOCH" --volume "$wheels:/mnt:ro" ${SOURCE:+--label "org.opencontainers.image.source=$SOURCE"} \
  --build-arg "BASE=$BASE" --build-arg PIP_NO_INDEX=1 --build-arg PIP_FIND_LINKS=/mnt \
  --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --build-arg "VERSION=$version" --build-arg "REVISION=$revision" \
  --build-arg "CREATED=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)" \
  --tag "$name" . >/dev/null
rm -f "$archive"
buildah push --quiet "$name" "oci-archive:$archive:$name"
echo "$archive: $name, $(($(stat -c %s "$archive") / 1000000)) MB compressed, $((SECONDS - began)) s, $(buildah images --no-trunc --quiet "$name")"
