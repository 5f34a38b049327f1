package check

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func (d *deployment) container(t *testing.T) corev1.Container {
	t.Helper()
	containers := only(t, d.workers).Spec.Template.Spec.Containers
	if len(containers) != 1 {
		t.Fatalf("a pod has %d containers, want one", len(containers))
	}
	return containers[0]
}

// flag returns the value of a flag on the worker's command line.
func (d *deployment) flag(t *testing.T, name string) string {
	t.Helper()
	for _, arg := range d.container(t).Args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
	}
	t.Fatalf("the worker has no --%s", name)
	return ""
}

func number[T int | float64](t *testing.T, text string) T {
	t.Helper()
	v, err := strconv.ParseFloat(text, 64)
	if err != nil {
		t.Fatal(err)
	}
	return T(v)
}

// constant returns a duration that the source sets, such as `settleTime = 20 * time.Second`.
func constant(t *testing.T, file, name string) time.Duration {
	t.Helper()
	m := regexp.MustCompile(`(?m)^\s*(?:const )?` + name + ` += (?:(\d+) \* )?time\.(Second|Minute)$`).FindStringSubmatch(source(t, file))
	if m == nil {
		t.Fatalf("%s does not set %s", file, name)
	}
	unit := map[string]time.Duration{"Second": time.Second, "Minute": time.Minute}[m[2]]
	return time.Duration(number[int](t, cmp.Or(m[1], "1"))) * unit
}

func TestEverythingDecodesStrictly(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		if len(d.configMaps) != 2 {
			t.Errorf("there are %d ConfigMaps, want those of the environment and the lanes", len(d.configMaps))
		}
		for _, object := range []metav1.Object{
			only(t, d.serviceAccounts), only(t, d.workers), only(t, d.budgets), only(t, d.monitorings), only(t, d.scaled), only(t, d.authentications),
			d.configMaps[0], d.configMaps[1],
		} {
			if object.GetNamespace() != only(t, d.namespaces).Name {
				t.Errorf("%T %s is in namespace %q", object, object.GetName(), object.GetNamespace())
			}
		}
	})
}

// A typing error in a manifest would go unnoticed if decoding were lenient.
func TestDecodingIsStrict(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {terminationGracePeriod: 600}}}",
		"apiVersion: keda.sh/v1alpha1\nkind: ScaledObject\nspec: {cooldown: 900}",
		"apiVersion: monitoring.googleapis.com/v1\nkind: PodMonitoring\nspec: {endpoints: [{port: metrics, every: 30s}]}",
		"apiVersion: batch/v1\nkind: Job",
	} {
		if err := (&deployment{}).decode([]byte(text)); err == nil {
			t.Errorf("this was accepted:\n%s", text)
		}
	}
}

// Between SIGTERM and SIGKILL everything has its time: the preStop hook, the calls, what they made, the last metrics.
func TestNoPaidCallIsCutOffByKubernetes(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		pod := only(t, d.workers).Spec.Template.Spec
		if pod.Containers[0].Lifecycle != nil {
			t.Fatal("a hook uses up the grace: count it here")
		}
		grace, err := time.ParseDuration(d.flag(t, "grace"))
		if err != nil {
			t.Fatal(err)
		}
		needed := grace + constant(t, "worker/worker.go", "settleTime") +
			constant(t, "internal/telemetry/telemetry.go", "flushTime") + constant(t, "internal/telemetry/server.go", "farewellTime")
		const margin = 10 * time.Second // to notice the signal, close connections and exit
		if given := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; given < needed+margin {
			t.Errorf("a pod is killed %s after SIGTERM, and its worker may need %s", given, needed)
		}
		if grace < constant(t, "worker/vertex/online.go", "CallTimeout") {
			t.Errorf("calls may take longer than the grace of %s", grace)
		}
	})
}

// GKE removes a node 10 minutes after it has asked its pods to go, unless one of them is not safe to evict.
func TestNodesWaitForThePods(t *testing.T) {
	t.Parallel()
	const patience = 600
	eachOverlay(t, func(t *testing.T, d *deployment) {
		template := only(t, d.workers).Spec.Template
		if *template.Spec.TerminationGracePeriodSeconds > patience && template.Annotations["cluster-autoscaler.kubernetes.io/safe-to-evict"] != "false" {
			t.Errorf("%d s are more than a node waits", *template.Spec.TerminationGracePeriodSeconds)
		}
		if _, spot := template.Spec.NodeSelector["cloud.google.com/gke-spot"]; spot {
			t.Error("Spot pods are killed 15 s after SIGTERM")
		}
	})
}

