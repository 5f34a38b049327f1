package check

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// trigger is what a ScaledObject says of one.
type trigger struct {
	Name, Type, MetricType string
	Metadata               map[string]string
}

// autoscaler is the ScaledObject of the workers.
type autoscaler struct {
	Spec struct {
		MaxReplicaCount int
		Triggers        []trigger
	}
}

func readAutoscaler(t *testing.T) (a autoscaler) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(firstDocument(source(t, "deploy/kubernetes/base/scaling.yaml"))), &a); err != nil {
		t.Fatal(err)
	}
	return a
}

// firstDocument returns the first of several YAML documents.
func firstDocument(text string) string {
	first, _, _ := strings.Cut(text, "\n---\n")
	return first
}

func (a autoscaler) trigger(t *testing.T, name string) trigger {
	t.Helper()
	for _, tr := range a.Spec.Triggers {
		if tr.Name == name {
			return tr
		}
	}
	t.Fatalf("there is no trigger %s", name)
	return trigger{}
}

// hold is the answer to a query that has none: an error, by which nothing changes.
const hold = -1

// workers returns how many a trigger asks for when there are some already, as KEDA and Kubernetes calculate: it is not bounded.
func (tr trigger) workers(t *testing.T, h *history, current int) int {
	t.Helper()
	threshold, err := strconv.ParseFloat(tr.Metadata["threshold"], 64)
	if err != nil {
		t.Fatal(err)
	}
	answer := h.ask(tr.Metadata["query"])
	switch {
	case len(answer) == 0:
		return hold
	case len(answer) > 1:
		t.Fatalf("KEDA wants one element, and gets %v", answer)
	case math.IsNaN(answer[0].F) || math.IsInf(answer[0].F, 0):
		return hold
	}
	ratio := answer[0].F / threshold
	if tr.MetricType == "AverageValue" {
		const tolerance = 0.1
		if current > 0 && math.Abs(ratio/float64(current)-1) <= tolerance {
			return current
		}
		return int(math.Ceil(ratio))
	}
	return int(math.Ceil(ratio * float64(current)))
}

// fleet is workers that all do the same.
type fleet struct {
	workers           int
	inFlight, waiting int     // of each worker
	calls, throttled  float64 // of each worker, a second
	neverCalled       bool    // they have not called anything yet
	since, until      time.Duration
	secondLane        bool // half of the calls go by another lane, for which the same jobs wait
}

const target = `project_id="p", location="europe-west4", cluster="assetmill", namespace="assetmill", job="worker", pod="worker-%[1]d", container="worker", instance="worker-%[1]d:metrics"`

// add adds what the workers show.
func (f fleet) add(h *history) {
	s := scraped
	if f.since > 0 {
		s.from = f.since
	}
	if f.until > 0 {
		s.to = f.until
	}
	for i := range f.workers {
		of := fmt.Sprintf(target, i)
		h.add(`assetmill_messages_capacity{`+of+`}`, s, 400, 0)
		h.add(`assetmill_messages_held{`+of+`}`, s, float64(f.inFlight+f.waiting), 0)
		if f.neverCalled {
			continue
		}
		lanes := []string{"gemini-3-pro-image/global/standard"}
		if f.secondLane {
			lanes = append(lanes, "gemini-3-pro-image/global/flex")
		}
		for _, lane := range lanes {
			share, on := 1/float64(len(lanes)), fmt.Sprintf(`%s, lane=%q`, of, lane)
			h.add(`assetmill_calls_in_flight{`+on+`}`, s, float64(f.inFlight)*share, 0)
			h.add(`assetmill_calls_capacity{`+on+`}`, s, 400, 0)
			h.add(`assetmill_lane_waiting{`+on+`}`, s, float64(f.waiting), 0)
			h.add(`assetmill_calls_made_total{`+on+`, result="image"}`, s, 100, f.calls*share)
			h.add(`assetmill_calls_made_total{`+on+`, result="throttled"}`, s, 100, f.throttled*share)
		}
	}
}

// queue is what Pub/Sub shows of a subscription.
type queue struct {
	subscription string
	messages     float64
	age          time.Duration
	last         time.Duration // when the last sample was; 0: as late as is normal
}

func (q queue) add(h *history) {
	s := sampled
	if q.last > 0 {
		s.to = q.last
	}
	of := fmt.Sprintf(`{monitored_resource="pubsub_subscription", project_id="p", subscription_id=%q}`, q.subscription)
	h.add(`pubsub_googleapis_com:subscription_num_undelivered_messages`+of, s, q.messages, 0)
	h.add(`pubsub_googleapis_com:subscription_oldest_unacked_message_age`+of, s, q.age.Seconds(), 0)
}

