#!/bin/sh
# Make a virtual environment with nognet in it, at the versions that were tested.
#   deploy/setup_venv.sh VENV [EXTRA]      EXTRA: deid, ray, dev; several: deid,ray
# PYTHON names the interpreter, TORCH_INDEX the index with the CPU builds of torch.
set -eu

venv=${1:?usage: setup_venv.sh VENV [EXTRA]}
extra=${2:-}
python=${PYTHON:-python3}
torch_index=${TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
cd "$(dirname "$0")/.."

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $("$python" --version) found, Python 3.11 or newer expected; name one with PYTHON=..." >&2
    exit 1
}
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --quiet"

# torch first. Without an NVIDIA driver the build with CUDA would be gigabytes for nothing: if pip's
# own sources offer only that one, look where the CPU builds are.
if ! "$venv/bin/python" -c 'import torch' 2>/dev/null; then
    wanted=$(grep '^torch==' constraints.txt)
    more=""
    if ! command -v nvidia-smi >/dev/null 2>&1; then
        offered=$($pip install --dry-run --no-deps --report - "$wanted" 2>/dev/null || true)
        case $offered in
            *+cpu* | *%2Bcpu*) ;;
            *) [ "$(uname -s)" = Linux ] && more="--extra-index-url $torch_index" ;;
        esac
    fi
    # shellcheck disable=SC2086  # $more is two words or none
    $pip install -c constraints.txt $more "$wanted"
fi
$pip install -c constraints.txt -e ".${extra:+[$extra]}"
