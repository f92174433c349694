#!/bin/sh
# Builds a plugin written with this crate, without cargo and without the network:
# sh build.sh SOURCE.rs OUT.wasm. Needs a rustc whose standard library is there
# for wasm32-unknown-unknown; it takes $RUSTC, or the first such one in PATH or
# /usr/bin, which --find prints. Exits 3 and says what to install where there is
# none.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
target=wasm32-unknown-unknown

usable() { # COMMAND; the linker is rustup's own, or Debian's lld under that name
	root=$("$1" --print sysroot 2>/dev/null) && [ -d "$root/lib/rustlib/$target/lib" ] || return 1
	command -v rust-lld >/dev/null 2>&1 || [ -n "$(find "$root/lib/rustlib" -name rust-lld 2>/dev/null)" ]
}

rustc=
if [ -n "${RUSTC:-}" ] && usable "$RUSTC"; then
	rustc=$RUSTC
else
	IFS=:
	for dir in $PATH /usr/bin; do
		if [ -x "$dir/rustc" ] && usable "$dir/rustc"; then
			rustc=$dir/rustc
			break
		fi
	done
	unset IFS
fi
if [ -z "$rustc" ]; then
	echo "it needs rustc with the target $target (apt-get install rustc libstd-rust-dev-wasm32 lld, or rustup target add $target)" >&2
	exit 3
fi
if [ "$1" = --find ]; then
	echo "$rustc"
	exit
fi
flags="--edition 2021 --target $target -C opt-level=3 -C panic=abort -C codegen-units=1 -C target-feature=+bulk-memory"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
# shellcheck disable=SC2086 # a list of flags
"$rustc" $flags --crate-type rlib --crate-name parley -o "$dir/libparley.rlib" "$here/src/lib.rs"
# shellcheck disable=SC2086
"$rustc" $flags --crate-type cdylib -D warnings --extern parley="$dir/libparley.rlib" \
	-C lto -C strip=symbols -C link-arg=-zstack-size=16384 -o "$2" "$1"
