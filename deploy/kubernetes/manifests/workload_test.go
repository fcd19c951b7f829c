package manifests

import (
	"maps"
	"net"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// configuration is what of a parley.yaml has to fit the manifests.
type configuration struct {
	Server struct {
		Addr            string `json:"addr"`
		OperationsAddr  string `json:"operations_addr"`
		ShutdownTimeout string `json:"shutdown_timeout"`
	} `json:"server"`
	WebSocket struct {
		MaxConnections int `json:"max_connections"`
	} `json:"websocket"`
	LLM struct {
		Providers []struct {
			APIKey     string `json:"api_key"`
			APIKeyFile string `json:"api_key_file"`
			APIKeyEnv  string `json:"api_key_env"`
		} `json:"providers"`
	} `json:"llm"`
	Storage struct {
		Driver  string `json:"driver"`
		Journal struct {
			Path     string `json:"path"`
			MaxBytes string `json:"max_bytes"`
		} `json:"journal"`
		SQLite struct {
			Path string `json:"path"`
		} `json:"sqlite"`
		Encryption struct {
			KeysetFile string `json:"keyset_file"`
		} `json:"encryption"`
	} `json:"storage"`
}

// server gives the container that serves.
func server(t *testing.T, objects []any) corev1.Container {
	t.Helper()
	pod := one[*appsv1.Deployment](t, objects).Spec.Template.Spec
	if len(pod.Containers) != 1 || !slices.Equal(pod.Containers[0].Args, []string{"serve"}) {
		t.Fatalf("the containers are %+v", pod.Containers)
	}
	return pod.Containers[0]
}

// environment gives a container's variables.
func environment(c corev1.Container) map[string]string {
	values := make(map[string]string)
	for _, v := range c.Env {
		values[v.Name] = v.Value
	}
	return values
}

// volume gives the volume that a container has mounted at a folder.
func volume(t *testing.T, objects []any, c corev1.Container, folder string) corev1.Volume {
	t.Helper()
	for _, m := range c.VolumeMounts {
		if m.MountPath != folder {
			continue
		}
		for _, v := range one[*appsv1.Deployment](t, objects).Spec.Template.Spec.Volumes {
			if v.Name == m.Name {
				return v
			}
		}
	}
	t.Fatalf("%s has nothing mounted at %s", c.Name, folder)
	return corev1.Volume{}
}

// configurationOf gives the file that the server reads, as it is mounted.
func configurationOf(t *testing.T, objects []any) (text string, parsed configuration) {
	t.Helper()
	c := server(t, objects)
	file := environment(c)["PARLEY_CONFIG"]
	mounted := volume(t, objects, c, path.Dir(file))
	config := one[*corev1.ConfigMap](t, objects)
	if mounted.ConfigMap == nil || mounted.ConfigMap.Name != config.Name {
		t.Fatalf("%s lies in %+v, not in the config map %s", file, mounted, config.Name)
	}
	text, ok := config.Data[path.Base(file)]
	if !ok {
		t.Fatalf("the config map has no %s", path.Base(file))
	}
	if err := yaml.Unmarshal([]byte(text), &parsed); err != nil {
		t.Fatal(err)
	}
	return text, parsed
}

func TestPodsAreRestricted(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		namespace := one[*corev1.Namespace](t, objects)
		if namespace.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
			t.Error("the namespace does not enforce it")
		}
		pod := one[*appsv1.Deployment](t, objects).Spec.Template.Spec
		if c := pod.SecurityContext; c == nil || !isTrue(c.RunAsNonRoot) || c.RunAsUser == nil || *c.RunAsUser == 0 ||
			c.SeccompProfile == nil || c.SeccompProfile.Type != corev1.SeccompProfileTypeRuntimeDefault {
			t.Errorf("the pod's security context is %+v", c)
		}
		account := one[*corev1.ServiceAccount](t, objects)
		if !isFalse(pod.AutomountServiceAccountToken) || !isFalse(account.AutomountServiceAccountToken) || pod.ServiceAccountName != account.Name {
			t.Error("the pod gets a token for the cluster's API")
		}
		if pod.HostNetwork || pod.HostPID || pod.HostIPC {
			t.Error("the pod shares its node's namespaces")
		}
		for _, c := range containers(one[*appsv1.Deployment](t, objects)) {
			s := c.SecurityContext
			if s == nil || !isFalse(s.AllowPrivilegeEscalation) || !isTrue(s.ReadOnlyRootFilesystem) || isTrue(s.Privileged) ||
				s.Capabilities == nil || !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || len(s.Capabilities.Add) > 0 {
				t.Errorf("the security context of %s is %+v", c.Name, s)
			}
		}
	})
}

