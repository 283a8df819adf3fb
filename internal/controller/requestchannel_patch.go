package controller

import (
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// statusPatch is what changed in the status since it was last read or written, field by field, since others write other fields.
// It is for this very channel: where one of its name was made meanwhile, the API server refuses it. A merge patch could not say
// so, for the API server takes no notice of the metadata in one of the status.
func (s *scope) statusPatch() client.Patch { return statusPatch{s.written} }

type statusPatch struct{ before *v1alpha1.RequestChannel }

type patchOperation struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value,omitempty"`
}

// Type implements client.Patch.
func (statusPatch) Type() types.PatchType { return types.JSONPatchType }

// Data implements client.Patch.
func (p statusPatch) Data(after client.Object) ([]byte, error) {
	is, err := fieldsOf(after.(*v1alpha1.RequestChannel).Status)
	if err != nil {
		return nil, err
	}
	was, err := fieldsOf(p.before.Status)
	if err != nil {
		return nil, err
	}
	operations := []patchOperation{{Op: "test", Path: "/metadata/uid", Value: p.before.UID}}
	for _, name := range sortedKeys(is) {
		if was[name] != is[name] {
			operations = append(operations, patchOperation{Op: "add", Path: "/status/" + name, Value: json.RawMessage(is[name])})
		}
	}
	for _, name := range sortedKeys(was) {
		if is[name] == "" {
			operations = append(operations, patchOperation{Op: "remove", Path: "/status/" + name})
		}
	}
	return json.Marshal(operations)
}

// refused reports whether the API server has something against a status. That a patch does not fit what stands there, since it is
// another channel or somebody else wrote to it, says nothing about the status, and comes without a field.
func refused(err error) bool {
	var answer apierrors.APIStatus
	if !apierrors.IsInvalid(err) || !errors.As(err, &answer) {
		return false
	}
	details := answer.Status().Details
	return details != nil && len(details.Causes) > 0
}

// fieldsOf is a status as JSON, by the names of its fields.
func fieldsOf(status v1alpha1.RequestChannelStatus) (map[string]string, error) {
	text, err := json.Marshal(status)
	if err != nil {
		return nil, fmt.Errorf("encode status: %w", err)
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return nil, fmt.Errorf("read the encoded status: %w", err)
	}
	all := make(map[string]string, len(fields))
	for name, value := range fields {
		all[name] = string(value)
	}
	return all, nil
}
