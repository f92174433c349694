package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"parley/core/chat"
	"parley/core/session"
)

// word is the form of a word that goes with a number.
func word[N int | uint64](n N, one, many string) string {
	if n == 1 {
		return one
	}
	return many
}

// count is a number with the word for what it counts.
func count[N int | uint64](n N, one, many string) string {
	return fmt.Sprintf("%d %s", n, word(n, one, many))
}

func eraseCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "erase (--room ROOM --seq N | --user NAME) [--reason TEXT]",
		Short: "Take what somebody wrote out of a running server, for good",
		Long: "Take what somebody wrote out of a running server, for good: out of the room's log, every node's memory, what waits for\n" +
			"review, and the evidence of every node. Entries keep their place, time and author; clients are told to forget the\n" +
			"text. --user erases everything of a person in all rooms and may take a while. docs/keeping.md says what is out of\n" +
			"reach, such as backups.",
		Args: cobra.NoArgs,
	}
	var admin adminFlags
	admin.add(c)
	room := c.Flags().String("room", "", "the room")
	seqs := c.Flags().UintSlice("seq", nil, "the number of an entry of the room; may be given more than once")
	user := c.Flags().String("user", "", "everything of this person, in all rooms")
	reason := c.Flags().String("reason", "", "what the room is told")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if (*user == "") == (*room == "") || (*room == "") != (len(*seqs) == 0) {
			return errors.New("say what to erase: --room ROOM --seq N, or --user NAME")
		}
		body := struct {
			Room   chat.RoomID `json:"room,omitempty"`
			Seqs   []uint      `json:"seqs,omitempty"`
			User   chat.UserID `json:"user,omitempty"`
			Reason string      `json:"reason,omitempty"`
		}{chat.RoomID(*room), *seqs, chat.UserID(*user), *reason}
		resp, err := admin.send(c.Context(), http.MethodPost, "/v1/erase", body) // which takes its time
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var done session.Erased
		if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&done); err != nil {
			return fmt.Errorf("read the server's answer: %w", err)
		}
		_, err = fmt.Fprintf(c.OutOrStdout(), "erased %s in %s and rejected %s that waited for review\n",
			count(done.Entries, "entry", "entries"), count(done.Rooms, "room", "rooms"), count(done.Reviews, "message", "messages"))
		return err
	}
	return c
}
