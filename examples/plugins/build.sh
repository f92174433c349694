#!/bin/sh
# Builds every example plugin from source into a folder, each module with its
# manifest: sh build.sh OUT. Go plugins need Go alone; the others are left out
# where their compiler is missing.
set -eu
out=$1
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out"
out=$(cd "$out" && pwd)
for dir in "$here"/*/; do
	name=$(basename "$dir")
	if [ -f "$dir/build.sh" ]; then
		if ! command -v clang >/dev/null 2>&1 || ! command -v wasm-ld >/dev/null 2>&1; then
			echo "plugin $name left out: it needs clang and wasm-ld (apt-get install clang lld)"
			continue
		fi
		sh "$dir/build.sh" "$out/.$name.wasm"
	elif [ -f "$dir/main.go" ]; then
		(cd "$dir" && GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 GOFLAGS= go build -trimpath -ldflags '-s -w' -buildmode=c-shared -o "$out/.$name.wasm" .)
	else
		continue
	fi
	if ! cmp -s "$out/.$name.wasm" "$out/$name.wasm"; then
		mv "$out/.$name.wasm" "$out/$name.wasm"
	else
		rm "$out/.$name.wasm"
	fi
	if [ -f "$dir/$name.json" ]; then cp "$dir/$name.json" "$out/$name.json"; fi
	echo "plugin $name built"
done
