package doctor

import (
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"
)

// Print writes checks as a table, each with what to change below it.
func Print(w io.Writer, checks []Check) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	counts := make(map[State]int)
	for _, c := range checks {
		counts[c.State]++
		fmt.Fprintf(t, "%s\t%s\t%s\n", c.State, c.Name, c.Found)
		if c.Change != "" {
			fmt.Fprintf(t, "\t\t-> %s\n", c.Change)
		}
		if c.Command != "" {
			fmt.Fprintf(t, "\t\t   $ %s\n", c.Command)
		}
	}
	if err := t.Flush(); err != nil {
		return fmt.Errorf("print checks: %w", err)
	}
	_, err := fmt.Fprintf(w, "\n%d ok, %d warn, %d bad, %d unknown\n", counts[OK], counts[Warn], counts[Bad], counts[Unknown])
	return err
}

// PrintJSON writes {"worst": ..., "checks": [...]}.
func PrintJSON(w io.Writer, checks []Check) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{"worst": Worst(checks), "checks": checks})
}
