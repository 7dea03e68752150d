#!/usr/bin/env bash
# Collect the wheels that a bare machine with torch lacks:  tests/gpu/pack.sh [FOLDER]
# Made for CPython 3.12 on x86-64 Linux; about 33 MB without Ray.
set -euo pipefail
folder=${1:-.whl}
mkdir -p "$folder"
fetch() {
    python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
        --abi cp312 --abi abi3 --abi none --platform any --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 \
        --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$folder" "$@"
}
fetch annotated-types click duckdb fairlearn obstore pydantic ruamel.yaml typing-extensions typing-inspection
# pydantic names the one version of its core that it works with.
core=$(unzip -p "$folder"/pydantic-[0-9]*.whl '*/METADATA' | sed -n 's/^Requires-Dist: pydantic-core==//p')
fetch "pydantic-core==$core"
# For its name and version: the code comes from the checkout.
python3 -m pip wheel --quiet --no-deps --wheel-dir "$folder" .
du -sh "$folder"
