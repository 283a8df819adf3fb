package v1alpha1_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/yaml"
)

// emptied holds one optional object or map of a kind's spec: a spec that fills it, the same with {} there, and the same
// without it. A {} that means nothing is refused when an object is created, and so when it is applied.
type emptied struct {
	kind, path        string
	full, empty, none string
	immutable         bool // it cannot be taken out
}

var emptiedCases = []emptied{
	{kind: channel, path: ".spec", full: `{queue: {delaySeconds: 5}, tags: {a: b}}`, empty: `{}`},
	{kind: channel, path: ".spec.fifo", full: `{fifo: {contentBasedDeduplication: Enabled}}`, empty: `{fifo: {}}`, none: `{}`, immutable: true},
	{kind: channel, path: ".spec.queue", full: `{queue: {delaySeconds: 5, visibilityTimeoutSeconds: 9}}`, empty: `{queue: {}}`, none: `{}`},
	{kind: channel, path: ".spec.encryption", full: `{encryption: {type: None}}`, empty: `{encryption: {}}`, none: `{}`},
	{kind: channel, path: ".spec.deadLetter", full: `{deadLetter: {maxReceiveCount: 5, queue: {}}}`, empty: `{deadLetter: {}}`, none: `{}`},
	{
		kind: channel, path: ".spec.deadLetter.queue", full: `{deadLetter: {maxReceiveCount: 5, queue: {messageRetentionSeconds: 600}}}`,
		empty: `{deadLetter: {maxReceiveCount: 5, queue: {}}}`, none: `{deadLetter: {maxReceiveCount: 5, channelRef: {name: a}}}`,
	},
	{
		kind: channel, path: ".spec.deadLetter.channelRef", full: `{deadLetter: {maxReceiveCount: 5, channelRef: {name: a}}}`,
		empty: `{deadLetter: {maxReceiveCount: 5, channelRef: {}}}`, none: `{deadLetter: {maxReceiveCount: 5, queue: {}}}`,
	},
	{kind: channel, path: ".spec.deadLettersFrom", full: `{deadLettersFrom: {permission: None}}`, empty: `{deadLettersFrom: {}}`, none: `{}`},
	{kind: channel, path: ".spec.tags", full: `{tags: {a: b}}`, empty: `{tags: {}}`, none: `{}`},
	{kind: channel, path: ".spec.extraAttributes", full: `{extraAttributes: {Next: "1"}}`, empty: `{extraAttributes: {}}`, none: `{}`},
	{kind: channel, path: ".spec.allowedCallers", full: `{allowedCallers: {from: All}}`, empty: `{allowedCallers: {}}`, none: `{}`},
	{
		kind: channel, path: ".spec.allowedCallers.selector", full: `{allowedCallers: {from: Selector, selector: {matchLabels: {a: b}}}}`,
		empty: `{allowedCallers: {from: Selector, selector: {}}}`, none: `{allowedCallers: {from: All}}`,
	},
	{
		kind: channel, path: ".spec.allowedCallers.selector.matchLabels", full: `{allowedCallers: {from: Selector, selector: {matchLabels: {a: b}}}}`,
		empty: `{allowedCallers: {from: Selector, selector: {matchLabels: {}}}}`, none: `{allowedCallers: {from: Selector, selector: {}}}`,
	},
	{kind: channel, path: ".spec.call", full: `{call: {timeoutSeconds: 5}}`, empty: `{call: {}}`, none: `{}`},
	{kind: channel, path: ".spec.providerRef", full: `{providerRef: {name: a}}`, empty: `{providerRef: {}}`, none: `{}`, immutable: true},
	{kind: channel, path: ".spec.binding", full: `{binding: {secretName: a}}`, empty: `{binding: {}}`, none: `{}`},
	{kind: host, path: ".spec", full: `{queue: {visibilityTimeoutSeconds: 5}, tags: {a: b}}`, empty: `{}`},
	{kind: host, path: ".spec.queue", full: `{queue: {visibilityTimeoutSeconds: 5}}`, empty: `{queue: {}}`, none: `{}`},
	// One rule reads what is below queue, for this identity alone.
	{kind: host, path: ".spec.queue", full: `{identity: Stable, queue: {messageRetentionSeconds: 600}}`, empty: `{identity: Stable, queue: {}}`, none: `{identity: Stable}`},
	{kind: host, path: ".spec.encryption", full: `{encryption: {type: None}}`, empty: `{encryption: {}}`, none: `{}`},
	{kind: host, path: ".spec.tags", full: `{tags: {a: b}}`, empty: `{tags: {}}`, none: `{}`},
	{kind: host, path: ".spec.providerRef", full: `{providerRef: {name: a}}`, empty: `{providerRef: {}}`, none: `{}`, immutable: true},
	{kind: host, path: ".spec.heartbeat", full: `{heartbeat: {intervalSeconds: 5}}`, empty: `{heartbeat: {}}`, none: `{}`},
	{kind: qp, path: ".spec.defaultTags", full: allOf + `, defaultTags: {a: b}}`, empty: allOf + `, defaultTags: {}}`, none: allOf + `}`},
	{
		kind: qp, path: ".spec.namespaces.selector", full: `{namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}`,
		empty: `{namespaces: {from: Selector, selector: {}}}`, none: `{namespaces: {from: All}}`,
	},
	{
		kind: qp, path: ".spec.namespaces.selector.matchLabels", full: `{namespaces: {from: Selector, selector: {matchLabels: {a: b}}}}`,
		empty: `{namespaces: {from: Selector, selector: {matchLabels: {}}}}`, none: `{namespaces: {from: Selector, selector: {}}}`,
	},
}

