package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"parley/core/gate"
	"parley/policy"
	"parley/policy/preview"
	"parley/policy/source"
)

// maxQuestion bounds the file with a question, in bytes.
const maxQuestion = 1 << 20

func policyExplainCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "explain [DIR] --input FILE | explain --id DECISION",
		Short: "Say which rules made an answer, in their authors' words, and how",
		Long: "Ask the rules in a folder (the built-in ones where none is given) one question, and say which rules held: where they\n" +
			"stand, and what the comment above each says. FILE is the question as JSON, in the form of `input` in docs/policy.md,\n" +
			"or a line of a decision log; - is standard input. With --id a running server explains a decision it has recorded.",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: folders,
	}
	var admin adminFlags
	admin.add(c)
	file := c.Flags().String("input", "", "file with the question")
	id := c.Flags().String("id", "", "a recorded decision: the id that the person who was refused was given")
	trace := c.Flags().Bool("trace", false, "print every step of the evaluation as well")
	asJSON := c.Flags().Bool("json", false, "print the explanation as JSON")
	c.MarkFlagsMutuallyExclusive("input", "id")
	c.MarkFlagsOneRequired("input", "id")
	c.RunE = func(c *cobra.Command, args []string) error {
		var x source.Explanation
		if *id != "" {
			if len(args) > 0 {
				return fmt.Errorf("--id asks the server's own rules, and not those in %s", args[0])
			}
			if err := admin.ask(c.Context(), http.MethodGet, "/v1/policy/explain/"+url.PathEscape(*id), nil, &x); err != nil {
				return err
			}
		} else {
			in, err := readQuestion(*file, c.InOrStdin())
			if err != nil {
				return err
			}
			e, err := buildPolicy(c.Context(), argument(args, builtIn), ".", "")
			if err != nil {
				return told(c.OutOrStdout(), err)
			}
			got, err := e.Explain(c.Context(), in)
			x = source.Explanation{Revision: e.Revision(), Now: preview.AnswerOf(&got.Decision), Exact: true, Rules: got.Rules, Trace: got.Trace}
			if err != nil {
				x.Error = err.Error()
			}
		}
		if *asJSON {
			return printJSON(c.OutOrStdout(), x)
		}
		return showExplanation(c.OutOrStdout(), &x, *trace)
	}
	return c
}

// readQuestion reads an input document, or a record that has one.
func readQuestion(path string, stdin io.Reader) (*gate.Input, error) {
	from := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the question: %w", err)
		}
		defer f.Close()
		from = f
	}
	b, err := io.ReadAll(io.LimitReader(from, maxQuestion+1))
	if err != nil {
		return nil, fmt.Errorf("read the question: %w", err)
	}
	if len(b) > maxQuestion {
		return nil, fmt.Errorf("read the question: it has more than %d bytes", maxQuestion)
	}
	var doc struct {
		gate.Input
		Record *gate.Input `json:"input"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("read the question: %w", err)
	}
	in := &doc.Input
	if doc.Record != nil {
		in = doc.Record
	}
	if in.Action.Name == "" {
		return nil, fmt.Errorf("read the question: it has no action.name; docs/policy.md shows what a question looks like")
	}
	if in.Subject.Roles == nil {
		in.Subject.Roles = []string{}
	}
	if in.Action.Changes == nil {
		in.Action.Changes = []string{}
	}
	if in.Context.Periods == nil {
		in.Context.Periods = []string{}
	}
	if in.Context.Networks == nil {
		in.Context.Networks = []string{}
	}
	return in, nil
}

// showExplanation prints the rules that held in words, then the steps.
func showExplanation(out io.Writer, x *source.Explanation, trace bool) error {
	var b strings.Builder
	if r := x.Record; r != nil && r.Input != nil {
		d := r.Decision()
		was := preview.AnswerOf(&d)
		fmt.Fprintf(&b, "%s %s: %s asked for %s", r.Time.UTC().Format("2006-01-02 15:04:05"), r.ID, plain(r.Input.Subject.ID), plain(r.Input.Action.Name))
		if r.Input.Resource.ID != "" {
			fmt.Fprintf(&b, " in %s", plain(r.Input.Resource.ID))
		}
		fmt.Fprintf(&b, "\nby %s: %s\n", plain(r.Revision), plain(was.Words()))
	}
	fmt.Fprintf(&b, "by %s now: %s\n", plain(x.Revision), plain(x.Now.Words()))
	if x.Error != "" {
		fmt.Fprintf(&b, "the rules could not decide: %s\n", plain(x.Error))
	}
	if !x.Exact {
		b.WriteString("the record lacks what the rules read (a masked field, or an address or an age under another name), so this says nothing\n")
	}
	if len(x.Rules) > 0 {
		b.WriteString("\nThese rules held:\n")
	}
	for _, r := range x.Rules {
		fmt.Fprintf(&b, "  %s:%d %s\n      %s\n", plain(r.File), r.Line, plain(r.Name), words(r))
	}
	if trace {
		b.WriteString("\nStep by step:\n")
		for line := range strings.Lines(x.Trace) {
			b.WriteString(printable(line))
		}
	} else if x.Trace != "" {
		b.WriteString("\n--trace shows every step.\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}

func words(r policy.Rule) string { return printable(r.Words) }

// printable keeps what others wrote from steering the terminal; line breaks
// stay.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\n' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}
