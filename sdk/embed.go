// Package sdk carries the source of the SDKs inside the program, so that
// `platform plugin new` can write a project that needs nothing from the
// network. The folders below are the only copy in the repository.
package sdk

import (
	"embed"
	"io/fs"
)

//go:embed abi/abi.go plugin/exports_wasip1.go plugin/guest.go plugin/plugin.go
//go:embed c/parley.h c/build.sh
//go:embed rust/Cargo.toml rust/build.sh rust/src
//go:embed assemblyscript/package.json assemblyscript/package-lock.json assemblyscript/installed.js assemblyscript/build.sh assemblyscript/assembly
var source embed.FS

// Source returns the SDKs' files, named as in this folder, without their tests.
func Source() fs.FS { return source }
