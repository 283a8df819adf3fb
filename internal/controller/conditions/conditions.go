// Package conditions sets conditions on our kinds so that kstatus, and everything built on it, reads them right:
// Ready is there once an object was reconciled; Reconciling and Stalled are there only while true and never
// together; every condition carries the generation it was judged by.
package conditions

import (
	"slices"
	"strings"
	"unicode/utf8"

	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Object is one of our kinds.
type Object interface {
	metav1.Object
	GetConditions() []metav1.Condition
	SetConditions([]metav1.Condition)
}

// longestMessage is where a message is cut, in bytes. The API server allows 32768; nobody reads that.
const longestMessage = 1024

// LongestNote is the longest note of an event that the API server takes, in bytes.
const LongestNote = 1024

// Ready says that what the spec asks for is there: Ready is True, Reconciling and Stalled are gone, and the
// observed generation is the object's. It reports whether anything changed.
func Ready(o Object, reason, message string) bool {
	return change(o, func(all *[]metav1.Condition) {
		meta.RemoveStatusCondition(all, v1alpha1.ConditionReconciling)
		meta.RemoveStatusCondition(all, v1alpha1.ConditionStalled)
		set(o, all, v1alpha1.ConditionReady, metav1.ConditionTrue, reason, message)
		for i := range *all { // What is there as asked for is so in every part.
			(*all)[i].ObservedGeneration = o.GetGeneration()
		}
	})
}

// Reconciling says that the operator works towards the spec, or waits to: Ready is False and Reconciling True, for
// the same reason, and Stalled is gone. It reports whether anything changed.
func Reconciling(o Object, reason, message string) bool {
	return change(o, func(all *[]metav1.Condition) {
		meta.RemoveStatusCondition(all, v1alpha1.ConditionStalled)
		set(o, all, v1alpha1.ConditionReconciling, metav1.ConditionTrue, reason, message)
		set(o, all, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
	})
}

// Stalled says that only a change by a human can help: Ready is False and Stalled True, for the same reason, and
// Reconciling is gone. It reports whether anything changed.
func Stalled(o Object, reason, message string) bool {
	return change(o, func(all *[]metav1.Condition) {
		meta.RemoveStatusCondition(all, v1alpha1.ConditionReconciling)
		set(o, all, v1alpha1.ConditionStalled, metav1.ConditionTrue, reason, message)
		set(o, all, v1alpha1.ConditionReady, metav1.ConditionFalse, reason, message)
	})
}

// Set sets a condition of the kind's own domain, and reports whether anything changed. It judges nothing else: the
// observed generation of the object follows with Ready, Reconciling or Stalled, one of which ends every reconcile. A condition
// that was not set for a generation goes on telling of an earlier one (see Judged).
func Set(o Object, conditionType string, status metav1.ConditionStatus, reason, message string) bool {
	return edit(o, func(all *[]metav1.Condition) { set(o, all, conditionType, status, reason, message) })
}

// Remove removes a condition, and reports whether it was there.
func Remove(o Object, conditionType string) bool {
	return edit(o, func(all *[]metav1.Condition) { meta.RemoveStatusCondition(all, conditionType) })
}

// Is reports whether the condition has that status. A condition that is not there is Unknown.
func Is(o Object, conditionType string, status metav1.ConditionStatus) bool {
	if c := meta.FindStatusCondition(o.GetConditions(), conditionType); c != nil {
		return c.Status == status
	}
	return status == metav1.ConditionUnknown
}

// Judged reports whether a condition is there and tells of the object's generation as it is.
func Judged(o Object, conditionType string) bool {
	c := meta.FindStatusCondition(o.GetConditions(), conditionType)
	return c != nil && c.ObservedGeneration == o.GetGeneration()
}

// Reason is the reason of a condition; empty when it is not there.
func Reason(o Object, conditionType string) string {
	if c := meta.FindStatusCondition(o.GetConditions(), conditionType); c != nil {
		return c.Reason
	}
	return ""
}

// Message is the message of a condition; empty when it is not there.
func Message(o Object, conditionType string) string {
	if c := meta.FindStatusCondition(o.GetConditions(), conditionType); c != nil {
		return c.Message
	}
	return ""
}

// ObservedGeneration is the generation that the status describes; before the first reconcile 0, or -1 as the API server sets it.
func ObservedGeneration(o Object) int64 {
	if p := observed(o); p != nil && *p != nil {
		return **p
	}
	return 0
}

// change applies judge to the conditions, brings the object's generation up to date, and reports whether anything changed.
func change(o Object, judge func(*[]metav1.Condition)) bool {
	changed := edit(o, judge)
	if p := observed(o); p != nil && (*p == nil || **p != o.GetGeneration()) {
		generation := o.GetGeneration()
		*p = &generation
		changed = true
	}
	return changed
}

func edit(o Object, apply func(*[]metav1.Condition)) bool {
	before := o.GetConditions()
	all := slices.Clone(before)
	apply(&all)
	o.SetConditions(all)
	return !equality.Semantic.DeepEqual(before, all)
}

func set(o Object, all *[]metav1.Condition, conditionType string, status metav1.ConditionStatus, reason, message string) {
	meta.SetStatusCondition(all, metav1.Condition{
		Type: conditionType, Status: status, Reason: reason, Message: Cut(message, longestMessage), ObservedGeneration: o.GetGeneration(),
	})
}

// observed is where the kind keeps its observed generation.
func observed(o Object) **int64 {
	switch o := o.(type) {
	case *v1alpha1.RequestChannel:
		return &o.Status.ObservedGeneration
	case *v1alpha1.ReplyHost:
		return &o.Status.ObservedGeneration
	case *v1alpha1.ReplyQueue:
		return &o.Status.ObservedGeneration
	case *v1alpha1.QueueProvider:
		return &o.Status.ObservedGeneration
	default:
		return nil
	}
}

// Cut shortens a message to at most so many bytes, between two characters.
func Cut(message string, longest int) string {
	message = strings.ToValidUTF8(message, "\uFFFD")
	if len(message) <= longest {
		return message
	}
	const ellipsis = "…"
	end := longest - len(ellipsis)
	for !utf8.RuneStart(message[end]) {
		end--
	}
	return message[:end] + ellipsis
}