func TestWorkersForTheBacklog(t *testing.T) {
	t.Parallel()
	const many = 600_000
	for _, tc := range []struct {
		name  string
		jobs  float64
		fleet fleet
		want  int
	}{
		{"nothing to do", 0, fleet{}, 0},
		{"one job", 1, fleet{}, 1},
		{"a campaign begins", many, fleet{}, 1765},
		{"as many jobs as one worker should have", 340, fleet{}, 1},
		{"one more", 341, fleet{}, 2},
		{"a new worker that has not called yet, and a backlog", many, fleet{workers: 1, neverCalled: true}, 1},
		{"full, and the lanes give more", 5_000, fleet{workers: 3, inFlight: 390, calls: 30, throttled: 0.3}, 15},
		{"nearly full, and the lanes give more", 5_000, fleet{workers: 3, inFlight: 345, waiting: 2, calls: 30}, 15},
		{"full, and nothing waits in the queue", 1_170, fleet{workers: 3, inFlight: 390, calls: 30}, 4},
		{"at 85 %, and nothing waits in the queue", 1_020, fleet{workers: 3, inFlight: 340, calls: 30}, 3},
		{"half full, and nothing waits in the queue", 600, fleet{workers: 3, inFlight: 200, calls: 15}, 2},
		{"full and throttled", many, fleet{workers: 3, inFlight: 390, calls: 30, throttled: 3}, 3},
		{"full and throttled a little, as lanes always are", many, fleet{workers: 3, inFlight: 390, calls: 30, throttled: 0.6}, 1765},
		{"jobs wait for lanes that give a third", many, fleet{workers: 3, inFlight: 130, waiting: 260, calls: 10, throttled: 0.1}, 2},
		{"jobs wait for lanes that give most", many, fleet{workers: 3, inFlight: 330, waiting: 60, calls: 25, throttled: 0.3}, 3},
		{"jobs that two lanes could serve count once", 5_000, fleet{workers: 3, inFlight: 380, waiting: 15, calls: 30, secondLane: true}, 15},
		{"far too many workers for the quota", many, fleet{workers: 12, inFlight: 10, waiting: 380, calls: 1, throttled: 0.02}, 1},
		{"a submission is paused: workers take jobs and give them back", many, fleet{workers: 2, inFlight: 0, waiting: 0}, 1},
		{"places are full of jobs that don't call: storage is slow", many, fleet{workers: 3, inFlight: 150, calls: 10}, 2},
		{"every lane is broken", many, fleet{workers: 6, inFlight: 1, waiting: 399}, 1},
		{"workers that went six minutes ago", many, fleet{workers: 3, inFlight: 10, waiting: 380, calls: 1, until: 6 * time.Minute}, 1765},
		{"few jobs left, throttled", 50, fleet{workers: 3, inFlight: 16, calls: 1, throttled: 1}, 1},
		{"all done, and workers are still there", 0, fleet{workers: 3}, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := &history{t: t}
			queue{subscription: "jobs-online", messages: tc.jobs}.add(h)
			tc.fleet.add(h)
			if got := readAutoscaler(t).trigger(t, "backlog").workers(t, h, tc.fleet.workers); got != tc.want {
				t.Errorf("%d workers, want %d", got, tc.want)
			}
		})
	}
}

// More jobs never ask for fewer workers, and throttling never for more than there are.
func TestMoreQuotaIsNotMadeByWorkers(t *testing.T) {
	t.Parallel()
	backlog := readAutoscaler(t).trigger(t, "backlog")
	for workers := 1; workers <= 12; workers++ {
		last := 0
		for _, jobs := range []float64{0, 1, 300, 1_000, 4_000, 20_000, 1e6} {
			h := &history{t: t}
			queue{subscription: "jobs-online", messages: jobs}.add(h)
			fleet{workers: workers, inFlight: 399, calls: 30, throttled: 2}.add(h)
			got := backlog.workers(t, h, workers)
			if got > workers || got < last {
				t.Errorf("%d throttled workers and %.0f jobs: %d workers, after %d for fewer jobs", workers, jobs, got, last)
			}
			last = got
		}
	}
}

