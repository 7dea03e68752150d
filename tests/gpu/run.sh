#!/usr/bin/env bash
# On a machine with a GPU and torch: install what pack.sh collected and run the checks, the most valuable first.
#   tests/gpu/run.sh OUT [WHEELS]       DEVICE=cpu rehearses
# OUT/gpu.jsonl has each row as soon as it is known, OUT/tests.log the tests. Each stage has a time limit, 380 seconds together.
set -uo pipefail
out=$1
wheels=${2:-.whl}
device=${DEVICE:-cuda}
cd "$(dirname "$0")/../.." || exit 1
mkdir -p "$out"
started=$SECONDS
stage() { echo "== $((SECONDS - started)) s: $1"; }
export OMP_NUM_THREADS=4 PYTHONUNBUFFERED=1
[ "$device" = cpu ] && export KD_RAY_GPU_REHEARSAL=1
stage "install"
site=$(mktemp -d)
python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$site" "$wheels"/*.whl || exit 1
export PYTHONPATH=$site
[ "$device" = cuda ] && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
bench() { timeout -k 5 "$1" python3 -m tests.benchmarks.gpu --device "$device" --out "$out/gpu.jsonl" --budget-s "$1" "${@:2}"; }
check() { timeout -k 5 "$1" python3 -m pytest -q -p no:cacheprovider --tb=short "${@:2}" 2>&1 | tee -a "$out/tests.log" | tail -60; }
stage "the bits of steps"
check 60 tests/gpu/test_steps.py
stage "packs of ResNet-20"
bench 100 --only resnet20
stage "sweeps"
check 90 tests/gpu/test_sweeps.py
stage "packs of LeNet-5"
bench 50 --only lenet5
stage "arithmetics"
bench 80 --only arithmetics
# What a step costs by layout and arithmetic takes a minute more; it was the ground for `device.layout_of`.
if [ "${LAYOUTS:-}" ]; then
    stage "layouts"
    bench 70 --only layouts
fi
stage "end"
