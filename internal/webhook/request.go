package webhook

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/lifecycle"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// InvalidError says which label or annotation of a pod cannot be understood, and why.
type InvalidError struct {
	// Key of the label or annotation, Value as the pod has it.
	Key, Value string
	// Problem completes the sentence: what is wrong and what to write instead.
	Problem string
}

// Error names the key first, since that is what has to be edited.
func (e *InvalidError) Error() string {
	kind := "annotation"
	if e.Key == v1alpha1.LabelInject {
		kind = "label"
	}
	return fmt.Sprintf("%s %s (%q): %s", kind, e.Key, e.Value, e.Problem)
}

// request is what a pod's annotations ask for.
type request struct {
	calls, serves []string
	replyHost     string
	heartbeat     string
	// caller is the name of the container, or native sidecar, that reads the reply queue.
	caller string
}

// channels are the references of both lists, each once, those that are called first.
func (r *request) channels() []string {
	all := slices.Clone(r.calls)
	for _, served := range r.serves {
		if !slices.Contains(all, served) {
			all = append(all, served)
		}
	}
	return all
}

// parse reads and checks everything a pod asks for, and returns every problem at once.
func parse(pod *corev1.Pod) (*request, error) {
	var (
		ask      request
		problems []error
	)
	invalid := func(key, value, format string, args ...any) {
		problems = append(problems, &InvalidError{Key: key, Value: value, Problem: fmt.Sprintf(format, args...)})
	}
	annotation := func(key string) string { return strings.TrimSpace(pod.Annotations[key]) }

	if mode := pod.Labels[v1alpha1.LabelInject]; mode != v1alpha1.InjectTrue && mode != v1alpha1.InjectBestEffort {
		invalid(v1alpha1.LabelInject, mode, "not known; the values are %q (wait for the queues) and %q (start at once)",
			v1alpha1.InjectTrue, v1alpha1.InjectBestEffort)
	}

	for _, list := range []struct {
		key  string
		into *[]string
		// most is the number of parts a reference may have: a name, or a name and a namespace.
		most int
	}{
		{v1alpha1.AnnotationCalls, &ask.calls, 2},
		{v1alpha1.AnnotationServes, &ask.serves, 1},
	} {
		text := annotation(list.key)
		if text == "" {
			continue
		}
		for reference := range strings.SplitSeq(text, ",") {
			reference = strings.TrimSpace(reference)
			if problem := checkReference(reference, list.most); problem != "" {
				invalid(list.key, text, "%s", problem)
			} else if slices.Contains(*list.into, reference) {
				invalid(list.key, text, "%s is listed twice", reference)
			} else {
				*list.into = append(*list.into, reference)
			}
		}
	}
	for name, references := range sharedVariables(ask.channels()) {
		invalid(v1alpha1.AnnotationCalls, annotation(v1alpha1.AnnotationCalls),
			"%s would share the variable %s; a pod can use only one of them", strings.Join(references, " and "), name)
	}

	// Not trimmed: the controllers read what is there.
	if ask.replyHost = pod.Annotations[v1alpha1.AnnotationReplyHost]; ask.replyHost != "" && len(validation.IsDNS1123Label(ask.replyHost)) > 0 {
		invalid(v1alpha1.AnnotationReplyHost, ask.replyHost,
			"not a DNS label (lower-case letters, digits and hyphens, at most 63, no spaces around them); it is the name of one ReplyHost in the pod's namespace")
	}
	ask.heartbeat = annotation(v1alpha1.AnnotationHeartbeat)
	if !slices.Contains([]string{"", v1alpha1.HeartbeatAnnotationLease, v1alpha1.HeartbeatAnnotationPod}, ask.heartbeat) {
		invalid(v1alpha1.AnnotationHeartbeat, ask.heartbeat, "not known; the values are %q and %q",
			v1alpha1.HeartbeatAnnotationLease, v1alpha1.HeartbeatAnnotationPod)
	}
	if len(problems) == 0 && len(ask.calls) == 0 && len(ask.serves) == 0 && ask.replyHost == "" {
		invalid(v1alpha1.LabelInject, pod.Labels[v1alpha1.LabelInject],
			"the pod has none of the annotations %s, %s and %s; in a Deployment they belong in spec.template.metadata",
			v1alpha1.AnnotationCalls, v1alpha1.AnnotationServes, v1alpha1.AnnotationReplyHost)
	}

	var problem string
	if ask.caller, problem = callerContainer(pod); problem != "" {
		invalid(v1alpha1.AnnotationCallerContainer, pod.Annotations[v1alpha1.AnnotationCallerContainer], "%s", problem)
	}
	return &ask, errors.Join(problems...)
}

// checkReference returns what is wrong with a reference to a RequestChannel, or "".
func checkReference(reference string, most int) string {
	if reference == "" {
		return "an entry between the commas is empty"
	}
	parts := strings.Split(reference, ".")
	if len(parts) > most {
		if most == 1 {
			return fmt.Sprintf("%s is none of its own: a pod answers RequestChannels of its own namespace only, by their name", reference)
		}
		return fmt.Sprintf("%s is neither a RequestChannel's name nor name.namespace", reference)
	}
	for _, part := range parts {
		if len(validation.IsDNS1123Label(part)) > 0 {
			return fmt.Sprintf("%q in %s is not a DNS label (lower-case letters, digits and hyphens, at most 63)", part, reference)
		}
	}
	return ""
}

// sharedVariables returns the variables that more than one reference would be written to: "a-b" and "a.b"
// both give REPLYQUEUE_CHANNEL_A_B_URL, and a request sent to the wrong channel is worse than none.
func sharedVariables(references []string) map[string][]string {
	byName := map[string][]string{}
	for _, reference := range references {
		name := injected.ChannelURLVariable(reference)
		byName[name] = append(byName[name], reference)
	}
	for name, users := range byName {
		if len(users) == 1 {
			delete(byName, name)
		}
	}
	return byName
}

// callerContainer names the container that reads the reply queue, or says why the one asked for cannot.
func callerContainer(pod *corev1.Pod) (name, problem string) {
	name, ok := lifecycle.CallerContainer(pod.Annotations, &pod.Spec)
	// Without any container, the API server refuses the pod in its own words.
	if _, asked := pod.Annotations[v1alpha1.AnnotationCallerContainer]; ok || !asked {
		return name, ""
	}
	names := []string{}
	for container := range lifecycle.LongRunning(&pod.Spec) {
		names = append(names, container.Name)
	}
	return "", fmt.Sprintf("the pod has no such container; it has %s", strings.Join(names, ", "))
}
