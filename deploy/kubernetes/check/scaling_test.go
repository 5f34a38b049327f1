package check

import (
	"errors"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// parameters are what KEDA 2.21's scalers read: pkg/scalers/prometheus_scaler.go, cron_scaler.go. Others are ignored without a word.
var parameters = map[string][]string{
	"prometheus": {
		"serverAddress", "query", "threshold", "activationThreshold", "ignoreNullValues", "namespace", "customHeaders", "unsafeSsl",
		"queryParameters", "timeout", "authModes",
	},
	"cron": {"timezone", "start", "end", "desiredReplicas"},
}

func TestTriggersAreWhatKEDAReads(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		s := only(t, d.scaled)
		if err := kedav1alpha1.ValidateTriggers(s.Spec.Triggers); err != nil {
			t.Error(err)
		}
		for _, trigger := range s.Spec.Triggers {
			known, ok := parameters[trigger.Type]
			if !ok {
				t.Errorf("trigger %s is of type %s; the gcp-* types are deprecated", trigger.Name, trigger.Type)
			}
			for name := range trigger.Metadata {
				if !slices.Contains(known, name) {
					t.Errorf("trigger %s: KEDA knows no %s", trigger.Name, name)
				}
			}
		}
	})
}

func TestTriggersAskCloudMonitoring(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		authentication := only(t, d.authentications)
		if authentication.Spec.PodIdentity == nil || authentication.Spec.PodIdentity.Provider != kedav1alpha1.PodIdentityProviderGCP {
			t.Error("the operator's own identity is not used")
		}
		for _, trigger := range only(t, d.scaled).Spec.Triggers {
			if trigger.Type != "prometheus" {
				continue
			}
			if got, want := trigger.Metadata["serverAddress"], "https://monitoring.googleapis.com/v1/projects/example-project/location/global/prometheus"; got != want {
				t.Errorf("trigger %s asks %s, want %s", trigger.Name, got, want)
			}
			if trigger.AuthenticationRef == nil || trigger.AuthenticationRef.Name != authentication.Name {
				t.Errorf("trigger %s does not authenticate", trigger.Name)
			}
			// KEDA's default takes an empty answer for 0, which would scale in when metrics are late.
			if trigger.Metadata["ignoreNullValues"] != "false" {
				t.Errorf("trigger %s takes nothing for zero", trigger.Name)
			}
		}
	})
}

func TestThresholdIsEightyFivePercent(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		concurrency := number[float64](t, d.flag(t, "concurrency"))
		for _, trigger := range only(t, d.scaled).Spec.Triggers {
			if trigger.Name == "backlog" {
				if got := number[float64](t, trigger.Metadata["threshold"]); got != 0.85*concurrency {
					t.Errorf("the threshold is %v, want 85 %% of %v", got, concurrency)
				}
				return
			}
		}
		t.Error("no trigger is named backlog")
	})
}

func TestScaleTargetIsTheWorker(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		spec := only(t, d.scaled).Spec
		if spec.ScaleTargetRef.Name != only(t, d.workers).Name || *spec.MinReplicaCount != 0 {
			t.Errorf("it scales %s from %d", spec.ScaleTargetRef.Name, *spec.MinReplicaCount)
		}
		// With a fallback of 0 replicas an error scales to zero, with another it starts workers for nothing; without one it changes nothing.
		if spec.Fallback != nil {
			t.Error("a fallback changes the fleet when metrics can't be had")
		}
	})
}

// Metrics of Pub/Sub are up to 3 minutes old, and a worker that has just begun has few calls.
func TestScaleInIsSlow(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		spec := only(t, d.scaled).Spec
		down := spec.Advanced.HorizontalPodAutoscalerConfig.Behavior.ScaleDown
		const lag = 3 * time.Minute
		if window := time.Duration(*down.StabilizationWindowSeconds) * time.Second; window < 2*lag {
			t.Errorf("the window of %s is short for metrics that are %s old", window, lag)
		}
		if cooldown := time.Duration(*spec.CooldownPeriod) * time.Second; cooldown < 2*lag {
			t.Errorf("the pause of %s before zero is short for metrics that are %s old", cooldown, lag)
		}
		for _, p := range down.Policies {
			if p.PeriodSeconds < 60 {
				t.Errorf("scale-in by %d every %d s is quick", p.Value, p.PeriodSeconds)
			}
		}
	})
}