func TestFlexCallsHaveTheirTime(t *testing.T) {
	t.Parallel()
	grace, err := time.ParseDuration(overlay(t, "flex").flag(t, "grace"))
	if limit := constant(t, "worker/vertex/online.go", "CallTimeoutFlex"); err != nil || grace < limit {
		t.Errorf("the grace of %s is shorter than a flex call, %s: %v", grace, limit, err)
	}
}

func TestWorkerIsStartedAsItsCommandLineWants(t *testing.T) {
	t.Parallel()
	code := source(t, "cmd/assetmill/worker.go") + source(t, "cmd/assetmill/worker_telemetry.go")
	settings := source(t, "cmd/assetmill/settings.go") + source(t, "cmd/assetmill/worker_telemetry.go")
	eachOverlay(t, func(t *testing.T, d *deployment) {
		c := d.container(t)
		if c.Args[0] != "worker" || c.Command != nil {
			t.Errorf("it runs %v %v", c.Command, c.Args)
		}
		for _, arg := range c.Args[1:] {
			name, _, _ := strings.Cut(strings.TrimPrefix(arg, "--"), "=")
			if !regexp.MustCompile(`Flags\(\)\.\w+Var\(&[\w.]+, "` + name + `"`).MatchString(code) {
				t.Errorf("worker has no flag --%s", name)
			}
		}
		set := map[string]string{}
		for _, v := range c.Env {
			set[v.Name] = v.Value
		}
		for _, from := range c.EnvFrom {
			for _, m := range d.configMaps {
				if m.Name == from.ConfigMapRef.Name {
					for name, value := range m.Data {
						set[name] = value
					}
				}
			}
		}
		for name := range set {
			if !strings.Contains(settings, strconv.Quote(name)) {
				t.Errorf("assetmill does not know the setting %s", name)
			}
		}
		for _, name := range []string{"ASSETMILL_PROJECT", "ASSETMILL_BUCKET", "ASSETMILL_WORK_BUCKET", "ASSETMILL_DATASET"} {
			if set[name] == "" {
				t.Errorf("%s is not set", name)
			}
		}
		if !strings.HasPrefix(set["ASSETMILL_LANES"], c.VolumeMounts[0].MountPath+"/") {
			t.Errorf("the lanes are looked for in %s and mounted at %s", set["ASSETMILL_LANES"], c.VolumeMounts[0].MountPath)
		}
	})
}

// A change of the settings has to reach the workers, so the names carry a hash.
func TestSettingsMakeANewVersion(t *testing.T) {
	t.Parallel()
	d := overlay(t, "example")
	var names []string
	for _, m := range d.configMaps {
		names = append(names, m.Name)
		if !regexp.MustCompile(`^(environment|lanes)-[a-z0-9]{10}$`).MatchString(m.Name) {
			t.Errorf("the name %s has no hash", m.Name)
		}
	}
	pod := only(t, d.workers).Spec.Template.Spec
	for _, used := range []string{pod.Containers[0].EnvFrom[0].ConfigMapRef.Name, pod.Volumes[0].ConfigMap.Name} {
		if !slices.Contains(names, used) {
			t.Errorf("the pod uses %s, and there are %v", used, names)
		}
	}
}

// Autopilot: requests are limits, in steps of a quarter of a CPU, with 1 to 6.5 GiB for each.
func TestResourcesSuitAutopilot(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		r := d.container(t).Resources
		for name, limit := range r.Limits {
			if request := r.Requests[name]; request.Cmp(limit) != 0 {
				t.Errorf("%s: request %s, limit %s", name, request.String(), limit.String())
			}
		}
		cpu, memory := r.Requests[corev1.ResourceCPU], r.Requests[corev1.ResourceMemory]
		if cpu.MilliValue()%250 != 0 {
			t.Errorf("%s CPUs are no multiple of a quarter", cpu.String())
		}
		const gib = 1 << 30
		if ratio := float64(memory.Value()) / gib / cpu.AsApproximateFloat64(); ratio < 1 || ratio > 6.5 {
			t.Errorf("%.1f GiB for each CPU", ratio)
		}
		// The shares are those of internal/telemetry/memory.go.
		if images := number[float64](t, d.flag(t, "image-memory")) * (1 << 20); images > 0.5*0.9*float64(memory.Value()) {
			t.Errorf("%.0f MiB of images are more than half of what Go may use of %s", images/(1<<20), memory.String())
		}
	})
}

