package check

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	kedav1alpha1 "github.com/kedacore/keda/v2/apis/keda/v1alpha1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// root is deploy/kubernetes, repository the folder of the whole.
const (
	root       = ".."
	repository = "../../.."
)

// podMonitoring is the part of monitoring.googleapis.com/v1 that is used here. Google's module with these types can't be had from the Go
// proxy; the names were compared with its source.
type podMonitoring struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		Selector  metav1.LabelSelector `json:"selector"`
		Endpoints []struct {
			Port     intstr.IntOrString `json:"port"`
			Path     string             `json:"path,omitempty"`
			Interval string             `json:"interval,omitempty"`
			Timeout  string             `json:"timeout,omitempty"`
		} `json:"endpoints"`
	} `json:"spec"`
}

// deployment is everything that an overlay makes.
type deployment struct {
	namespaces      []*corev1.Namespace
	serviceAccounts []*corev1.ServiceAccount
	configMaps      []*corev1.ConfigMap
	workers         []*appsv1.Deployment
	budgets         []*policyv1.PodDisruptionBudget
	monitorings     []*podMonitoring
	scaled          []*kedav1alpha1.ScaledObject
	authentications []*kedav1alpha1.TriggerAuthentication
}

// overlays are the combinations that are tested, by name: the example, with components added to it. Each is built once, since that takes a
// while; tests only read it.
var overlays = map[string]func() (*deployment, error){
	"example":      sync.OnceValues(func() (*deployment, error) { return makeOverlay() }),
	"campaign":     sync.OnceValues(func() (*deployment, error) { return makeOverlay("campaign") }),
	"flex":         sync.OnceValues(func() (*deployment, error) { return makeOverlay("flex") }),
	"all together": sync.OnceValues(func() (*deployment, error) { return makeOverlay("campaign", "flex") }),
}

// overlay returns one of the combinations.
func overlay(t *testing.T, name string) *deployment {
	t.Helper()
	d, err := overlays[name]()
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// eachOverlay runs a test on every combination.
func eachOverlay(t *testing.T, test func(t *testing.T, d *deployment)) {
	for name := range overlays {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, overlay(t, name))
		})
	}
}

// makeOverlay builds and decodes the example with some components.
func makeOverlay(components ...string) (*deployment, error) {
	mem := filesys.MakeFsInMemory()
	text := "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources: [../overlays/example]\n"
	if len(components) > 0 {
		text += "components: [../components/" + strings.Join(components, ", ../components/") + "]\n"
	}
	if err := errors.Join(copyFiles(mem, root, "/kubernetes"), mem.WriteFile("/kubernetes/tested/kustomization.yaml", []byte(text))); err != nil {
		return nil, err
	}
	objects, err := build(mem, "/kubernetes/tested")
	if err != nil {
		return nil, err
	}
	d := &deployment{}
	for _, object := range objects {
		if err := d.decode(object); err != nil {
			return nil, fmt.Errorf("%w in:\n%s", err, object)
		}
	}
	return d, nil
}

// copyFiles copies a folder into a file system in memory.
func copyFiles(to filesys.FileSystem, from, folder string) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		return to.WriteFile(folder+"/"+filepath.ToSlash(name), text)
	})
}

// build returns what a folder makes, one YAML document for each object.
func build(files filesys.FileSystem, folder string) ([][]byte, error) {
	m, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(files, folder)
	if err != nil {
		return nil, fmt.Errorf("kustomize: %w", err)
	}
	var all [][]byte
	for _, r := range m.Resources() {
		text, err := r.AsYAML()
		if err != nil {
			return nil, err
		}
		all = append(all, text)
	}
	return all, nil
}

// decode puts one object where it belongs. Unknown kinds and unknown fields are errors.
func (d *deployment) decode(text []byte) error {
	var meta metav1.TypeMeta
	if err := yaml.Unmarshal(text, &meta); err != nil {
		return err
	}
	switch kind := meta.APIVersion + " " + meta.Kind; kind {
	case "v1 Namespace":
		return decodeInto(text, &d.namespaces)
	case "v1 ServiceAccount":
		return decodeInto(text, &d.serviceAccounts)
	case "v1 ConfigMap":
		return decodeInto(text, &d.configMaps)
	case "apps/v1 Deployment":
		return decodeInto(text, &d.workers)
	case "policy/v1 PodDisruptionBudget":
		return decodeInto(text, &d.budgets)
	case "monitoring.googleapis.com/v1 PodMonitoring":
		return decodeInto(text, &d.monitorings)
	case "keda.sh/v1alpha1 ScaledObject":
		return decodeInto(text, &d.scaled)
	case "keda.sh/v1alpha1 TriggerAuthentication":
		return decodeInto(text, &d.authentications)
	default:
		return fmt.Errorf("no type for %s", kind)
	}
}

func decodeInto[T any](text []byte, to *[]*T) error {
	var object T
	if err := yaml.UnmarshalStrict(text, &object); err != nil {
		return err
	}
	*to = append(*to, &object)
	return nil
}

// only returns the one object that there must be.
func only[T any](t *testing.T, all []*T) *T {
	t.Helper()
	if len(all) != 1 {
		t.Fatalf("there are %d of %T, want one", len(all), *new(T))
	}
	return all[0]
}

// source reads a file of the repository.
func source(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
