#!/bin/sh
# Builds a plugin written in AssemblyScript: sh build.sh SOURCE.ts OUT.wasm. Needs
# node and the compiler that package.json names; it takes the one installed here,
# or $ASC. Exits 3 and says what to install where there is none.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
asc=${ASC:-$here/node_modules/assemblyscript/bin/asc.js}
if ! command -v node >/dev/null 2>&1 || [ ! -f "$asc" ]; then
	echo "it needs node and the AssemblyScript compiler (apt-get install nodejs npm, then npm ci --prefix sdk/assemblyscript)" >&2
	exit 3
fi
# Without a runtime that frees memory, because the host puts memory back, and
# without abort, which would be an import: it becomes a trap.
exec node "$asc" "$1" --outFile "$2" --runtime stub --use abort= --exportStart _initialize \
	-O3 --converge --noColors
