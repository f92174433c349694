package preview

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Summary is the report in one line, for a log.
func (r *Report) Summary() string {
	unsure := ""
	if r.Unsure > 0 {
		unsure = fmt.Sprintf("; of %d more nobody can say, since they hang on an address or an age", r.Unsure)
	}
	if r.Replayed == 0 {
		return "nothing recorded to replay" + unsure
	}
	counts := map[Kind]int{}
	for _, c := range r.Changes {
		counts[c.Kind] += c.Count
	}
	return fmt.Sprintf("%d of %d recorded decisions change: %d to refused, %d to allowed, %d in their conditions",
		r.Changed, r.Replayed, counts[AllowToDeny], counts[DenyToAllow], counts[Obligations]) + unsure
}

// WriteText writes the report for a terminal.
func (r *Report) WriteText(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s -> %s\n%s\n", r.Old, r.New, r.Summary())
	r.notes(&b, "")
	for _, c := range r.Changes {
		fmt.Fprintf(&b, "\n%d x %s: %s\n", c.Count, c.Action, c.Kind.Words())
		if c.Rule != nil {
			fmt.Fprintf(&b, "  rule     %s:%d %s: %s\n", c.Rule.File, c.Rule.Line, c.Rule.Name, plain(c.Rule.Words))
		}
		fmt.Fprintf(&b, "  example  %s, decision %s of %s\n", c.Example.who(), c.Example.ID, c.Example.Time.UTC().Format("2006-01-02 15:04:05"))
		fmt.Fprintf(&b, "  before   %s\n  after    %s\n", c.Example.Old.Words(), c.Example.New.Words())
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// WriteMarkdown writes the report for a comment on a pull request.
func (r *Report) WriteMarkdown(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "### What this policy change would have changed\n\n%s.\n", r.Summary())
	r.notes(&b, "\n")
	if len(r.Changes) > 0 {
		b.WriteString("\n| Count | Action | Change | Rule | Example |\n| ---: | --- | --- | --- | --- |\n")
	}
	for _, c := range r.Changes {
		rule := "-"
		if c.Rule != nil {
			rule = fmt.Sprintf("`%s:%d` %s", cell(c.Rule.File), c.Rule.Line, cell(c.Rule.Words))
		}
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %s: %s → %s |\n", c.Count, cell(c.Action), c.Kind.Words(), rule,
			cell(c.Example.who()), cell(c.Example.Old.Words()), cell(c.Example.New.Words()))
	}
	_, err := io.WriteString(out, b.String())
	return err
}

// notes are what the figures do not cover.
func (r *Report) notes(b *strings.Builder, before string) {
	if r.Unreplayable > 0 {
		fmt.Fprintf(b, "%s%d records lack a field that the rules read (policy.log.mask) and were left out.\n", before, r.Unreplayable)
	}
	if r.Late > 0 {
		fmt.Fprintf(b, "%s%d records were left out for want of time.\n", before, r.Late)
	}
	if r.Unequal > 0 {
		fmt.Fprintf(b, "%s%d of %d records are not what the old rules say: a node or its cache went wrong.\n", before, r.Unequal, r.Recorded)
	}
}

// who is the question in words.
func (e *Example) who() string {
	in := &e.Input
	s := fmt.Sprintf("%s %q", in.Subject.Type, in.Subject.ID)
	if in.Resource.ID != "" {
		s += fmt.Sprintf(" in %q", in.Resource.ID)
	}
	var more []string
	if len(in.Subject.Roles) > 0 {
		more = append(more, "roles "+strings.Join(in.Subject.Roles, ", "))
	}
	if in.Subject.RoomRole != "" {
		more = append(more, in.Subject.RoomRole+" here")
	}
	if len(more) > 0 {
		s += " (" + strings.Join(more, "; ") + ")"
	}
	return plain(s)
}

// Words are the answer in a line.
func (a *Answer) Words() string {
	switch {
	case a.Failed:
		return "refused: the rules could not decide"
	case a.Allow:
		if b, err := json.Marshal(a.Obligations); err == nil && string(b) != "{}" {
			return "allowed with " + string(b)
		}
		return "allowed"
	}
	var out []string
	for _, r := range a.Reasons {
		out = append(out, r.Code+": "+r.Text)
	}
	return plain("refused, " + strings.Join(out, "; "))
}

// plain keeps what others wrote from steering a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// cell is text within a table of Markdown.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "`", "'", "<", "&lt;", "\n", " ", "@", "@\u200b").Replace(plain(s))
}
