#!/bin/sh
# Builds a plugin written in Go with this SDK: sh build.sh FOLDER OUT.wasm.
set -eu
case $2 in
/*) out=$2 ;;
*) out=$PWD/$2 ;;
esac
cd "$1"
GOOS=wasip1 GOARCH=wasm CGO_ENABLED=0 GOFLAGS= exec go build -trimpath -ldflags '-s -w' -buildmode=c-shared -o "$out" .