// TestEmptiedServerSide has one applier apply {} where it applied something before: the merge leaves null where the last
// field that anybody owns went, so that every object has to take null for {}, or to be atomic. What may be created may be
// applied so too, now and at every later time, and reads as empty. It fails for an optional object that no case is about.
func TestEmptiedServerSide(t *testing.T) {
	c := apiServer(t)
	ctx := context.Background()
	seen := map[string]bool{}
	for i, tc := range emptiedCases {
		seen[tc.kind+tc.path] = true
		t.Run(tc.kind+tc.path+" "+tc.full, func(t *testing.T) {
			name := fmt.Sprintf("emptied-%d", i)
			allowed := c.Create(ctx, manifest(t, tc.kind, "", tc.empty), client.DryRunAll)
			apply(t, c, tc.kind, name, "one", tc.full)
			defer remove(t, c, tc.kind, name)
			for range 2 {
				_, err := tryApply(t, c, tc.kind, name, "one", tc.empty)
				if allowed == nil && err != nil {
					t.Fatalf("%s may be created, and not applied after %s: %v", tc.empty, tc.full, err)
				}
				if allowed != nil && !refusedBelow(err, tc.path) {
					t.Fatalf("%s may not be created (%v), and applied after %s it gives %v", tc.empty, allowed, tc.full, err)
				}
			}
			if allowed == nil {
				u := get(t, c, tc.kind, name)
				if is, _ := lookUp(u.Object, fields(tc.path)); is != nil && len(is.(map[string]any)) > 0 {
					t.Errorf("after %s and %s, %s is %v", tc.full, tc.empty, tc.path, is)
				}
				if err := c.Update(ctx, u); err != nil {
					t.Errorf("what is stored is refused when it is written back: %v", err)
				}
				apply(t, c, tc.kind, name, "one", tc.full)
			}
			if tc.none == "" || tc.immutable {
				return
			}
			u := apply(t, c, tc.kind, name, "one", tc.none)
			if is, there := lookUp(u.Object, fields(tc.path)); there {
				t.Errorf("taken out, %s is %v", tc.path, is)
			}
		})
	}
	for kind, schema := range schemas(t) {
		if kind == rq {
			continue // the operator's own records
		}
		walk("", schema, func(path string, s apiextensionsv1.JSONSchemaProps) {
			for name, p := range s.Properties {
				at := path + "." + name
				if p.Type == "object" && strings.HasPrefix(at, ".spec") && !slices.Contains(s.Required, name) && !seen[kind+at] {
					t.Errorf("no case empties %s%s", kind, at)
				}
			}
		})
	}
}

