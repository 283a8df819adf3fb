package v1alpha1_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

// This file reads what the CRDs check, so that no rule and no bound goes without a case.

const crdFolder = "../../config/crd/bases"

// rule is one CEL rule of a CRD. path is where it stands, as in ".spec.tags"; "" is the object itself.
type rule struct{ kind, path, message string }

// bound is everything that a CRD's schema says of one field, but for its CEL rules.
type bound struct {
	kind, path string
	schema     apiextensionsv1.JSONSchemaProps
}

// readCRDs returns every CEL rule and every field with a bound, but for metadata and metav1.Condition, which are
// Kubernetes' own.
func readCRDs(t *testing.T) (rules []rule, bounds []bound) {
	t.Helper()
	for kind, schema := range schemas(t) {
		walk("", schema, func(path string, s apiextensionsv1.JSONSchemaProps) {
			for _, v := range s.XValidations {
				rules = append(rules, rule{kind, path, v.Message})
			}
			if bounded(s) {
				bounds = append(bounds, bound{kind, path, s})
			}
		})
	}
	return rules, bounds
}

// schemas are the schemas of the CRDs, by kind.
func schemas(t *testing.T) map[string]apiextensionsv1.JSONSchemaProps {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(crdFolder, "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs in %s: %v", crdFolder, err)
	}
	all := map[string]apiextensionsv1.JSONSchemaProps{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(text, &crd); err != nil {
			t.Fatal(err)
		}
		if len(crd.Spec.Versions) != 1 {
			t.Fatalf("%s has %d versions", file, len(crd.Spec.Versions))
		}
		all[crd.Spec.Names.Kind] = *crd.Spec.Versions[0].Schema.OpenAPIV3Schema
	}
	return all
}

// TestNoDefaultIsStored holds the RequestChannel's schema to having no default: one would be written into every object and
// outlive the release that chose it, where AWS has a default of its own. A spec may be left out, and the status begins as one that
// nobody has seen.
func TestNoDefaultIsStored(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(crdFolder, "replyqueue.dev_requestchannels.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var crd apiextensionsv1.CustomResourceDefinition
	if err := yaml.UnmarshalStrict(text, &crd); err != nil {
		t.Fatal(err)
	}
	fields := 0
	walk("", *crd.Spec.Versions[0].Schema.OpenAPIV3Schema, func(path string, s apiextensionsv1.JSONSchemaProps) {
		fields++
		if s.Default != nil && string(s.Default.Raw) != map[string]string{".spec": `{}`, ".status": `{"observedGeneration":-1}`}[path] {
			t.Errorf("%s has the default %s", path, s.Default.Raw)
		}
	})
	if fields < 50 {
		t.Errorf("only %d fields were seen", fields)
	}
}

func walk(path string, s apiextensionsv1.JSONSchemaProps, visit func(string, apiextensionsv1.JSONSchemaProps)) {
	if path == ".metadata" || strings.HasSuffix(path, ".conditions[*]") || strings.HasSuffix(path, "elector.matchExpressions") {
		return
	}
	visit(path, s)
	for name, property := range s.Properties {
		walk(path+"."+name, property, visit)
	}
	if s.Items != nil && s.Items.Schema != nil {
		walk(path+"[*]", *s.Items.Schema, visit)
	}
	if s.AdditionalProperties != nil && s.AdditionalProperties.Schema != nil {
		walk(path+"[*]", *s.AdditionalProperties.Schema, visit)
	}
}

func bounded(s apiextensionsv1.JSONSchemaProps) bool {
	return s.Minimum != nil || s.Maximum != nil || s.MinLength != nil || s.MaxLength != nil || s.Pattern != "" || s.Enum != nil ||
		s.MinItems != nil || s.MaxItems != nil || s.MinProperties != nil || s.MaxProperties != nil || len(s.Required) > 0 ||
		(s.XListType != nil && *s.XListType == "set")
}

// fields splits a path into names; "[*]" is one of its own.
func fields(path string) []string {
	return slices.DeleteFunc(strings.Split(strings.ReplaceAll(path, "[*]", ".[*]"), "."), func(s string) bool { return s == "" })
}

// keyed writes the key of an entry for "[*]" where the path leads through a map of the object.
func keyed(object any, path []string) []string {
	path = slices.Clone(path)
	for i, name := range path {
		parent, _ := lookUp(object, path[:i])
		if entries, isMap := parent.(map[string]any); isMap && name == "[*]" && len(entries) > 0 {
			path[i] = slices.Sorted(maps.Keys(entries))[0]
		}
	}
	return path
}

// lookUp returns what stands at a path of an object: of a list its first element.
func lookUp(object any, path []string) (any, bool) {
	for _, name := range path {
		switch v := object.(type) {
		case map[string]any:
			next, there := v[name]
			if !there {
				return nil, false
			}
			object = next
		case []any:
			if len(v) == 0 {
				return nil, false
			}
			object = v[0]
		default:
			return nil, false
		}
	}
	return object, true
}

// replace sets what stands at a path that is there; set reports false to remove it.
func replace(object any, path []string, with any, set bool) {
	parent, _ := lookUp(object, path[:len(path)-1])
	name := path[len(path)-1]
	switch v := parent.(type) {
	case map[string]any:
		if set {
			v[name] = with
		} else {
			delete(v, name)
		}
	case []any:
		v[0] = with
	}
}
