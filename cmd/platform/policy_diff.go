package main

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"parley/policy"
	"parley/policy/decisionlog"
	"parley/policy/preview"
)

// codeChanged is the exit code of a diff that changes more than it may.
const codeChanged exitCode = 2

// maxReplayed bounds the records of one diff.
const maxReplayed = 1_000_000

func policyDiffCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "diff OLD NEW --replay LOG",
		Short: "Say which recorded decisions a change of the rules would have changed",
		Long: "Ask the old and the new rules what people have really asked, and tell the difference: who would be refused now, who\n" +
			"allowed, whose conditions change, by which rule, with an example each. OLD and NEW are folders, revisions of the Git\n" +
			"repository, or \"default\" for the rules in this binary. LOG is a file of decisions (platform policy log --json) or a\n" +
			"server's folder data_dir/policy-log.\n\n" +
			"Exit code 0: no more changes than allowed; 2: more; 1: something is wrong, or one of the two would be refused.",
		Args: cobra.ExactArgs(2),
	}
	log := c.Flags().String("replay", "", "recorded decisions: a file or a folder")
	_ = c.MarkFlagRequired("replay")
	repo := c.Flags().String("repo", ".", "the Git repository of the revisions")
	path := c.Flags().String("path", "", "folder of the policy inside it")
	count := c.Flags().Int("max-changed", 0, "decisions that may change")
	share := c.Flags().Float64("max-share", 0, "share of the decisions that may change, in percent; either bound is enough")
	entries := c.Flags().Int("entries", 10_000, "newest decisions that are replayed")
	asJSON := c.Flags().Bool("json", false, "print the report as JSON")
	markdown := c.Flags().Bool("markdown", false, "print it for a comment on a pull request")
	_ = c.MarkFlagDirname("repo")
	c.RunE = func(c *cobra.Command, args []string) error {
		if *entries < 1 || *entries > maxReplayed {
			return fmt.Errorf("--entries %d is not within 1 and %d", *entries, maxReplayed)
		}
		records, bad, err := readDecisions(*log, *entries)
		if err != nil {
			return err
		}
		old, err := buildPolicy(c.Context(), args[0], *repo, *path)
		if err != nil {
			return err
		}
		fresh, err := buildPolicy(c.Context(), args[1], *repo, *path)
		if err != nil {
			return err
		}
		r := preview.Compare(c.Context(), old, fresh, records, 24*time.Hour)
		if err := c.Context().Err(); err != nil {
			return err
		}
		if bad > 0 {
			fmt.Fprintf(c.ErrOrStderr(), "%d lines of %s are no decisions\n", bad, *log)
		}
		out := c.OutOrStdout()
		switch {
		case *asJSON:
			err = printJSON(out, r)
		case *markdown:
			err = r.WriteMarkdown(out)
		default:
			err = r.WriteText(out)
		}
		if err == nil && r.Changed > *count && r.Share()*100 > *share {
			return codeChanged
		}
		return err
	}
	return c
}

// readDecisions reads the newest decisions of a file or of a folder of them.
func readDecisions(path string, most int) (records []*decisionlog.Record, bad int, err error) {
	paths := []string{path}
	info, err := os.Stat(path)
	if err != nil {
		return nil, 0, fmt.Errorf("read the decisions: %w", err)
	}
	if info.IsDir() {
		if paths, err = filepath.Glob(filepath.Join(path, "*.jsonl")); err != nil || len(paths) == 0 {
			return nil, 0, fmt.Errorf("read the decisions: there is no file of a decision log in %s", path)
		}
		slices.Sort(paths) // their names begin with their time
	}
	for _, p := range paths {
		f, err := os.Open(p)
		if err != nil {
			return nil, bad, fmt.Errorf("read the decisions: %w", err)
		}
		err = decisionlog.Read(f, func(r *decisionlog.Record, err error) bool {
			switch {
			case err != nil:
				bad++
			case r.IsDecision():
				if records = append(records, r); len(records) >= 2*most {
					records = slices.Clone(records[len(records)-most:])
				}
			}
			return true
		})
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, bad, err
		}
	}
	records = records[max(0, len(records)-most):]
	if len(records) == 0 {
		return nil, bad, fmt.Errorf("read the decisions: %s holds none", path)
	}
	return records, bad, nil
}

// maxArchive bounds what git may write of one revision.
const maxArchive = 64 << 20

// readRevision reads the policy of a revision with the git command.
func readRevision(ctx context.Context, repo, rev, path string) (policy.Files, error) {
	if rev == "" || strings.HasPrefix(rev, "-") || strings.Contains(rev, ":") {
		return nil, fmt.Errorf("%q is neither a folder nor a revision", rev)
	}
	git := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, "git", append([]string{"-C", repo}, args...)...)
		var said bytes.Buffer
		cmd.Stderr = &said
		pipe, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, fmt.Errorf("%w; revisions are read with git", err)
		}
		out, err := io.ReadAll(io.LimitReader(pipe, maxArchive+1))
		if err == nil && len(out) > maxArchive {
			err = fmt.Errorf("more than %d bytes", maxArchive)
			_ = cmd.Process.Kill()
		}
		if werr := cmd.Wait(); err == nil && werr != nil {
			err = fmt.Errorf("%w: %s", werr, plain(strings.TrimSpace(said.String())))
		}
		return out, err
	}
	hash, err := git("rev-parse", "--verify", rev+"^{commit}")
	if err != nil {
		return nil, fmt.Errorf("%s is neither a folder nor a revision of the repository %s: %w", rev, repo, err)
	}
	tree := strings.TrimSpace(string(hash)) + ":" + strings.Trim(filepath.ToSlash(path), "/")
	archive, err := git("archive", "--format=tar", tree)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", tree, err)
	}
	return untarPolicy(archive)
}

// untarPolicy takes the policy's files out of an archive, as the server takes
// them out of a commit.
func untarPolicy(archive []byte) (policy.Files, error) {
	files := policy.Files{}
	for in := tar.NewReader(bytes.NewReader(archive)); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read the revision: %w", err)
		}
		switch {
		case !policy.Wanted(h.Name) || h.Typeflag == tar.TypeDir:
			continue
		case h.Typeflag != tar.TypeReg:
			return nil, policy.Problems{{File: h.Name, Reason: "it is no regular file; a policy has no links"}}
		case h.Size > policy.MaxFileBytes:
			return nil, policy.Problems{{File: h.Name, Reason: fmt.Sprintf("the file has %d bytes, at most %d are allowed", h.Size, policy.MaxFileBytes)}}
		case len(files) == policy.MaxFiles:
			return nil, policy.Problems{{Reason: fmt.Sprintf("there are more than %d files", policy.MaxFiles)}}
		}
		if files[h.Name], err = io.ReadAll(in); err != nil {
			return nil, fmt.Errorf("read the revision: %w", err)
		}
	}
}