func isTrue(b *bool) bool  { return b != nil && *b }
func isFalse(b *bool) bool { return b != nil && !*b }

func TestProbesAskTheOperationsPort(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		c := server(t, objects)
		_, cfg := configurationOf(t, objects)
		for name, probe := range map[string]struct {
			*corev1.Probe
			path string
		}{
			"startup": {c.StartupProbe, "/healthz"}, "liveness": {c.LivenessProbe, "/healthz"}, "readiness": {c.ReadinessProbe, "/readyz"},
		} {
			if probe.Probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != probe.path || probe.HTTPGet.Port != intstr.FromString("operations") {
				t.Errorf("the %s probe is %+v", name, probe.Probe)
			}
		}
		for port, addr := range map[string]string{"http": cfg.Server.Addr, "operations": cfg.Server.OperationsAddr} {
			host, number, err := net.SplitHostPort(addr)
			if err != nil || host != "" || number != strconv.Itoa(int(containerPort(t, c, port))) {
				t.Errorf("the server listens on %q, which nobody reaches as the container's port %s", addr, port)
			}
		}
	})
}

func containerPort(t *testing.T, c corev1.Container, name string) int32 {
	t.Helper()
	for _, p := range c.Ports {
		if p.Name == name {
			return p.ContainerPort
		}
	}
	t.Fatalf("the container has no port %s", name)
	return 0
}

func TestTheGracePeriodIsLongEnough(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		_, cfg := configurationOf(t, objects)
		shutdown, err := time.ParseDuration(cfg.Server.ShutdownTimeout)
		if err != nil {
			t.Fatal(err)
		}
		c := server(t, objects)
		if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep == nil {
			t.Fatal("there is no sleep before the server is told to stop; the image has no shell for another hook")
		}
		sleep := time.Duration(c.Lifecycle.PreStop.Sleep.Seconds) * time.Second
		grace := time.Duration(*one[*appsv1.Deployment](t, objects).Spec.Template.Spec.TerminationGracePeriodSeconds) * time.Second
		const room = 5 * time.Second
		if sleep < 5*time.Second || grace < sleep+shutdown+room {
			t.Errorf("the grace period of %v does not hold the sleep of %v, the shutdown of %v and %v more", grace, sleep, shutdown, room)
		}
	})
}

func TestRollouts(t *testing.T) {
	objects, _ := build(t, "production")
	d := one[*appsv1.Deployment](t, objects)
	if r := d.Spec.Strategy.RollingUpdate; d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || r == nil ||
		r.MaxUnavailable == nil || *r.MaxUnavailable != intstr.FromInt32(0) || r.MaxSurge == nil || r.MaxSurge.IntValue() < 1 {
		t.Errorf("production is rolled out by %+v", d.Spec.Strategy)
	}
	if d.Spec.Replicas != nil {
		t.Error("production has a number of replicas, to which each apply resets what the autoscaler chose")
	}
	objects, _ = build(t, "dev")
	d = one[*appsv1.Deployment](t, objects)
	if d.Spec.Strategy.Type != appsv1.RecreateDeploymentStrategyType || d.Spec.Strategy.RollingUpdate != nil ||
		d.Spec.Replicas == nil || *d.Spec.Replicas != 1 {
		t.Errorf("dev has %v replicas, rolled out by %+v: two servers could have one file", d.Spec.Replicas, d.Spec.Strategy)
	}
	eachOverlay(t, func(t *testing.T, _ string, objects []any) { // else a change of the configuration changes no pod
		if name := one[*corev1.ConfigMap](t, objects).Name; !strings.HasPrefix(name, "parley-config-") {
			t.Errorf("the config map is called %s, whatever it holds", name)
		}
	})
}

func TestStorage(t *testing.T) {
	objects, _ := build(t, "dev")
	_, cfg := configurationOf(t, objects)
	v := volume(t, objects, server(t, objects), path.Dir(cfg.Storage.SQLite.Path))
	if claim := one[*corev1.PersistentVolumeClaim](t, objects); cfg.Storage.Driver != "sqlite" || v.EmptyDir != nil ||
		v.PersistentVolumeClaim == nil || v.PersistentVolumeClaim.ClaimName != claim.Name {
		t.Errorf("dev has %s on %+v", cfg.Storage.Driver, v)
	}

	objects, _ = build(t, "production")
	_, cfg = configurationOf(t, objects)
	v = volume(t, objects, server(t, objects), path.Dir(cfg.Storage.Journal.Path))
	if cfg.Storage.Driver != "mongodb" || v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.Medium != "" {
		t.Fatalf("production has %s, and its journal on %+v", cfg.Storage.Driver, v)
	}
	journal := resource.MustParse(strings.TrimSuffix(cfg.Storage.Journal.MaxBytes, "B"))
	if v.EmptyDir.SizeLimit.Cmp(journal) <= 0 {
		t.Errorf("a journal of %s makes the kubelet evict the pod, which may have %s", journal.String(), v.EmptyDir.SizeLimit)
	}
}