func TestQueriesNameSubscriptionsThatThereAre(t *testing.T) {
	t.Parallel()
	names := source(t, "schemas/schemas.go")
	eachOverlay(t, func(t *testing.T, d *deployment) {
		seen := map[string]bool{}
		for _, trigger := range only(t, d.scaled).Spec.Triggers {
			query := trigger.Metadata["query"]
			for _, m := range regexp.MustCompile(`subscription_id="([^"]+)"`).FindAllStringSubmatch(query, -1) {
				seen[m[1]] = true
				if !regexp.MustCompile(`Subscription\w+ += "` + m[1] + `"`).MatchString(names) {
					t.Errorf("trigger %s asks for subscription %s, which there is not", trigger.Name, m[1])
				}
			}
		}
		for _, work := range []string{"jobs-online", "jobs-batch", "batches"} {
			if !seen[work] {
				t.Errorf("nothing asks for workers for %s", work)
			}
		}
	})
}

func TestCampaignIsAnnounced(t *testing.T) {
	t.Parallel()
	triggers := only(t, overlay(t, "campaign").scaled).Spec.Triggers
	last := triggers[len(triggers)-1]
	if last.Type != "cron" || number[int](t, last.Metadata["desiredReplicas"]) > int(*only(t, overlay(t, "example").scaled).Spec.MaxReplicaCount) {
		t.Errorf("the last trigger is %v", last)
	}
	if _, err := time.LoadLocation(last.Metadata["timezone"]); err != nil {
		t.Error(err)
	}
	for _, when := range []string{"start", "end"} {
		if fields := strings.Fields(last.Metadata[when]); len(fields) != 5 {
			t.Errorf("%s has %d fields", when, len(fields))
		}
	}
}

// KEDA's release is not in this repository. It is made of the folder config/ of KEDA's module, so that takes its place.
func TestKEDAGetsItsIdentityAndTheMirror(t *testing.T) {
	t.Parallel()
	text := source(t, "deploy/kubernetes/keda/kustomization.yaml")
	release := regexp.MustCompile(`https://github.com/kedacore/keda/releases/download/(v[\d.]+)/keda-([\d.]+)\.yaml`).FindStringSubmatch(text)
	if release == nil || release[1] != "v"+release[2] {
		t.Fatalf("the release is %v", release)
	}
	mem := filesys.MakeFsInMemory()
	if err := errors.Join(
		copyFiles(mem, moduleFolder(t, "github.com/kedacore/keda/v2", release[1])+"/config", "/config"),
		mem.WriteFile("/keda/kustomization.yaml", []byte(strings.Replace(text, release[0], "../config/default", 1))),
	); err != nil {
		t.Fatal(err)
	}
	objects, err := build(mem, "/keda")
	if err != nil {
		t.Fatal(err)
	}
	images := regexp.MustCompile(`image: (\S+)`).FindAllStringSubmatch(string(slices.Concat(objects...)), -1)
	for _, image := range images {
		if !strings.Contains(image[1], "-docker.pkg.dev/") || !strings.HasSuffix(image[1], ":"+release[2]) {
			t.Errorf("image %s does not come from the mirror", image[1])
		}
	}
	if len(images) != 3 {
		t.Errorf("there are %d images, want those of the operator, the metrics server and the webhooks", len(images))
	}
	terraform := source(t, "deploy/terraform/service-accounts.tf")
	accounts := 0
	for _, object := range objects {
		var account corev1.ServiceAccount
		if err := yaml.Unmarshal(object, &account); err != nil || account.Kind != "ServiceAccount" || account.Name != "keda-operator" {
			continue
		}
		accounts++
		if grant := fmt.Sprintf(`scaler = { namespace = %q, service_account = %q }`, account.Namespace, account.Name); !strings.Contains(terraform, grant) {
			t.Errorf("Terraform has no %s", grant)
		}
		if got := account.Annotations["iam.gke.io/gcp-service-account"]; !strings.HasPrefix(got, "assetmill-scaler@") {
			t.Errorf("KEDA's operator acts as %q", got)
		}
	}
	if accounts != 1 {
		t.Errorf("KEDA has %d accounts of that name", accounts)
	}
}

// moduleFolder returns where the source of a module is that these tests import.
func moduleFolder(t *testing.T, module, version string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", module).Output()
	if err != nil {
		t.Fatal(err)
	}
	has, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	if has != version {
		t.Fatalf("these tests have %s of %s, want %s", has, module, version)
	}
	return dir
}