// KEDA takes an empty answer for an error, and an error changes nothing.
func TestLateMetricsChangeNothing(t *testing.T) {
	t.Parallel()
	a := readAutoscaler(t)
	for _, tc := range []struct {
		last time.Duration
		hold bool
	}{{3 * time.Minute, false}, {8 * time.Minute, false}, {11 * time.Minute, true}} {
		h := &history{t: t}
		fleet{workers: 2, inFlight: 300, calls: 20}.add(h)
		for _, name := range []string{"jobs-online", "jobs-batch", "batches"} {
			queue{subscription: name, messages: 1, age: time.Minute, last: tc.last}.add(h)
		}
		for _, tr := range a.Spec.Triggers {
			if got := tr.workers(t, h, 2); (got == hold) != tc.hold {
				t.Errorf("%s: the last sample is %s old: %d workers", tr.Name, tc.last, got)
			}
		}
	}
	late := &history{t: t}
	fleet{workers: 2, inFlight: 300, calls: 20, throttled: 5}.add(late)
	queue{subscription: "jobs-online", messages: 600_000, last: 8 * time.Minute}.add(late)
	if got := a.trigger(t, "backlog").workers(t, late, 2); got != 2 {
		t.Errorf("two throttled workers, and a backlog of 8 minutes ago: %d workers", got)
	}
	for _, tr := range a.Spec.Triggers {
		if got := tr.workers(t, &history{t: t}, 2); got != hold {
			t.Errorf("%s: without metrics %d workers", tr.Name, got)
		}
	}
}

func TestWorkersForOldJobs(t *testing.T) {
	t.Parallel()
	full := fleet{workers: 4, inFlight: 390, calls: 30, throttled: 0.3}
	throttled, waiting, idle := full, full, full
	throttled.throttled, waiting.waiting, idle.inFlight = 3, 60, 100
	for _, tc := range []struct {
		name  string
		jobs  float64
		age   time.Duration
		fleet fleet
		want  int
	}{
		{"old, and more than there are places for", 2_000, time.Hour, full, 6},
		{"ancient", 2_000, 300 * time.Hour, full, 6},
		{"a little old", 2_000, 20 * time.Minute, full, 6},
		{"young", 2_000, 5 * time.Minute, full, 2},
		{"one old message", 1, 300 * time.Hour, full, 0},
		{"as many jobs as places", 1_600, time.Hour, full, 0},
		{"throttled", 600_000, time.Hour, throttled, 0},
		{"jobs wait for lanes", 600_000, time.Hour, waiting, 0},
		{"places are free", 600_000, time.Hour, idle, 0},
		{"no workers", 600_000, time.Hour, fleet{}, 0},
		{"empty", 0, 0, full, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := &history{t: t}
			queue{subscription: "jobs-online", messages: tc.jobs, age: tc.age}.add(h)
			tc.fleet.add(h)
			if got := readAutoscaler(t).trigger(t, "oldest").workers(t, h, tc.fleet.workers); got != tc.want {
				t.Errorf("%d workers, want %d", got, tc.want)
			}
		})
	}
}

func TestWorkersForBatches(t *testing.T) {
	t.Parallel()
	a := readAutoscaler(t)
	for _, tc := range []struct {
		trigger, subscription string
		messages              float64
		want                  int
	}{
		{"gather", "jobs-batch", 0, 0}, {"gather", "jobs-batch", 1, 1}, {"gather", "jobs-batch", 1_200_000, 12},
		{"batches", "batches", 0, 0}, {"batches", "batches", 1, 1}, {"batches", "batches", 48, 3},
	} {
		h := &history{t: t}
		for _, name := range []string{"jobs-online", "jobs-batch", "batches"} {
			q := queue{subscription: name}
			if name == tc.subscription {
				q.messages = tc.messages
			}
			q.add(h)
		}
		if got := a.trigger(t, tc.trigger).workers(t, h, 0); got != tc.want {
			t.Errorf("%v messages in %s: %d workers, want %d", tc.messages, tc.subscription, got, tc.want)
		}
	}
}

// The largest fleet serves the largest load that assetmill is made for.
func TestTheLargestFleetIsLargeEnough(t *testing.T) {
	t.Parallel()
	const inFlight = 3200
	a := readAutoscaler(t)
	h := &history{t: t}
	queue{subscription: "jobs-online", messages: inFlight}.add(h)
	if want := a.trigger(t, "backlog").workers(t, h, 0); a.Spec.MaxReplicaCount < want {
		t.Errorf("at most %d workers, and %d calls in flight need %d", a.Spec.MaxReplicaCount, inFlight, want)
	}
}
