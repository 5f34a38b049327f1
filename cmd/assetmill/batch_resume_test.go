package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"cloud.google.com/go/pubsub/v2"
	"cloud.google.com/go/pubsub/v2/apiv1/pubsubpb"
	"cloud.google.com/go/storage"

	"github.com/assetmill/assetmill/internal/localcloud"
	"github.com/assetmill/assetmill/schemas"
	"github.com/assetmill/assetmill/worker"
	"github.com/assetmill/assetmill/worker/batch"
	"github.com/assetmill/assetmill/worker/batch/batchtest"
)

// knownSeal is the only seal that there is.
type knownSeal struct{ worker.Seal }

func (s knownSeal) ReadSeal(context.Context, string) (worker.Seal, error) { return s.Seal, nil }

// closedTopic takes no hand-off.
type closedTopic struct{}

func (closedTopic) PublishHandoff(context.Context, *schemas.BatchHandoff) error {
	return errors.New("permission denied")
}

// sealOf returns a batch's manifest as its seal holds it.
func sealOf(t *testing.T, st *batch.Status) []byte {
	t.Helper()
	data, err := json.Marshal(st.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestBatchResume(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		change func(*batch.Status)
		sent   int
		says   string
	}{
		{func(st *batch.Status) { st.Phase, st.Job = batch.Gathered, "" }, 1, "Batch b-1 is gathered: it is sealed, and Vertex has no job of it yet.\nA worker was last at it at 2026-11-23 17:45:00. Its hand-off is published again"},
		{func(st *batch.Status) { st.Phase, st.Job, st.Creates = batch.Gathered, "", 1 }, 1, "is gathered: Vertex was asked for a job, and it is not known yet whether there is one."},
		{func(*batch.Status) {}, 1, "is running: its Vertex job was RUNNING when a worker last saw news of it."},
		{func(st *batch.Status) {
			st.Phase, st.Reason, st.Ranges = batch.Collecting, "complete", make([]batch.Range, 7)
		}, 1, "is collecting: its Vertex job has ended (complete), and 0 of 7 ranges of the output are collected."},
		{func(st *batch.Status) { st.Phase, st.Reason = batch.Reconciling, "partial" }, 1, "is reconciling: the output is collected, and the jobs that it did not end are ended or given back."},
		{func(st *batch.Status) { st.Phase, st.Reason = batch.Closed, "complete" }, 0, "Batch b-1 is closed: it ended as complete, and there is nothing to resume.\n"},
	} {
		st := batchStatus(test.change)
		seal, files := knownSeal{worker.Seal{Sealed: true, Manifest: sealOf(t, st)}}, &batchtest.Files{}
		state, err := json.Marshal(st.State)
		if err == nil {
			_, err = files.Swap(t.Context(), "batches/b-1/state.json", 0, state)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, asJSON := range []bool{false, true} {
			var out strings.Builder
			a, q := &app{streams: streams{out: &out}}, batchtest.NewQueue()
			if err := a.resumeBatch(t.Context(), seal, files, q, "b-1", asJSON); err != nil {
				t.Fatal(err)
			}
			sent := q.Handoffs.Published()
			if len(sent) != test.sent {
				t.Errorf("%s: published %s", st.Phase, sent)
			}
			for _, data := range sent {
				h := &schemas.BatchHandoff{}
				if err := schemas.Unmarshal(data, h); err != nil || h.GetBatchId() != "b-1" || h.GetGatherer() != "w1" || h.GetRange() != 0 {
					t.Errorf("%s: published %s, %v", st.Phase, data, err)
				}
			}
			if !asJSON && !strings.Contains(out.String(), test.says) {
				t.Errorf("%q is missing in:\n%s", test.says, out.String())
			}
			var got struct {
				ID, Phase string
				Resumed   bool
			}
			if asJSON && (json.Unmarshal([]byte(out.String()), &got) != nil || got.ID != "b-1" || got.Phase != string(st.Phase) || got.Resumed != (test.sent > 0)) {
				t.Errorf("JSON: %s", out.String())
			}
		}
	}
}

func TestBatchesThatCantBeResumed(t *testing.T) {
	t.Parallel()
	there := worker.Seal{Sealed: true, Manifest: sealOf(t, batchStatus(func(*batch.Status) {}))}
	for want, seal := range map[string]worker.Seal{"was never sent": {Void: true}, "there is no batch b-1": {}, "permission denied": there} {
		var out strings.Builder
		a := &app{streams: streams{out: &out}}
		if err := a.resumeBatch(t.Context(), knownSeal{seal}, &batchtest.Files{}, closedTopic{}, "b-1", false); err == nil || !strings.Contains(err.Error(), want) || out.Len() > 0 {
			t.Errorf("%v, want %q; printed %q", err, want, out.String())
		}
	}
}

// One that is none does not keep the others from it; a closed one is no failure.
func TestResumeOfSeveralBatches(t *testing.T) {
	work, client := storageClient(t).Bucket(localcloud.WorkBucket), pubsubClient(t)
	for id, phase := range map[string]batch.Phase{"b-20261123-lost": batch.Running, "b-20261123-over": batch.Closed} {
		st := batchStatus(func(st *batch.Status) { st.ID, st.Phase, st.Reason = id, phase, "complete" })
		state, err := json.Marshal(st.State)
		if err != nil {
			t.Fatal(err)
		}
		putObject(t, work.Object("batches/"+id+"/manifest.json"), sealOf(t, st))
		putObject(t, work.Object("batches/"+id+"/state.json"), state)
	}
	out, errs, code := assetmill(t, "batch", "resume", "--json", "b-20261123-none", "b-20261123-over", "b-20261123-lost")
	if code != exitFailure || !strings.Contains(errs, "there is no batch b-20261123-none") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if lines := strings.Split(strings.TrimSpace(out), "\n"); len(lines) != 2 || !strings.HasSuffix(lines[0], `"resumed":false}`) || !strings.HasSuffix(lines[1], `"resumed":true}`) {
		t.Errorf("printed %s", out)
	}
	if got := takeHandoff(t, client); got.GetBatchId() != "b-20261123-lost" || got.GetGatherer() != "w1" || got.GetRange() != 0 {
		t.Errorf("published %v", got)
	}
	if out, errs, code := assetmill(t, "batch", "resume", "b-20261123-over"); code != exitOK || !strings.Contains(out, "nothing to resume") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
}

func putObject(t *testing.T, o *storage.ObjectHandle, data []byte) {
	t.Helper()
	w := o.NewWriter(t.Context())
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// takeHandoff takes the only hand-off off the workers' subscription, so that no worker of another test finds it.
func takeHandoff(t *testing.T, client *pubsub.Client) *schemas.BatchHandoff {
	t.Helper()
	name := "projects/" + localcloud.Project + "/subscriptions/" + schemas.SubscriptionBatches
	resp, err := client.SubscriptionAdminClient.Pull(t.Context(), &pubsubpb.PullRequest{Subscription: name, MaxMessages: 10})
	if err != nil || len(resp.GetReceivedMessages()) != 1 {
		t.Fatalf("%d hand-offs, %v", len(resp.GetReceivedMessages()), err)
	}
	m := resp.GetReceivedMessages()[0]
	if err := client.SubscriptionAdminClient.Acknowledge(t.Context(), &pubsubpb.AcknowledgeRequest{Subscription: name, AckIds: []string{m.GetAckId()}}); err != nil {
		t.Fatal(err)
	}
	h := &schemas.BatchHandoff{}
	if err := schemas.Unmarshal(m.GetMessage().GetData(), h); err != nil {
		t.Fatal(err)
	}
	return h
}