func TestPodsHaveNoRights(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		pod := only(t, d.workers).Spec.Template.Spec
		p, c := pod.SecurityContext, pod.Containers[0].SecurityContext
		switch {
		case !*p.RunAsNonRoot || *p.RunAsUser == 0 || *p.RunAsGroup == 0:
			t.Error("the worker may run as root")
		case p.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault:
			t.Error("no seccomp profile")
		case *c.AllowPrivilegeEscalation || !*c.ReadOnlyRootFilesystem || !slices.Equal(c.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(c.Capabilities.Add) > 0:
			t.Errorf("the container has rights: %v", c)
		case *pod.AutomountServiceAccountToken || *only(t, d.serviceAccounts).AutomountServiceAccountToken:
			t.Error("the pod has a token for the Kubernetes API, which it does not need")
		case pod.HostNetwork || pod.HostPID || pod.HostIPC:
			t.Error("the pod is part of its node")
		}
	})
}

func TestProbesAskThePortOfTheMetrics(t *testing.T) {
	t.Parallel()
	server := source(t, "internal/telemetry/server.go")
	eachOverlay(t, func(t *testing.T, d *deployment) {
		c := d.container(t)
		port := c.Ports[0]
		if address := d.flag(t, "metrics-addr"); address != ":"+strconv.Itoa(int(port.ContainerPort)) {
			t.Errorf("the worker serves %s, and port %s is %d", address, port.Name, port.ContainerPort)
		}
		paths := []string{only(t, d.monitorings).Spec.Endpoints[0].Path}
		for _, p := range []*corev1.Probe{c.StartupProbe, c.ReadinessProbe, c.LivenessProbe} {
			paths = append(paths, p.HTTPGet.Path)
			if p.HTTPGet.Port.String() != port.Name {
				t.Errorf("a probe asks port %s", p.HTTPGet.Port.String())
			}
		}
		for _, path := range paths {
			if !strings.Contains(server, strconv.Quote("GET "+path)) {
				t.Errorf("the worker does not serve %s", path)
			}
		}
		if got := only(t, d.monitorings).Spec.Endpoints[0].Port.String(); got != port.Name {
			t.Errorf("metrics are read from port %s", got)
		}
		if c.LivenessProbe.HTTPGet.Path != "/healthz" || c.StartupProbe.HTTPGet.Path != "/readyz" || c.ReadinessProbe.HTTPGet.Path != "/readyz" {
			t.Error("a worker that stops, or has no work, must not be killed: liveness is /healthz, the others are /readyz")
		}
	})
}

func TestSelectorsFindThePods(t *testing.T) {
	t.Parallel()
	eachOverlay(t, func(t *testing.T, d *deployment) {
		w := only(t, d.workers)
		spread := w.Spec.Template.Spec.TopologySpreadConstraints
		all := []*metav1.LabelSelector{w.Spec.Selector, only(t, d.budgets).Spec.Selector, &only(t, d.monitorings).Spec.Selector}
		for _, s := range spread {
			all = append(all, s.LabelSelector)
		}
		for _, one := range all {
			s, err := metav1.LabelSelectorAsSelector(one)
			if err != nil || s.Empty() || !s.Matches(labels.Set(w.Spec.Template.Labels)) {
				t.Errorf("%v does not find the pods: %v", one, err)
			}
		}
		if w.Spec.Replicas != nil {
			t.Error("the number of replicas is the autoscaler's")
		}
	})
}

// The grants of Workload Identity name the namespace and the account.
func TestNamesAreTerraforms(t *testing.T) {
	t.Parallel()
	d := overlay(t, "example")
	accounts := source(t, "deploy/terraform/service-accounts.tf")
	namespace := regexp.MustCompile(`namespace += optional\(string, "([^"]+)"\)`).FindStringSubmatch(source(t, "deploy/terraform/variables.tf"))
	if namespace == nil || namespace[1] != only(t, d.namespaces).Name {
		t.Errorf("Terraform's namespace is %v", namespace)
	}
	account := only(t, d.serviceAccounts)
	if !regexp.MustCompile(`(?m)^    ` + account.Name + ` += "`).MatchString(accounts) {
		t.Errorf("Terraform has no account for %s", account.Name)
	}
	if got, want := account.Annotations["iam.gke.io/gcp-service-account"], "assetmill-"+account.Name+"@example-project.iam.gserviceaccount.com"; got != want {
		t.Errorf("the account acts as %s, want %s", got, want)
	}
	if only(t, d.workers).Spec.Template.Spec.ServiceAccountName != account.Name {
		t.Error("the pods have another account")
	}
}
