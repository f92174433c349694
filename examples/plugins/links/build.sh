#!/bin/sh
# Builds links.wasm, or the file named as the first argument.
set -eu
dir=$(cd "$(dirname "$0")" && pwd)
exec sh "$dir/../../../sdk/rust/build.sh" "$dir/src/lib.rs" "${1:-$dir/links.wasm}"
