#!/usr/bin/env bash
# Write the lock files again, from pyproject.toml and the versions in constraints.txt. Needs uv (pip install uv).
set -euo pipefail
cd "$(dirname "$0")/../.."
compile=(uv pip compile --quiet --native-tls --universal --python-version 3.11 --generate-hashes --no-emit-index-url
  --no-header --allow-unsafe)
"${compile[@]}" -c constraints.txt pyproject.toml -o deploy/image/requirements.lock
printf 'pip\nsetuptools>=78.1.1\n' | "${compile[@]}" - -o deploy/image/build-requirements.lock
