#!/bin/sh
# Builds flood.wasm, or the file named as the first argument.
set -eu
dir=$(cd "$(dirname "$0")" && pwd)
exec sh "$dir/../../../sdk/assemblyscript/build.sh" "$dir/flood.ts" "${1:-$dir/flood.wasm}"
