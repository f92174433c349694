#!/bin/sh
# Builds pii.wasm, or the file named as the first argument.
set -eu
dir=$(cd "$(dirname "$0")" && pwd)
exec sh "$dir/../../../sdk/c/build.sh" "$dir/pii.c" "${1:-$dir/pii.wasm}"
