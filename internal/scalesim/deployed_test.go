package scalesim

import (
	"cmp"
	"encoding/json"
	"math"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	diff "github.com/google/go-cmp/cmp"

	"github.com/assetmill/assetmill/internal/plan"
)

const kubernetes = "../../deploy/kubernetes/base/"

// scaledObject is the part of a ScaledObject that these rules are about.
type scaledObject struct {
	Kind string
	Spec struct {
		MinReplicaCount, MaxReplicaCount int
		PollingInterval, CooldownPeriod  int
		Advanced                         struct {
			HorizontalPodAutoscalerConfig struct {
				Behavior struct{ ScaleUp, ScaleDown behavior }
			}
		}
		Triggers []struct {
			Type, Name, MetricType string
			Metadata               map[string]string
		}
	}
}

type behavior struct {
	StabilizationWindowSeconds int
	SelectPolicy               string
	Policies                   []struct {
		Type                 string
		Value, PeriodSeconds int
	}
}

func (b behavior) rules() (all []Policy) {
	for _, p := range b.Policies {
		policy := Policy{Period: time.Duration(p.PeriodSeconds) * time.Second}
		if p.Type == "Percent" {
			policy.Percent = p.Value
		} else {
			policy.Workers = p.Value
		}
		all = append(all, policy)
	}
	return all
}

// workers is the part of the Deployment that the simulation is about.
type workers struct {
	Kind string
	Spec struct {
		Template struct {
			Spec struct {
				TerminationGracePeriodSeconds int
				Containers                    []struct {
					Args      []string
					Resources struct{ Requests map[string]string }
				}
			}
		}
	}
}

// document decodes the document of a kind.
func document[T any](t *testing.T, name string, kind func(*T) string, want string) *T {
	t.Helper()
	data, err := os.ReadFile(kubernetes + name)
	if err != nil {
		t.Fatal(err)
	}
	for text := range strings.SplitSeq(string(data), "\n---\n") {
		v := new(T)
		asJSON, err := yaml.YAMLToJSON([]byte(text))
		if err == nil {
			err = json.Unmarshal(asJSON, v)
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if kind(v) == want {
			return v
		}
	}
	t.Fatalf("%s has no %s", name, want)
	return nil
}

// number returns the number that a pattern finds, which is to be the same wherever it is found.
func number(t *testing.T, text, pattern string) float64 {
	t.Helper()
	var all []float64
	for _, m := range regexp.MustCompile(pattern).FindAllStringSubmatch(text, -1) {
		v, err := strconv.ParseFloat(cmp.Or(m[1:]...), 64)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, v)
	}
	if len(all) == 0 || slices.Min(all) != slices.Max(all) {
		t.Fatalf("%s finds %v in %s", pattern, all, text)
	}
	return all[0]
}

// plain is a query without labels and line breaks.
func plain(query string) string {
	query = regexp.MustCompile(`\{[^}]*\}`).ReplaceAllString(query, "")
	return strings.Join(strings.Fields(query), " ")
}

func percent(t *testing.T, text, pattern string) int {
	t.Helper()
	return int(math.Round(100 * number(t, text, pattern)))
}

