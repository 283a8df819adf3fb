package operator

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/config/policy"
)

// shippedPolicy is the policy on heartbeats as this version of the operator ships it.
var shippedPolicy = sync.OnceValues(func() (*admissionv1.ValidatingAdmissionPolicy, error) {
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(policy.Heartbeats), len(policy.Heartbeats))
	for {
		object := map[string]any{}
		switch err := decoder.Decode(&object); {
		case errors.Is(err, io.EOF):
			return nil, errors.New("no policy is shipped")
		case err != nil:
			return nil, fmt.Errorf("read the policy that is shipped: %w", err)
		}
		if object["kind"] == "ValidatingAdmissionPolicy" {
			shipped := &admissionv1.ValidatingAdmissionPolicy{}
			err := runtime.DefaultUnstructuredConverter.FromUnstructured(object, shipped)
			return shipped, err
		}
	}
})

// enforced is true when the API server refuses all that the shipped policy refuses: what is installed fails closed, looks
// at the same writes with the same exceptions, makes every check of the shipped one, and a binding without exceptions
// denies. It may check more. namespace is the operator's.
func enforced(namespace string, installed *admissionv1.ValidatingAdmissionPolicy, binding *admissionv1.ValidatingAdmissionPolicyBinding) bool {
	shipped, err := shippedPolicy()
	if err != nil || installed == nil || binding == nil {
		return false
	}
	return asStrict(namespace, installed, shipped) &&
		binding.DeletionTimestamp == nil &&
		binding.Spec.PolicyName == installed.Name &&
		binding.Spec.ParamRef == nil &&
		binding.Spec.MatchResources == nil &&
		slices.Contains(binding.Spec.ValidationActions, admissionv1.Deny)
}

func asStrict(namespace string, installed, shipped *admissionv1.ValidatingAdmissionPolicy) bool {
	is, want := &installed.Spec, &shipped.Spec
	if installed.DeletionTimestamp != nil || is.ParamKind != nil ||
		ptr.Deref(is.FailurePolicy, admissionv1.Fail) != admissionv1.Fail ||
		!equality.Semantic.DeepEqual(withDefaults(is.MatchConstraints), withDefaults(want.MatchConstraints)) ||
		!equality.Semantic.DeepEqual(is.Variables, want.Variables) {
		return false
	}
	// A condition narrows what is looked at, so there is none but those that are shipped.
	for _, c := range is.MatchConditions {
		if !slices.ContainsFunc(want.MatchConditions, func(w admissionv1.MatchCondition) bool {
			return strings.ReplaceAll(w.Expression, userIn(DefaultNamespace), userIn(namespace)) == c.Expression
		}) {
			return false
		}
	}
	// A validation narrows what is allowed, so there are all of those that are shipped.
	for _, w := range want.Validations {
		if !slices.ContainsFunc(is.Validations, func(v admissionv1.Validation) bool { return v.Expression == w.Expression }) {
			return false
		}
	}
	return true
}

// userIn is the operator's user name when it is installed in that namespace.
func userIn(namespace string) string {
	return "system:serviceaccount:" + namespace + ":" + ServiceAccountName
}

// withDefaults are constraints with the API server's defaults for what is unset.
func withDefaults(constraints *admissionv1.MatchResources) *admissionv1.MatchResources {
	if constraints == nil {
		return nil
	}
	c := constraints.DeepCopy()
	if c.NamespaceSelector == nil {
		c.NamespaceSelector = &metav1.LabelSelector{}
	}
	if c.ObjectSelector == nil {
		c.ObjectSelector = &metav1.LabelSelector{}
	}
	if c.MatchPolicy == nil {
		c.MatchPolicy = ptr.To(admissionv1.Equivalent)
	}
	for _, rules := range [][]admissionv1.NamedRuleWithOperations{c.ResourceRules, c.ExcludeResourceRules} {
		for i := range rules {
			if rules[i].Scope == nil {
				rules[i].Scope = ptr.To(admissionv1.AllScopes)
			}
		}
	}
	return c
}
