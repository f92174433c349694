#!/bin/sh
# Builds every example plugin from source into a folder, each module with its
# manifest: sh build.sh OUT. Those that not every room wants go to OUT-optional.
# Go plugins need Go alone; the others are left out where their compiler is
# missing.
set -eu
optional=" flood "
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" "$1-optional"
main=$(cd "$1" && pwd)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
for dir in "$here"/*/; do
	name=$(basename "$dir")
	out=$main
	case $optional in *" $name "*) out=$main-optional ;; esac
	if [ -f "$dir/build.sh" ]; then
		code=0
		sh "$dir/build.sh" "$out/.$name.wasm" >"$log" 2>&1 || code=$?
		if [ "$code" = 3 ]; then # its compiler is not there
			echo "plugin $name left out: $(cat "$log")"
			continue
		elif [ "$code" != 0 ]; then
			cat "$log" >&2
			exit "$code"
		fi
	elif [ -f "$dir/main.go" ]; then
		sh "$here/../../sdk/plugin/build.sh" "$dir" "$out/.$name.wasm"
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