// Two appliers of one object's fields, one of whom then applies it empty: the other's stays.
func TestEmptiedServerSideByOneOfTwo(t *testing.T) {
	c := apiServer(t)
	for i, tc := range []struct{ kind, one, empty, other string }{
		{channel, `{queue: {delaySeconds: 5}}`, `{queue: {}}`, `{queue: {visibilityTimeoutSeconds: 9}}`},
		{channel, `{queue: {delaySeconds: 5}}`, `{}`, `{queue: {visibilityTimeoutSeconds: 9}}`},
		{channel, `{tags: {a: b}}`, `{tags: {}}`, `{tags: {c: d}}`},
		{channel, `{extraAttributes: {Next: "1"}}`, `{extraAttributes: {}}`, `{extraAttributes: {Other: "2"}}`},
		{channel, `{call: {timeoutSeconds: 5}}`, `{}`, `{call: {maxAttempts: 2}}`},
		{host, `{queue: {visibilityTimeoutSeconds: 5}}`, `{queue: {}}`, `{queue: {receiveWaitSeconds: 9}}`},
		{host, `{tags: {a: b}}`, `{tags: {}}`, `{tags: {c: d}}`},
		{qp, allOf + `, defaultTags: {a: b}}`, allOf + `, defaultTags: {}}`, allOf + `, defaultTags: {c: d}}`},
	} {
		t.Run(tc.kind+" "+tc.one, func(t *testing.T) {
			name := fmt.Sprintf("two-%d", i)
			apply(t, c, tc.kind, name, "one", tc.one)
			defer remove(t, c, tc.kind, name)
			apply(t, c, tc.kind, name, "other", tc.other)
			apply(t, c, tc.kind, name, "one", tc.empty)
			spec, err := yaml.Marshal(get(t, c, tc.kind, name).Object["spec"])
			if err != nil {
				t.Fatal(err)
			}
			want, err := yaml.Marshal(manifest(t, tc.kind, name, tc.other).Object["spec"])
			if err != nil {
				t.Fatal(err)
			}
			if string(spec) != string(want) {
				t.Errorf("got\n%swant\n%s", spec, want)
			}
		})
	}
}

// An object without a spec takes the defaults, as one with spec {} does.
func TestNoSpec(t *testing.T) {
	c := apiServer(t)
	for _, kind := range []string{channel, host} {
		u := manifest(t, kind, "", `{}`)
		delete(u.Object, "spec")
		if err := c.Create(context.Background(), u, client.DryRunAll); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if spec, ok := u.Object["spec"].(map[string]any); !ok || len(spec) > 0 {
			t.Errorf("%s: the spec is %v", kind, u.Object["spec"])
		}
	}
}

// refusedBelow reports whether the API server refused, and told of nothing but what is at a path or below it.
func refusedBelow(err error, path string) bool {
	told := 0
	for _, cause := range causes(err) {
		field := fieldOf(cause)
		if field == "" {
			continue // It says that CEL rules were not looked at, since the schema was violated already.
		}
		if field != path && !strings.HasPrefix(field, path+".") {
			return false
		}
		told++
	}
	return told > 0
}

func tryApply(t *testing.T, c client.Client, kind, name, applier, spec string) (*unstructured.Unstructured, error) {
	t.Helper()
	u := manifest(t, kind, name, spec)
	err := c.Apply(context.Background(), client.ApplyConfigurationFromUnstructured(u), client.FieldOwner(applier))
	return u, err
}

func apply(t *testing.T, c client.Client, kind, name, applier, spec string) *unstructured.Unstructured {
	t.Helper()
	u, err := tryApply(t, c, kind, name, applier, spec)
	if err != nil {
		t.Fatalf("%s applies %s: %v", applier, spec, err)
	}
	return u
}

func get(t *testing.T, c client.Client, kind, name string) *unstructured.Unstructured {
	t.Helper()
	u := manifest(t, kind, name, `{}`)
	if err := c.Get(context.Background(), client.ObjectKeyFromObject(u), u); err != nil {
		t.Fatal(err)
	}
	return u
}

func remove(t *testing.T, c client.Client, kind, name string) {
	t.Helper()
	if err := c.Delete(context.Background(), manifest(t, kind, name, `{}`)); err != nil {
		t.Error(err)
	}
}
