package manifests

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"
)

// overlays are those that somebody applies.
var overlays = []string{"dev", "production"}

// kinds makes an empty object of each kind that manifests may have.
var kinds = map[string]func() any{
	"v1/Namespace":                            func() any { return new(corev1.Namespace) },
	"v1/ServiceAccount":                       func() any { return new(corev1.ServiceAccount) },
	"v1/ConfigMap":                            func() any { return new(corev1.ConfigMap) },
	"v1/Secret":                               func() any { return new(corev1.Secret) },
	"v1/Service":                              func() any { return new(corev1.Service) },
	"v1/PersistentVolumeClaim":                func() any { return new(corev1.PersistentVolumeClaim) },
	"apps/v1/Deployment":                      func() any { return new(appsv1.Deployment) },
	"autoscaling/v2/HorizontalPodAutoscaler":  func() any { return new(autoscalingv2.HorizontalPodAutoscaler) },
	"networking.k8s.io/v1/NetworkPolicy":      func() any { return new(networkingv1.NetworkPolicy) },
	"networking.k8s.io/v1/Ingress":            func() any { return new(networkingv1.Ingress) },
	"policy/v1/PodDisruptionBudget":           func() any { return new(policyv1.PodDisruptionBudget) },
	"monitoring.coreos.com/v1/ServiceMonitor": func() any { return new(monitoringv1.ServiceMonitor) },
	"external-secrets.io/v1/ExternalSecret":   func() any { return new(externalSecret) },
}

// externalSecret is what of the type of the External Secrets Operator the example uses. (The real one's module is not
// published under a version of its own.)
type externalSecret struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name      string `json:"name"`
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		RefreshInterval string `json:"refreshInterval"`
		SecretStoreRef  struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
		} `json:"secretStoreRef"`
		Target struct {
			Name           string `json:"name"`
			CreationPolicy string `json:"creationPolicy"`
		} `json:"target"`
		Data []struct {
			SecretKey string `json:"secretKey"`
			RemoteRef struct {
				Key string `json:"key"`
			} `json:"remoteRef"`
		} `json:"data"`
	} `json:"spec"`
}

// decode reads a document as the type that the API has for its kind. A field that the type does not have is an error.
func decode(t *testing.T, document []byte) any {
	t.Helper()
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := yaml.Unmarshal(document, &head); err != nil {
		t.Fatalf("%v in\n%s", err, document)
	}
	empty, ok := kinds[head.APIVersion+"/"+head.Kind]
	if !ok {
		t.Fatalf("no test knows the kind %s/%s", head.APIVersion, head.Kind)
	}
	object := empty()
	if err := yaml.UnmarshalStrict(document, object); err != nil {
		t.Fatalf("%s: %v in\n%s", head.Kind, err, document)
	}
	return object
}

// build gives what kubectl apply -k would apply, and its text.
func build(t *testing.T, overlay string) (objects []any, text string) {
	t.Helper()
	built, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), filepath.Join("../overlays", overlay))
	if err != nil {
		t.Fatal(err)
	}
	for _, resource := range built.Resources() {
		document, err := resource.AsYAML()
		if err != nil {
			t.Fatal(err)
		}
		objects = append(objects, decode(t, document))
		text += string(document) + "---\n"
	}
	return objects, text
}

// of gives the objects of a type.
func of[T any](objects []any) (found []T) {
	for _, o := range objects {
		if o, ok := o.(T); ok {
			found = append(found, o)
		}
	}
	return found
}

// one gives the only object of a type.
func one[T any](t *testing.T, objects []any) T {
	t.Helper()
	found := of[T](objects)
	if len(found) != 1 {
		t.Fatalf("there are %d of %T", len(found), *new(T))
	}
	return found[0]
}

// documents gives the objects of a file that is no part of a kustomization.
func documents(t *testing.T, path string) (objects []any) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for document := range bytes.SplitSeq(text, []byte("\n---\n")) {
		objects = append(objects, decode(t, document))
	}
	return objects
}

// eachOverlay runs a test for each overlay.
func eachOverlay(t *testing.T, test func(t *testing.T, overlay string, objects []any)) {
	t.Helper()
	for _, overlay := range overlays {
		t.Run(overlay, func(t *testing.T) {
			objects, _ := build(t, overlay)
			test(t, overlay, objects)
		})
	}
}

func TestOverlaysAreWhatTheAPIKnows(t *testing.T) {
	folders, err := filepath.Glob("../overlays/*/kustomization.yaml")
	if err != nil || len(folders) != len(overlays) {
		t.Errorf("the folders are %q (%v), this test knows %q", folders, err, overlays)
	}
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		if len(objects) < 7 {
			t.Errorf("there are only %d objects", len(objects))
		}
	})
}

func TestExamplesAreWhatTheAPIKnows(t *testing.T) {
	examples, err := filepath.Glob("../*.example.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("there are no examples: %v", err)
	}
	for _, path := range examples {
		objects := documents(t, path)
		services := make(map[string]*corev1.Service)
		production, _ := build(t, "production")
		for _, s := range of[*corev1.Service](production) {
			services[s.Name] = s
		}
		backend := one[*networkingv1.Ingress](t, objects).Spec.Rules[0].HTTP.Paths[0].Backend.Service
		if s := services[backend.Name]; s == nil || s.Spec.Ports[0].Name != backend.Port.Name {
			t.Errorf("%s leads to %+v, which there is not", path, backend)
		}
	}
}

func TestNothingIsLeftToFillIn(t *testing.T) {
	for _, overlay := range overlays {
		_, text := build(t, overlay)
		for _, left := range []string{"<", "example.com", "example.org", "CHANGE", "REPLACE", "TODO", "FIXME", "PASSWORD", ":latest"} {
			if strings.Contains(text, left) {
				t.Errorf("%s: %q is left in what would be applied", overlay, left)
			}
		}
	}
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		for _, c := range containers(one[*appsv1.Deployment](t, objects)) {
			if _, tag, ok := strings.Cut(c.Image, ":"); !ok || !strings.HasPrefix(tag, "v") {
				t.Errorf("the image of %s is %s, of no version", c.Name, c.Image)
			}
		}
	})
}

// containers gives those that a pod starts with, and those that it runs.
func containers(d *appsv1.Deployment) []corev1.Container {
	return slices.Concat(d.Spec.Template.Spec.InitContainers, d.Spec.Template.Spec.Containers)
}
