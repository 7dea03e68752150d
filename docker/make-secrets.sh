#!/usr/bin/env bash
# Makes the secrets of compose.yaml, once: make-secrets.sh [FOLDER] (default: secrets, beside this script). What is there stays.
set -euo pipefail
folder="${1:-"$(dirname "$0")/secrets"}"
# Others cannot enter the folder; the user of the container, who gets the single files, can read them.
mkdir -p "$folder"
chmod 700 "$folder"
for name in ray_token store_key store_secret serve_token; do
    if [ ! -s "$folder/$name" ]; then
        openssl rand -hex 32 | tr -d '\n' >"$folder/$name"
        chmod 444 "$folder/$name"
    fi
done
echo "secrets in $folder"
