#!/bin/sh
# Builds a plugin written with parley.h: sh build.sh SOURCE.c OUT.wasm. Needs
# clang and wasm-ld; exits 3 and says what to install where they are missing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
for tool in clang wasm-ld; do
	if ! command -v "$tool" >/dev/null 2>&1; then
		echo "it needs clang and wasm-ld (apt-get install clang lld)" >&2
		exit 3
	fi
done
exec clang --target=wasm32 -std=c11 -O2 -mbulk-memory -ffreestanding -nostdlib \
	-Wall -Wextra -Werror -I"$here" \
	-Wl,--no-entry -Wl,--strip-all -Wl,-z,stack-size=16384 \
	-o "$2" "$1"