func TestResources(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		for _, c := range containers(one[*appsv1.Deployment](t, objects)) {
			if c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() || c.Resources.Limits.Memory().IsZero() {
				t.Errorf("the resources of %s are %+v", c.Name, c.Resources)
			}
		}
		c := server(t, objects)
		limit := resource.MustParse(strings.TrimSuffix(environment(c)["GOMEMLIMIT"], "B"))
		if limit.Cmp(*c.Resources.Limits.Memory()) >= 0 {
			t.Errorf("GOMEMLIMIT is %s, the limit %s", limit.String(), c.Resources.Limits.Memory())
		}
	})
}

func TestNetworkPolicyLetsInWhoIsNamed(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		pod := one[*appsv1.Deployment](t, objects).Spec.Template
		in := make(map[string][]networkingv1.NetworkPolicyPeer)
		covered := map[networkingv1.PolicyType]bool{}
		for _, p := range of[*networkingv1.NetworkPolicy](objects) {
			if !selects(p.Spec.PodSelector.MatchLabels, pod.Labels) || len(p.Spec.PodSelector.MatchLabels) == 0 {
				t.Errorf("%s is for %v, the pods have %v", p.Name, p.Spec.PodSelector.MatchLabels, pod.Labels)
			}
			for _, kind := range p.Spec.PolicyTypes {
				covered[kind] = true
			}
			for _, rule := range p.Spec.Ingress {
				if len(rule.Ports) != 1 || len(rule.From) == 0 {
					t.Fatalf("%s lets in %+v", p.Name, rule)
				}
				in[rule.Ports[0].Port.String()] = append(in[rule.Ports[0].Port.String()], rule.From...)
			}
			for _, rule := range p.Spec.Egress {
				if len(rule.Ports) == 0 || len(rule.To) == 0 {
					t.Errorf("%s lets out %+v", p.Name, rule)
				}
			}
		}
		if !covered[networkingv1.PolicyTypeIngress] || !covered[networkingv1.PolicyTypeEgress] {
			t.Errorf("only %v is limited", covered)
		}
		if ports := slices.Sorted(maps.Keys(in)); !slices.Equal(ports, []string{"http", "operations"}) {
			t.Errorf("the open ports are %q", ports)
		}
		if from := in["http"]; len(from) != 1 || from[0].NamespaceSelector.MatchLabels[metadataName] != "ingress-nginx" {
			t.Errorf("the public port is open to %+v", from)
		}
		if from := in["operations"]; len(from) != 1 || from[0].NamespaceSelector.MatchLabels[metadataName] != "monitoring" ||
			from[0].PodSelector.MatchLabels["app.kubernetes.io/name"] != "prometheus" {
			t.Errorf("the operations port is open to %+v", from)
		}
	})
}

const metadataName = "kubernetes.io/metadata.name"

func TestNetworkPolicyLetsOutToDNSProvidersAndMongoDB(t *testing.T) {
	eachOverlay(t, func(t *testing.T, overlay string, objects []any) {
		out := make(map[string][]networkingv1.NetworkPolicyPeer)
		for _, p := range of[*networkingv1.NetworkPolicy](objects) {
			for _, rule := range p.Spec.Egress {
				for _, port := range rule.Ports {
					key := string(*port.Protocol) + " " + port.Port.String()
					out[key] = append(out[key], rule.To...)
				}
			}
		}
		want := []string{"TCP 443", "TCP 53", "UDP 53"}
		if overlay == "production" {
			want = []string{"TCP 27017", "TCP 443", "TCP 53", "UDP 53"}
		}
		if ports := slices.Sorted(maps.Keys(out)); !slices.Equal(ports, want) {
			t.Errorf("the ports are %q, want %q", ports, want)
		}
		if to := out["UDP 53"]; len(to) == 0 || to[0].PodSelector.MatchLabels["k8s-app"] != "kube-dns" {
			t.Errorf("names are asked of %+v", to)
		}
		for _, to := range out["TCP 443"] {
			if to.IPBlock == nil || len(to.IPBlock.Except) == 0 {
				t.Errorf("by HTTPS it reaches %+v, the inside of the cluster too", to)
			}
		}
		for _, to := range out["TCP 27017"] {
			if to.PodSelector == nil || to.PodSelector.MatchLabels["app.kubernetes.io/name"] != "mongodb" {
				t.Errorf("MongoDB is looked for at %+v", to)
			}
		}
	})
}

