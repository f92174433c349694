#!/bin/sh
# Builds shout.wasm, or the file named as the first argument. Needs clang and
# wasm-ld (Debian and Ubuntu: apt-get install clang lld).
set -eu
dir=$(cd "$(dirname "$0")" && pwd)
exec clang --target=wasm32 -std=c11 -O2 -mbulk-memory -ffreestanding -nostdlib \
	-Wall -Wextra -Werror -I"$dir/../../../sdk/c" \
	-Wl,--no-entry -Wl,--strip-all -Wl,-z,stack-size=16384 \
	-o "${1:-$dir/shout.wasm}" "$dir/shout.c"
