package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"cloud.google.com/go/pubsub/v2"
	"github.com/spf13/cobra"

	"github.com/assetmill/assetmill/jobs"
	"github.com/assetmill/assetmill/jobs/queue"
	"github.com/assetmill/assetmill/schemas"
)

// deadFlags choose dead letters.
type deadFlags struct {
	reason string
	id     string
	all    bool
	json   bool
}

// chosen reports whether a letter is meant.
func (f *deadFlags) chosen(l *queue.DeadLetter) bool {
	return (f.reason == "" || f.reason == string(l.Reason)) && (f.id == "" || f.id == l.ID || f.id == l.MessageID || f.id == jobID(l))
}

// jobID is the id that a dead letter's job gave itself, if it can be told.
func jobID(l *queue.DeadLetter) string {
	m := &schemas.Job{}
	if schemas.Unmarshal(l.Data, m) != nil {
		return ""
	}
	return m.GetId()
}

func (a *app) deadCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "dead",
		Short: "Look at, replay or drop messages that were given up",
		Long: `Look at, replay or drop messages that were given up: they are kept on the subscription ` + schemas.SubscriptionDead + `. What a command looks at is
hidden from other commands meanwhile. Why a message was given up is also a row of lineage: see the view dead_by_reason.`,
		Args: exactArgs(0, "one of list, show, replay, drop"),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		a.deadVerb("list", "List what was given up, with the reason", "  assetmill dead list --reason invalid_job", a.deadList),
		a.deadVerb("show", "Print one dead letter whole", "  assetmill dead show --id 1234567890", a.deadShow),
		a.deadVerb("replay", "Publish dead letters again, as they first were; jobs keep their ids", "  assetmill dead replay --reason row_refused\n  assetmill dead replay --all", a.deadReplay),
		a.deadVerb("drop", "Forget dead letters for good", "  assetmill dead drop --id 1234567890", a.deadDrop),
	)
	return cmd
}

func (a *app) deadVerb(verb, short, example string, do func(context.Context, *queue.Queue, *queue.DeadLetters, *deadFlags) error) *cobra.Command {
	f := &deadFlags{}
	cmd := &cobra.Command{
		Use: verb, Short: short, Example: example, Args: exactArgs(0, "no arguments, only flags"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.reason != "" && !slices.Contains(jobs.Reasons(), jobs.Reason(f.reason)) {
				return usageError("--reason %q is unknown; allowed: %s", f.reason, reasonList())
			}
			if chooses := f.reason != "" || f.id != "" || f.all; verb != "list" && !chooses {
				return usageError("say which: --id, --reason or --all")
			}
			return a.withDeadLetters(cmd.Context(), f, do)
		},
	}
	cmd.Flags().StringVar(&f.reason, "reason", "", "only those with this reason")
	cmd.Flags().StringVar(&f.id, "id", "", "only the one with this message id, first message id or job id")
	if verb == "replay" || verb == "drop" {
		cmd.Flags().BoolVar(&f.all, "all", false, "all of them")
	}
	if verb == "list" || verb == "show" {
		cmd.Flags().BoolVar(&f.json, "json", false, "print one JSON object a dead letter")
	}
	return cmd
}

func reasonList() string {
	var all []string
	for _, r := range jobs.Reasons() {
		all = append(all, string(r))
	}
	return strings.Join(all, ", ")
}

func (a *app) withDeadLetters(ctx context.Context, f *deadFlags, do func(context.Context, *queue.Queue, *queue.DeadLetters, *deadFlags) error) error {
	s, err := a.settings()
	if err != nil {
		return err
	}
	return s.withQueue(ctx, func(client *pubsub.Client, q *queue.Queue) error {
		return do(ctx, q, queue.NewDeadLetters(client), f)
	})
}

// deadJSON is a dead letter as --json prints it.
type deadJSON struct {
	ID         string            `json:"id"`
	MessageID  string            `json:"message_id"`
	JobID      string            `json:"job_id,omitempty"`
	Reason     string            `json:"reason"`
	Detail     string            `json:"detail"`
	Died       time.Time         `json:"died_at"`
	Bytes      int               `json:"bytes"`
	Attributes map[string]string `json:"attributes"`
	Data       string            `json:"data,omitempty"`
}

// each calls do for every dead letter that is meant, and returns how many there were. do says whether to remove the letter.
func (f *deadFlags) each(ctx context.Context, letters *queue.DeadLetters, do func(*queue.DeadLetter) (remove bool, err error)) (count int, err error) {
	err = letters.Each(ctx, func(l *queue.DeadLetter) (bool, error) {
		if !f.chosen(l) {
			return false, nil
		}
		count++
		return do(l)
	})
	return count, err
}

func (a *app) deadList(ctx context.Context, _ *queue.Queue, letters *queue.DeadLetters, f *deadFlags) error {
	table := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "id\tdied at\treason\tbytes\tdetail")
	count, err := f.each(ctx, letters, func(l *queue.DeadLetter) (bool, error) {
		if f.json {
			return false, json.NewEncoder(a.out).Encode(newDeadJSON(l, false))
		}
		_, err := fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%s\n", l.ID, l.Died.Format(time.DateTime), l.Reason, len(l.Data), jobs.Shorten(cell(l.Detail)))
		return false, err
	})
	switch {
	case err != nil || f.json:
		return err
	case count == 0:
		_, err := fmt.Fprintln(a.out, "There are no dead letters.")
		return err
	}
	return table.Flush()
}

func newDeadJSON(l *queue.DeadLetter, data bool) deadJSON {
	d := deadJSON{ID: l.ID, MessageID: l.MessageID, JobID: jobID(l), Reason: string(l.Reason), Detail: l.Detail, Died: l.Died, Bytes: len(l.Data), Attributes: l.Attributes}
	if data {
		d.Data = string(l.Data)
	}
	return d
}

func (a *app) deadShow(ctx context.Context, _ *queue.Queue, letters *queue.DeadLetters, f *deadFlags) error {
	count, err := f.each(ctx, letters, func(l *queue.DeadLetter) (bool, error) {
		if f.json {
			return false, json.NewEncoder(a.out).Encode(newDeadJSON(l, true))
		}
		_, err := fmt.Fprintf(a.out, "id          %s\nfirst id    %s\njob id      %s\nreason      %s\ndetail      %s\ndied at     %s\nattributes  %v\n\n%s\n",
			l.ID, l.MessageID, jobID(l), l.Reason, l.Detail, l.Died.Format(time.RFC3339), l.Attributes, l.Data)
		return false, err
	})
	return noneChosen(err, count)
}

func (a *app) deadReplay(ctx context.Context, q *queue.Queue, letters *queue.DeadLetters, f *deadFlags) error {
	count, err := f.each(ctx, letters, func(l *queue.DeadLetter) (bool, error) {
		// Published before it is removed: a command that is cut off between the two leaves both, and the ledger makes one of them
		// harmless.
		return true, q.Replay(ctx, l)
	})
	fmt.Fprintf(a.out, "Replayed %d dead letters.\n", count)
	return noneChosen(err, count)
}

func (a *app) deadDrop(ctx context.Context, _ *queue.Queue, letters *queue.DeadLetters, f *deadFlags) error {
	count, err := f.each(ctx, letters, func(*queue.DeadLetter) (bool, error) { return true, nil })
	fmt.Fprintf(a.out, "Dropped %d dead letters.\n", count)
	return noneChosen(err, count)
}

func noneChosen(err error, count int) error {
	if err == nil && count == 0 {
		return errors.New("no dead letter fits; see assetmill dead list")
	}
	return err
}
