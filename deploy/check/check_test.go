// Package check holds what is in deploy to the programs that will read it: the
// chart to Helm's own linter and to the types of Kubernetes, the compose file to
// the Compose specification's loader, the Dockerfile to BuildKit's parser. It is
// a module of its own, so that none of this is a dependency of the server.
package check

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

const chartDir = "../helm/parley"

// trials are sets of values that together use every template.
var trials = map[string]map[string]any{
	"one node":    {"replicas": 1},
	"three nodes": {"redis": map[string]any{"url": "redis://redis:6379/0"}, "persistence": map[string]any{"enabled": true}},
	"istio canary": {
		"redis":  map[string]any{"existingSecret": "redis-url"},
		"istio":  map[string]any{"enabled": true},
		"canary": map[string]any{"enabled": true, "image": map[string]any{"tag": "2"}},
	},
	"nginx canary": {
		"redis":      map[string]any{"url": "rediss://redis:6379/0"},
		"ingress":    map[string]any{"enabled": true, "tlsSecret": "tls"},
		"canary":     map[string]any{"enabled": true, "image": map[string]any{"tag": "2"}},
		"podMonitor": map[string]any{"enabled": true, "labels": map[string]any{"team": "chat"}},
		"config":     map[string]any{"limits": map[string]any{"text_bytes": "8KiB"}},
		"plugins":    map[string]any{"configMap": "filters"},
		"auth":       map[string]any{"existingSecret": "keys"},
		"files":      map[string]any{"existingSecret": "redis-ca"},
	},
}

// TestHelmLints runs `helm lint` with each set of values.
func TestHelmLints(t *testing.T) {
	for name, values := range trials {
		for _, m := range lint.All(chartDir, values, "chat", true).Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %s", name, m)
			}
		}
	}
}

// render returns the objects of the chart by kind and name.
func render(t *testing.T, values map[string]any) (map[string]runtime.Object, error) {
	t.Helper()
	var c *chart.Chart
	c, err := loader.Load(chartDir)
	if err != nil {
		t.Fatal(err)
	}
	all, err := chartutil.ToRenderValues(c, values, chartutil.ReleaseOptions{Name: "chat", Namespace: "people", Revision: 1, IsInstall: true}, chartutil.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Render(c, all)
	if err != nil {
		return nil, err
	}
	// Strict: a field that Kubernetes does not know is an error.
	known := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Yaml: true, Strict: true})
	objects := map[string]runtime.Object{}
	for file, text := range files {
		if filepath.Ext(file) == ".txt" {
			continue
		}
		for reader := yaml.NewDocumentDecoder(readCloser{bytes.NewReader([]byte(text))}); ; {
			doc := make([]byte, 1<<20)
			n, err := reader.Read(doc)
			if err != nil {
				break
			}
			if len(bytes.TrimSpace(onlyYAML(doc[:n]))) == 0 {
				continue
			}
			obj, kind, err := known.Decode(doc[:n], nil, nil)
			if runtime.IsNotRegisteredError(err) { // of an extension: Istio, the Prometheus operator
				u := &unstructured.Unstructured{}
				if err := yaml.Unmarshal(doc[:n], &u.Object); err != nil {
					t.Fatalf("%s: %v\n%s", file, err, doc[:n])
				}
				objects[u.GetKind()+" "+u.GetName()] = u
				continue
			}
			if err != nil {
				t.Fatalf("%s: %v\n%s", file, err, doc[:n])
			}
			name := obj.(interface{ GetName() string }).GetName()
			objects[kind.Kind+" "+name] = obj
		}
	}
	return objects, nil
}

type readCloser struct{ *bytes.Reader }

func (readCloser) Close() error { return nil }

// onlyYAML is a document without its comments.
func onlyYAML(doc []byte) (out []byte) {
	for line := range bytes.Lines(doc) {
		if !bytes.HasPrefix(bytes.TrimSpace(line), []byte("#")) {
			out = append(out, line...)
		}
	}
	return out
}

// TestObjectsAreKnown decodes every object strictly, and looks at what decides
// about the trial of a release.
func TestObjectsAreKnown(t *testing.T) {
	for name, values := range trials {
		objects, err := render(t, values)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		stable, ok := objects["StatefulSet chat-parley-stable"].(*appsv1.StatefulSet)
		if !ok {
			t.Fatalf("%s: no nodes in %v", name, objects)
		}
		if stable.Spec.Template.Labels["release"] != "stable" || stable.Spec.Selector.MatchLabels["release"] != "stable" {
			t.Errorf("%s: the nodes do not say which release they are", name)
		}
		for key, obj := range objects {
			service, ok := obj.(*corev1.Service)
			if !ok || service.Spec.ClusterIP == "None" {
				continue
			}
			if service.Spec.Selector["release"] == "" {
				t.Errorf("%s: %s mixes releases, so that shares mean nothing", name, key)
			}
		}
		_, canary := values["canary"]
		if _, ok := objects["StatefulSet chat-parley-canary"]; ok != canary {
			t.Errorf("%s: nodes on trial: %v, want %v", name, ok, canary)
		}
		if !canary {
			continue
		}
		if share := share(t, objects); share != "5" {
			t.Errorf("%s: the canary has a share of %s %%, want 5", name, share)
		}
		job := guard(objects)
		if job == nil {
			t.Fatalf("%s: no guard", name)
		}
		args := strings.Join(job.Spec.Template.Spec.Containers[0].Args, " ")
		patches := objects["ConfigMap chat-parley-guard"].(*corev1.ConfigMap).Data
		for _, want := range []string{"statefulsets/chat-parley-canary/scale=/etc/guard/nodes.json", "--error-rate=0.01", "--p99=500ms"} {
			if !strings.Contains(args, want) {
				t.Errorf("%s: the guard's arguments %q lack %s", name, args, want)
			}
		}
		for file, text := range patches {
			if !strings.Contains(text, `"weight":0`) && !strings.Contains(text, `weight":"0"`) && !strings.Contains(text, `"replicas":0`) && strings.Contains(args, file) {
				t.Errorf("%s: %s takes nothing back: %s", name, file, text)
			}
		}
	}
}

