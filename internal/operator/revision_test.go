package operator

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	testclock "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
)

// versions answers with the next of the versions that an API server had of a Lease; "" is an outage, and "-" that there is none.
type versions struct {
	client.Reader // nil
	of            map[client.ObjectKey][]string
}

func (v *versions) Get(_ context.Context, key client.ObjectKey, object client.Object, _ ...client.GetOption) error {
	next := v.of[key]
	if len(next) == 0 {
		return errors.New("nothing more is to be asked for " + key.String())
	}
	v.of[key] = next[1:]
	switch next[0] {
	case "":
		return errors.New("connection refused")
	case "-":
		return apierrors.NewNotFound(coordinationv1.Resource("leases"), key.Name)
	}
	object.SetResourceVersion(next[0])
	return nil
}

// A process ends when the version of either Lease has fallen, also over an outage, and for nothing else.
func TestAProcessEndsWhenEtcdWasSetBack(t *testing.T) {
	t.Parallel()
	beacon := client.ObjectKey{Namespace: v1alpha1.HeartbeatNamespace, Name: heartbeat.BeaconName}
	elected := client.ObjectKey{Namespace: "theirs", Name: leaderLease}
	for name, c := range map[string]struct {
		beacon, elected []string
		// ends is the look that finds it; 0: none does.
		ends int
	}{
		"they rise":                    {[]string{"9", "10", "100", "100"}, []string{"7", "8", "8", "99"}, 0},
		"the beacon falls":             {[]string{"9", "10", "9", "11"}, []string{"7", "8", "8", "99"}, 3},
		"the leader's falls":           {[]string{"9", "10", "11", "11"}, []string{"100", "120", "130", "99"}, 4},
		"it falls over an outage":      {[]string{"1000", "", "", "999"}, []string{"1001", "", "", "1002"}, 4},
		"the namespace is gone":        {[]string{"1000", "-", "-", "-"}, []string{"1001", "1002", "1003", "1004"}, 0},
		"it is gone, and of long ago":  {[]string{"1000", "-", "-", "500"}, []string{"1001", "1002", "1003", "1004"}, 4},
		"nothing there yet":            {[]string{"-", "-", "5", "6"}, []string{"-", "3", "4", "5"}, 0},
		"what is no number is nothing": {[]string{"9", "x", "10", "11"}, []string{"7", "8", "8", "99"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newRevisionWatch(&versions{of: map[client.ObjectKey][]string{beacon: c.beacon, elected: c.elected}},
				Config{Namespace: "theirs", LeaderElect: true, Log: logr.Discard()})
			for look := 1; look <= len(c.beacon); look++ {
				err := w.look(t.Context())
				if (err != nil) != (look == c.ends) {
					t.Fatalf("look %d: %v, want it to end with look %d", look, err, c.ends)
				}
				if err != nil {
					if !strings.Contains(err.Error(), "set back") {
						t.Errorf("it says %q", err)
					}
					return
				}
			}
		})
	}
}

// It looks at intervals, in every replica, and what it finds ends the manager.
func TestRevisionsAreLookedAtByEveryReplica(t *testing.T) {
	t.Parallel()
	beacon := client.ObjectKey{Namespace: v1alpha1.HeartbeatNamespace, Name: heartbeat.BeaconName}
	clock := testclock.NewFakeClock(time.Unix(1_000_000, 0))
	w := newRevisionWatch(&versions{of: map[client.ObjectKey][]string{beacon: {"7", "8", "3"}}}, Config{Log: logr.Discard()})
	w.clock = clock
	if w.NeedLeaderElection() {
		t.Error("only the leader looks")
	}
	done := make(chan error, 1)
	go func() { done <- w.Start(t.Context()) }()
	for {
		select {
		case err := <-done:
			if err == nil || !strings.Contains(err.Error(), "had 8") {
				t.Errorf("it ended with %v", err)
			}
			return
		default:
			clock.Step(revisionInterval)
		}
	}
}
