#!/usr/bin/env bash
# ./tests/run gpu: correctness tests on a GPU with the torch that is installed (2.11 or later); no .venv, no network needed.
# Where msgspec, safetensors, numpy or pytest are missing, pip is asked (PIP_FIND_LINKS is honoured); arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

has_gpu() { [ -e /dev/nvidia0 ] || nvidia-smi -L >/dev/null 2>&1; }
sees_gpu='import sys, torch; sys.exit(not torch.cuda.is_available())'
python="" with_torch=""
for candidate in ${TANDEM_PYTHON:-} python3 python .venv/bin/python; do
  if ! "$candidate" -c 'import sys, torch; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then continue; fi
  with_torch="${with_torch:-$candidate}"
  if "$candidate" -c "$sees_gpu" 2>/dev/null; then python=$candidate; break; fi
done
if [ -z "$python" ]; then
  if ! has_gpu; then
    echo "no GPU on this machine: the GPU tests were NOT RUN (0 passed)"
    exit 0
  fi
  echo "this machine has a GPU, but no Python (3.11 or later) has a torch that sees it (with torch: ${with_torch:-none}):" \
    "set TANDEM_PYTHON, or install torch 2.11 or later for CUDA" >&2
  exit 1
fi

# What lies here is used before what the interpreter has, and leaves that untouched.
extra="${XDG_CACHE_HOME:-$HOME/.cache}/tandem/gpu-$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
export PYTHONPATH="runtime:operator:.${PYTHONPATH:+:$PYTHONPATH}:$extra"
missing=()
for module in numpy safetensors msgspec pytest; do
  "$python" -c "import $module" 2>/dev/null || missing+=("$module")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "missing in $python: ${missing[*]}; asking pip for them" >&2
  if ! "$python" -m pip install --quiet --disable-pip-version-check --target "$extra" "${missing[@]}" >&2; then
    echo "cannot run the GPU tests: $python lacks ${missing[*]} and pip cannot fetch them;" \
      "install them, or lay their wheels into a folder and set PIP_NO_INDEX=1 PIP_FIND_LINKS=FOLDER" >&2
    exit 1
  fi
fi

"$python" -c 'import sys, torch; print(f"GPU tests: Python {sys.version.split()[0]}, torch {torch.__version__}, {torch.cuda.get_device_name()}")'
exec timeout 600 "$python" -m pytest -q -m gpu -p no:cacheprovider --confcutdir=tests/gpu tests/gpu "$@"
