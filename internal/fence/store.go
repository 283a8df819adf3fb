package fence

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Keys of the identity ConfigMap's data that are written here.
const (
	// keyFence holds the nonces, as JSON: {"<provider>": entry}.
	keyFence = "fence"
	// keyStatus holds, for people, what would be conditions if a ConfigMap had any: a line for each trouble there is.
	keyStatus = "status"
)

// entry is what is pinned of one provider.
type entry struct {
	// Nonces as in Pinned, newest first.
	Nonces []string `json:"nonces,omitempty"`
	// Confirmed are nonces of others that a human declared void, newest first.
	Confirmed []string `json:"confirmed,omitempty"`
	// Seen and Contested as in Pinned.
	Seen      bool `json:"seen,omitempty"`
	Contested bool `json:"contested,omitempty"`
	// Returned says that a process has seen a nonce come back, and that none has found out since whose the marker is.
	Returned bool `json:"returned,omitempty"`
	// Account holds the marker, as SQS wrote it in its URL, and Place says where in it the marker is (placeOf).
	Account string `json:"account,omitempty"`
	Place   string `json:"place,omitempty"`
	// Rivals are the first nonces of others that were seen in other providers' tags, by tag (Marker.Strange).
	Rivals map[string]string `json:"rivals,omitempty"`
}

// void notes that a human has declared a nonce void.
func (e *entry) void(nonce string) {
	if !slices.Contains(e.Nonces, nonce) && !slices.Contains(e.Confirmed, nonce) {
		e.Confirmed = Next(e.Confirmed, nonce)
	}
}

// abandoned is the value of v1alpha1.AnnotationConfirmIdentity for a provider whose marker bears no nonce.
func abandoned(provider string) string { return provider + "=abandoned" }

func saysAbandoned(word string) bool { return strings.HasSuffix(word, abandoned("")) }

// store is the identity ConfigMap. Every write is over the version that was read: two leaders at once, and a leader
// and an administrator, never overwrite each other.
type store struct {
	client client.Client
	key    client.ObjectKey

	mu sync.Mutex
	// troubles is what is wrong now, by "<provider> <what>".
	troubles map[string]string
	// judged are those of which this process has said something, and inherited says that it took over what was said before it.
	judged    map[string]bool
	inherited bool
}

// identity is the ConfigMap as read.
type identity struct {
	object *corev1.ConfigMap
	// before is what was read or written last.
	before  *corev1.ConfigMap
	entries map[string]entry
}

func (s *store) read(ctx context.Context) (*identity, error) {
	i := &identity{object: &corev1.ConfigMap{}}
	if err := s.client.Get(ctx, s.key, i.object); err != nil {
		return nil, &ofCluster{fmt.Errorf("read the identity: %w", err)}
	}
	i.before = i.object.DeepCopy()
	if text := i.object.Data[keyFence]; text != "" {
		if err := json.Unmarshal([]byte(text), &i.entries); err != nil {
			return nil, &ofCluster{fmt.Errorf("ConfigMap %s: data.%s: %w", s.key, keyFence, err)}
		}
	}
	if i.entries == nil {
		i.entries = map[string]entry{}
	}
	return i, nil
}

// write writes what changed, and nothing if nothing did.
func (s *store) write(ctx context.Context, i *identity) error {
	text, err := json.Marshal(i.entries)
	if err != nil {
		return err
	}
	if i.object.Data == nil {
		i.object.Data = map[string]string{}
	}
	if len(i.entries) > 0 {
		i.object.Data[keyFence] = string(text)
	} else {
		delete(i.object.Data, keyFence)
	}
	if status := s.status(); status != "" {
		i.object.Data[keyStatus] = status
	} else {
		delete(i.object.Data, keyStatus)
	}
	if maps.Equal(i.before.Data, i.object.Data) && maps.Equal(i.before.Annotations, i.object.Annotations) {
		return nil
	}
	if err := s.client.Update(ctx, i.object); err != nil {
		return &ofCluster{fmt.Errorf("write the identity: %w", err)}
	}
	i.before = i.object.DeepCopy()
	return nil
}

func (s *store) status() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(s.troubles)) {
		provider, what, _ := strings.Cut(key, " ")
		lines = append(lines, fmt.Sprintf("%s, provider %s: %s", what, provider, s.troubles[key]))
	}
	return strings.Join(lines, "\n")
}

// trouble notes what is wrong with a provider (empty: nothing any more), and reports whether that is news.
func (s *store) trouble(provider, what, message string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := provider + " " + what
	if s.troubles == nil {
		s.troubles, s.judged = map[string]string{}, map[string]bool{}
	}
	s.judged[key] = true
	if s.troubles[key] == message {
		return false
	}
	if message == "" {
		delete(s.troubles, key)
	} else {
		s.troubles[key] = message
	}
	return true
}

// inherit takes over what the leader before said of its sweeps, but for what this process has judged itself: it takes a sweeper
// longer to judge than a leader may live. It returns the providers of which something was said, and does nothing the second time.
func (s *store) inherit(i *identity) (providers []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.inherited {
		return nil
	}
	s.inherited = true
	for key, message := range troublesIn(i.before.Data[keyStatus]) {
		if s.judged[key] {
			continue
		}
		if s.troubles == nil {
			s.troubles, s.judged = map[string]string{}, map[string]bool{}
		}
		s.troubles[key] = message
		provider, _, _ := strings.Cut(key, " ")
		providers = append(providers, provider)
	}
	return providers
}

// ofSweeps are the troubles that the sweeper finds. What the fence finds it compares anew.
var ofSweeps = []string{
	v1alpha1.ConditionSweepHeld, v1alpha1.ConditionForeignSweepHeld, v1alpha1.ConditionQueuesMissing, v1alpha1.ConditionSweepIncomplete,
}

// aTrouble is how status begins each trouble; a message may have more lines.
var aTrouble = regexp.MustCompile(`^(\w+), provider (\S+): `)

// troublesIn are the troubles of sweeps that a text by status tells of.
func troublesIn(text string) map[string]string {
	troubles, key := map[string]string{}, ""
	for line := range strings.SplitSeq(text, "\n") {
		switch begins := aTrouble.FindStringSubmatch(line); {
		case begins == nil && key != "":
			troubles[key] += "\n" + line
		case begins != nil && slices.Contains(ofSweeps, begins[1]):
			key = begins[2] + " " + begins[1]
			troubles[key] = strings.TrimPrefix(line, begins[0])
		default:
			key = ""
		}
	}
	return troubles
}

func (s *store) troubleOf(provider, what string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.troubles[provider+" "+what]
}

// annotated are the comma-separated values of an annotation.
func (i *identity) annotated(annotation string) []string {
	var values []string
	for value := range strings.SplitSeq(i.object.Annotations[annotation], ",") {
		if value = strings.TrimSpace(value); value != "" {
			values = append(values, value)
		}
	}
	return values
}

// use takes one value out of an annotation.
func (i *identity) use(annotation, value string) {
	values := slices.DeleteFunc(i.annotated(annotation), func(v string) bool { return v == value })
	if len(values) == 0 {
		delete(i.object.Annotations, annotation)
	} else {
		i.object.Annotations[annotation] = strings.Join(values, ",")
	}
}

// allowance is what a human allowed a sweep of the provider, and the value that says so.
func (i *identity) allowance(provider string) (n int, value string) {
	for _, value := range i.annotated(v1alpha1.AnnotationAllowSweep) {
		name, number, _ := strings.Cut(value, "=")
		if n, err := strconv.Atoi(number); err == nil && name == provider {
			return n, value
		}
	}
	return 0, ""
}