// selects reports whether a selector takes what has such labels.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return len(selector) > 0
}

func TestServicesLeadToThePods(t *testing.T) {
	eachOverlay(t, func(t *testing.T, _ string, objects []any) {
		d := one[*appsv1.Deployment](t, objects)
		labels, c := d.Spec.Template.Labels, server(t, objects)
		if !selects(d.Spec.Selector.MatchLabels, labels) {
			t.Errorf("the deployment's selector is %v", d.Spec.Selector)
		}
		services := of[*corev1.Service](objects)
		if len(services) != 2 {
			t.Errorf("there are %d services", len(services))
		}
		for _, s := range services {
			if !selects(s.Spec.Selector, labels) || len(s.Spec.Ports) != 1 || s.Spec.Type != "" {
				t.Errorf("the service %s: %+v", s.Name, s.Spec)
			}
			containerPort(t, c, s.Spec.Ports[0].TargetPort.StrVal)
		}
	})
}

func TestProductionScalesOnConnections(t *testing.T) {
	objects, _ := build(t, "production")
	d := one[*appsv1.Deployment](t, objects)
	_, cfg := configurationOf(t, objects)
	hpa := one[*autoscalingv2.HorizontalPodAutoscaler](t, objects).Spec
	if hpa.ScaleTargetRef.Kind != "Deployment" || hpa.ScaleTargetRef.Name != d.Name || hpa.ScaleTargetRef.APIVersion != "apps/v1" {
		t.Errorf("it scales %+v", hpa.ScaleTargetRef)
	}
	if hpa.MinReplicas == nil || *hpa.MinReplicas < 2 || hpa.MaxReplicas <= *hpa.MinReplicas {
		t.Errorf("it scales from %v to %d", hpa.MinReplicas, hpa.MaxReplicas)
	}
	if len(hpa.Metrics) != 1 || hpa.Metrics[0].Type != autoscalingv2.PodsMetricSourceType {
		t.Fatalf("it scales on %+v", hpa.Metrics)
	}
	metric := hpa.Metrics[0].Pods
	if metric.Metric.Name != "parley_connections" || metric.Target.Type != autoscalingv2.AverageValueMetricType ||
		metric.Target.AverageValue.Value() < 1 || metric.Target.AverageValue.Value()*3 > int64(cfg.WebSocket.MaxConnections)*2 {
		t.Errorf("with %d connections a server it scales on %+v", cfg.WebSocket.MaxConnections, metric)
	}
}

func TestProductionSurvivesANode(t *testing.T) {
	objects, _ := build(t, "production")
	pod := one[*appsv1.Deployment](t, objects).Spec.Template
	budget := one[*policyv1.PodDisruptionBudget](t, objects).Spec
	if budget.MaxUnavailable == nil || budget.MaxUnavailable.IntValue() != 1 || !selects(budget.Selector.MatchLabels, pod.Labels) {
		t.Errorf("the disruption budget is %+v", budget)
	}
	spread := map[string]bool{}
	for _, c := range pod.Spec.TopologySpreadConstraints {
		spread[c.TopologyKey] = selects(c.LabelSelector.MatchLabels, pod.Labels)
	}
	if !spread["kubernetes.io/hostname"] || !spread["topology.kubernetes.io/zone"] {
		t.Errorf("the pods are spread over %v", spread)
	}
	dev, _ := build(t, "dev")
	if len(of[*policyv1.PodDisruptionBudget](dev)) > 0 {
		t.Error("dev's only pod has a disruption budget: it would hold up its node's drain")
	}
}

func TestPrometheusFindsThePods(t *testing.T) {
	objects, _ := build(t, "production")
	monitor := one[*monitoringv1.ServiceMonitor](t, objects)
	found := 0
	for _, s := range of[*corev1.Service](objects) {
		if !selects(monitor.Spec.Selector.MatchLabels, s.Labels) || s.Namespace != monitor.Namespace {
			continue
		}
		found++
		if e := monitor.Spec.Endpoints; len(e) != 1 || e[0].Port != s.Spec.Ports[0].Name || e[0].Path != "/metrics" || e[0].Port != "operations" {
			t.Errorf("%s is asked as %+v", s.Name, e)
		}
		if s.Spec.ClusterIP != corev1.ClusterIPNone || !s.Spec.PublishNotReadyAddresses {
			t.Errorf("%s does not lead to each pod, also those that drain", s.Name)
		}
	}
	if found != 1 {
		t.Errorf("it finds %d services", found)
	}
}
