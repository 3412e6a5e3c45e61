#!/usr/bin/env bash
# Makes .venv with everything that pyproject.toml names, once per content; prints its Python on stdout, progress on stderr.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
cache="${XDG_CACHE_HOME:-$HOME/.cache}/tandem"
venv="$PWD/.venv"
mkdir -p "$cache"
exec 9>"$cache/environment.lock"
flock 9 # two runs at once must not write one environment

base=$(command -v python3.12 || true)
if python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then base=$(command -v python3); fi
if [ -z "$base" ]; then
  echo "Tandem needs Python 3.11 or newer; this machine has $(python3 --version 2>&1). On Debian 12: apt-get install -y python3 python3-venv" >&2
  exit 1
fi
tools="$cache/tools"
if ! "$tools/bin/uv" --version >/dev/null 2>&1; then
  echo "installing uv into $tools" >&2
  rm -rf "$tools"
  if ! "$base" -m venv "$tools" >&2; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
      echo "installing python3-venv" >&2
      { apt-get update -q && apt-get install -y -q python3-venv; } >&2
      rm -rf "$tools" && "$base" -m venv "$tools" >&2
    else
      echo "Python cannot make a virtual environment. On Debian: apt-get install -y python3-venv" >&2
      exit 1
    fi
  fi
  "$tools/bin/pip" install --quiet 'uv>=0.9' >&2
fi
want=$( (cat pyproject.toml tests/constraints.txt; "$base" --version) | sha256sum | cut -d' ' -f1)
if [ "$(cat "$venv/.tandem-content" 2>/dev/null)" != "$want" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
  echo "making .venv (the first time this fetches about 3 GB, most of it torch)" >&2
  "$tools/bin/uv" venv --quiet --allow-existing --python "$base" "$venv" >&2
  # compiled now: with PYTHONDONTWRITEBYTECODE set, every process would compile torch again (20 s)
  UV_HTTP_TIMEOUT=300 "$tools/bin/uv" pip install --quiet --compile-bytecode --python "$venv/bin/python" \
    --constraint tests/constraints.txt --editable '.[runtime,dev]' >&2
  echo "$want" > "$venv/.tandem-content"
fi
echo "$venv/bin/python"