func TestTheRulesAreThoseThatAreDeployed(t *testing.T) {
	t.Parallel()
	o := document(t, "scaling.yaml", func(o *scaledObject) string { return o.Kind }, "ScaledObject")
	behavior := o.Spec.Advanced.HorizontalPodAutoscalerConfig.Behavior
	if behavior.ScaleUp.StabilizationWindowSeconds != 0 || behavior.ScaleUp.SelectPolicy != "Max" || behavior.ScaleDown.SelectPolicy != "Max" {
		t.Errorf("the simulation knows no such behaviour: %+v", behavior)
	}
	queries, kinds := map[string]string{}, map[string]string{}
	for _, trigger := range o.Spec.Triggers {
		queries[trigger.Name], kinds[trigger.Name] = trigger.Metadata["query"], trigger.MetricType
		if trigger.Name == "oldest" && trigger.Metadata["threshold"] != "1" {
			t.Errorf("the threshold of the age is %s", trigger.Metadata["threshold"])
		}
	}
	if kinds["backlog"] != "AverageValue" || kinds["oldest"] != "Value" {
		t.Fatalf("the triggers are %v", kinds)
	}
	perWorker := 0.0
	for _, trigger := range o.Spec.Triggers {
		if trigger.Name == "backlog" {
			perWorker = number(t, trigger.Metadata["threshold"], `(.+)`)
		}
	}
	backlog, oldest := plain(queries["backlog"]), plain(queries["oldest"])
	both := backlog + oldest
	number(t, both, `\[(5)m\]`) // the time that the share of throttled calls is taken over, as windowSum
	got := Rules{
		MinWorkers: o.Spec.MinReplicaCount, MaxWorkers: o.Spec.MaxReplicaCount, PerWorker: int(perWorker),
		UsePercent: percent(t, backlog, `or ([\d.]+) \* sum\(assetmill_messages_capacity\), 1 \)`),
		Gate: Gate{
			InFlightBelow: percent(t, both,
				`and \( \(sum\(assetmill_calls_in_flight\) or [^)]*\)\) < ([\d.]+)|and \(sum\(assetmill_calls_in_flight\) >= ([\d.]+)`),
			WaitingAbove:   percent(t, both, `assetmill_lane_waiting\)\) > ([\d.]+) \* sum\(assetmill_messages_capacity`),
			ThrottledAbove: percent(t, both, `> ([\d.]+) \* sum\(rate\(assetmill_calls_made_total`),
		},
		AgeTarget:       time.Duration(number(t, oldest, `/ (\d+),`)) * time.Second,
		AgeClampPercent: percent(t, oldest, `/ \d+, ([\d.]+)\)`),
		Up:              behavior.ScaleUp.rules(), Down: behavior.ScaleDown.rules(),
		DownWindow: time.Duration(behavior.ScaleDown.StabilizationWindowSeconds) * time.Second,
		Cooldown:   time.Duration(o.Spec.CooldownPeriod) * time.Second, Poll: time.Duration(o.Spec.PollingInterval) * time.Second,
	}
	if d := diff.Diff(Deployed(), got); d != "" {
		t.Errorf("the rules of this package (-) are not those of deploy/kubernetes (+):\n%s", d)
	}
}

func TestTheWorkerIsTheOneThatIsDeployed(t *testing.T) {
	t.Parallel()
	pod := document(t, "worker.yaml", func(d *workers) string { return d.Kind }, "Deployment").Spec.Template.Spec
	args := strings.Join(pod.Containers[0].Args, "\n")
	concurrency := int(number(t, args, `--concurrency=(\d+)`))
	grace := time.Duration(number(t, args, `--grace=(\d+)m`)) * time.Minute
	if w := DeployedWorker(); w.Concurrency != concurrency || w.Grace != grace {
		t.Errorf("the worker of this package %+v is not the deployed one, with %d calls and a grace of %s", w, concurrency, grace)
	}
	if concurrency != plan.DefaultConcurrency || Deployed().PerWorker != concurrency*plan.TargetUse/100 {
		t.Errorf("package plan counts on %d calls, used to %d %%; deployed are %d, for %d jobs each",
			plan.DefaultConcurrency, plan.TargetUse, concurrency, Deployed().PerWorker)
	}
	if time.Duration(pod.TerminationGracePeriodSeconds)*time.Second <= grace {
		t.Errorf("pods are killed after %d s, within the worker's grace of %s", pod.TerminationGracePeriodSeconds, grace)
	}
	requests := pod.Containers[0].Resources.Requests
	if requests["cpu"] != "2" || requests["memory"] != "4Gi" {
		t.Errorf("the price is of a pod of 2 vCPU and 4 GiB, and deployed are %v", requests)
	}
	if AutopilotPods().PricePerHour != plan.DefaultWorkerPrice {
		t.Errorf("a worker costs %s here and %s in package plan", AutopilotPods().PricePerHour, plan.DefaultWorkerPrice)
	}
}
