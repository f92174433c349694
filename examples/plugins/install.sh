#!/bin/sh
# Puts built plugins into a server's folder: sh install.sh FROM TO. Modules are
# replaced. A manifest that is there already stays, for it is where the plugin is
# configured.
set -eu
mkdir -p "$2"
cp "$1"/*.wasm "$2/"
for manifest in "$1"/*.json; do
	there=$2/$(basename "$manifest")
	if [ ! -e "$there" ]; then
		cp "$manifest" "$there"
	elif ! cmp -s "$manifest" "$there"; then
		echo "$there stays as it is; $manifest is the one that comes with the example"
	fi
done