// TestNodesFindTheirFiles looks at what the nodes are given as folders: a secret
// for the keys that name a file, and plugins that nobody can write, which the
// nodes must not try to keep in step with each other.
func TestNodesFindTheirFiles(t *testing.T) {
	objects, err := render(t, trials["nginx canary"])
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range []string{"stable", "canary"} {
		pod := objects["StatefulSet chat-parley-"+release].(*appsv1.StatefulSet).Spec.Template.Spec
		c := pod.Containers[0]
		mounted := slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.Name == "files" && m.MountPath == "/etc/parley-files" && m.ReadOnly
		})
		if !mounted || !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "files" && v.Secret.SecretName == "redis-ca" }) {
			t.Errorf("%s: the secret files are not mounted", release)
		}
		if !slices.ContainsFunc(c.Env, func(e corev1.EnvVar) bool { return e.Name == "PARLEY_PLUGINS_SHARE" && e.Value == "false" }) {
			t.Errorf("%s: nodes would share a folder of plugins that they cannot write", release)
		}
	}
}

// share is the canary's share of new connections, as Istio or nginx is told.
func share(t *testing.T, objects map[string]runtime.Object) string {
	t.Helper()
	if in, ok := objects["Ingress chat-parley-canary"].(*networkingv1.Ingress); ok {
		return in.Annotations["nginx.ingress.kubernetes.io/canary-weight"]
	}
	vs, ok := objects["VirtualService chat-parley"].(*unstructured.Unstructured)
	if !ok {
		return "no"
	}
	http, _, _ := unstructured.NestedSlice(vs.Object, "spec", "http")
	routes := http[0].(map[string]any)["route"].([]any)
	var total, canary int64
	for _, r := range routes {
		weight, _ := r.(map[string]any)["weight"].(int64)
		if weight == 0 {
			weight = int64(r.(map[string]any)["weight"].(float64))
		}
		total += weight
		if host, _, _ := unstructured.NestedString(r.(map[string]any), "destination", "host"); host == "chat-parley-canary" {
			canary = weight
		}
	}
	if total != 100 {
		t.Errorf("the shares make %d %%, want 100", total)
	}
	return map[int64]string{5: "5"}[canary]
}

func guard(objects map[string]runtime.Object) *batchv1.Job {
	for key, obj := range objects {
		if strings.HasPrefix(key, "Job chat-parley-guard") {
			return obj.(*batchv1.Job)
		}
	}
	return nil
}

// TestChartRefuses names what cannot work before it is installed.
func TestChartRefuses(t *testing.T) {
	for want, values := range map[string]map[string]any{
		"needs a Redis":           {"replicas": 3},
		"which release":           {"redis": map[string]any{"url": "redis://r:1"}, "canary": map[string]any{"enabled": true}},
		"istio or ingress":        {"redis": map[string]any{"url": "redis://r:1"}, "canary": map[string]any{"enabled": true, "image": map[string]any{"tag": "2"}}},
		"redis.url":               {"redis": map[string]any{"url": "localhost:6379"}},
		"canary.weight":           {"replicas": 1, "canary": map[string]any{"weight": 101}},
		"replicas":                {"replicas": 0},
		"shares the rooms of the": {"replicas": 1, "canary": map[string]any{"enabled": true}},
	} {
		if _, err := render(t, values); err == nil || !strings.Contains(strings.ReplaceAll(err.Error(), "/", "."), want) {
			t.Errorf("%v: got %v, want an error with %q", values, err, want)
		}
	}
}

// TestComposeLoads reads the compose file as docker compose does.
func TestComposeLoads(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"../compose/compose.yaml"}, cli.WithResolvedPaths(true))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var nodes []string
	for _, s := range project.Services {
		if s.Build == nil {
			continue
		}
		nodes = append(nodes, s.Name)
		if _, err := os.Stat(filepath.Join(s.Build.Context, s.Build.Dockerfile)); err != nil {
			t.Errorf("%s is built from nothing: %v", s.Name, err)
		}
		if url := s.Environment["PARLEY_REDIS_URL"]; url == nil || !strings.Contains(*url, "//redis:") {
			t.Errorf("%s does not share the Redis", s.Name)
		}
	}
	slices.Sort(nodes)
	if !slices.Equal(nodes, []string{"node1", "node2", "node3"}) {
		t.Errorf("got nodes %v, want three", nodes)
	}
	if command := strings.Join(project.Services["redis"].Command, " "); !strings.Contains(command, "appendfsync always") {
		t.Errorf("redis is started with %q, which may lose what was acknowledged", command)
	}
}

// TestDockerfileParses reads the Dockerfile as BuildKit does, and looks for
// files that it copies and that are not there.
func TestDockerfileParses(t *testing.T) {
	f, err := os.Open("../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tree, err := parser.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	stages, _, err := instructions.Parse(tree.AST, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, stage := range stages {
		for _, c := range stage.Commands {
			copies, ok := c.(*instructions.CopyCommand)
			if !ok || copies.From != "" {
				continue
			}
			for _, path := range copies.SourcePaths {
				if _, err := os.Stat(filepath.Join("../..", path)); err != nil {
					t.Errorf("the Dockerfile copies %s: %v", path, err)
				}
			}
		}
	}
}
