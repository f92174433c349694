#!/bin/sh
# Builds shout.wasm, or the file named as the first argument.
set -eu
dir=$(cd "$(dirname "$0")" && pwd)
exec sh "$dir/../../../sdk/c/build.sh" "$dir/shout.c" "${1:-$dir/shout.wasm}"
