package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"parley/plugins"
	"parley/sdk/abi"
	"parley/sdk/project"
)

func pluginTestCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "test [DIR|NAME.wasm]",
		Short: "Judge the manifest's test vectors in the server's own host",
		Long: "Judge the manifest's test vectors in the server's own host and compare the verdicts. A project is built first.\n" +
			"The exit code is 1 when a vector differs, when there is none, and when the server would refuse the module.",
		Args: cobra.MaximumNArgs(1),
	}
	var host hostFlags
	host.add(c)
	asJSON := c.Flags().Bool("json", false, "print the results as JSON")
	c.RunE = func(c *cobra.Command, args []string) (err error) {
		path := argument(args, ".")
		if !strings.HasSuffix(path, ".wasm") {
			p, err := project.Open(path)
			if err != nil {
				return err
			}
			if err := p.Build(c.Context(), p.Wasm(), c.ErrOrStderr()); err != nil {
				return err
			}
			path = p.Wasm()
		}
		results, err := host.vectors(c, path)
		if err != nil {
			return err
		}
		if *asJSON {
			err = printJSON(c.OutOrStdout(), vectorRows(results))
		} else {
			err = showVectors(c.OutOrStdout(), results)
		}
		if err != nil {
			return err
		}
		for _, r := range results {
			if r.Problem != "" {
				return errTold
			}
		}
		if len(results) == 0 {
			return fmt.Errorf(`%s has no test vectors: add "vectors": [{"name": ..., "text": ..., "want": "deny"}] to its manifest`, shown(path))
		}
		return nil
	}
	return c
}

// vectors runs the manifest's vectors.
func (f *hostFlags) vectors(c *cobra.Command, path string) (results []plugins.VectorResult, err error) {
	l, err := f.loadUntested(c, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	return plugins.RunVectors(c.Context(), l.Plugin, l.Manifest)
}

// showVectors prints the table and the sum.
func showVectors(out io.Writer, results []plugins.VectorResult) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tvector\tverdict\trule\tfuel\ttime\t")
	failed := 0
	for _, r := range results {
		state := "ok"
		if r.Problem != "" {
			state = "FAIL"
			failed++
		}
		rule := "-"
		if r.Result.Code != 0 {
			rule = fmt.Sprintf("rule_%d", r.Result.Code)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\t%s\n", state, plain(r.Vector.Name), r.Verdict, rule, r.Fuel, r.Time, r.Problem)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "%d of %d vectors pass\n", len(results)-failed, len(results))
	return err
}

// vectorRow is one result as --json prints it.
type vectorRow struct {
	Name    string `json:"name"`
	OK      bool   `json:"ok"`
	Problem string `json:"problem,omitempty"`
	judged
}

func vectorRows(results []plugins.VectorResult) []vectorRow {
	rows := make([]vectorRow, 0, len(results))
	for _, r := range results {
		row := vectorRow{Name: r.Vector.Name, OK: r.Problem == "", Problem: r.Problem, judged: judged{
			Text: r.Vector.Text, Verdict: r.Verdict.String(), Code: r.Result.Code, Score: r.Result.Score,
			Reason: r.Result.Reason, Fuel: r.Fuel, NS: r.Time.Nanoseconds(),
		}}
		if r.Verdict == abi.Redact {
			row.Masked = r.Masked
		}
		if r.Err != nil {
			row.Error = r.Err.Error()
		}
		rows = append(rows, row)
	}
	return rows
}
