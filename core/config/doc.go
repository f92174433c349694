// Package config holds everything an operator can set, as one Config value.
//
// A Config is decoded over Defaults, so a key that is left out keeps its
// default and an explicit 0 keeps its meaning (for limits: no limit). Each key
// can be set in the YAML file, as an environment variable and as a flag; a flag
// wins over the environment, the environment over the file, the file over the
// default. Keys lists them all, by reflection over the struct tags of Config,
// so that flags and docs/configuration.md are made from the same table.
//
// Load promises to report every problem it finds at once, each with its file,
// line and column (or variable or flag), the key, what is allowed and the
// nearest valid name. It never returns a Config that breaks a documented rule.
//
// Nothing here starts a goroutine or keeps state: every function may be called
// from any goroutine, and a Config is a plain value.
package config
