#!/usr/bin/env bash
# On a machine with a GPU and torch: install what pack.sh collected and run the checks, the most valuable first.
#   tests/gpu/run.sh OUT [WHEELS]       PART=first|rest|all chooses, DEVICE=cpu rehearses
# OUT/gpu.jsonl has each row as soon as it is known, OUT/tests.log the tests. The stages have a time limit each, 8 minutes together.
set -uo pipefail
out=$1
wheels=${2:-.whl}
device=${DEVICE:-cuda}
part=${PART:-all}
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
bench() { timeout "$1" python3 -m tests.benchmarks.gpu --device "$device" --out "$out/gpu.jsonl" --budget-s "$1" "${@:2}"; }
check() { timeout "$1" python3 -m pytest -q -p no:cacheprovider --tb=short "${@:2}" 2>&1 | tee -a "$out/tests.log" | tail -60; }
if [ "$part" = first ] || [ "$part" = all ]; then
    stage "the bits of steps"
    check 100 tests/gpu/test_steps.py
    stage "packs of ResNet-20"
    bench 120 --only resnet20
    stage "sweeps"
    check 100 tests/gpu/test_sweeps.py
fi
if [ "$part" = layouts ]; then
    bench 90 --only layouts
    check 60 tests/gpu/test_steps.py
    check 80 tests/gpu/test_sweeps.py
elif [ "$part" != first ]; then
    stage "packs of LeNet-5"
    bench 60 --only lenet5
    stage "arithmetics"
    bench 90 --only arithmetics
fi
stage "end"
