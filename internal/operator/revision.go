package operator

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/go-logr/logr"
	coordinationv1 "k8s.io/api/coordination/v1"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/heartbeat"
)

// revisionInterval is how often a process looks whether etcd was set back. After that the first leader has to wait out a lease
// of 15 s, so that whoever follows knows it by then.
const revisionInterval = 5 * time.Second

// revisionWatch ends a process when etcd was set back under it. The versions of an object only rise, but where etcd is restored
// from a backup. Informers then resume their watches from a version that is yet to come, and hear of nothing until it has come:
// what happens in between, pods that are created or end, they never hear of, and what was undone stays in the caches. A process
// that is started again begins with fresh ones.
//
// It looks at Leases that a leader writes all the time, and every replica looks: one that stands by may lead next.
type revisionWatch struct {
	// reader reads from the API server, which answers for a single object with what etcd has.
	reader client.Reader
	leases []client.ObjectKey
	clock  clock.WithTicker
	log    logr.Logger

	highest map[client.ObjectKey]uint64
}

// newRevisionWatch watches what every leader writes at least every few seconds, as long as it can: the beacon among the
// heartbeats, and the lease of leader election.
func newRevisionWatch(reader client.Reader, cfg Config) *revisionWatch {
	w := &revisionWatch{
		reader: reader, clock: clock.RealClock{}, log: cfg.Log.WithName("revision"),
		leases: []client.ObjectKey{{Namespace: v1alpha1.HeartbeatNamespace, Name: heartbeat.BeaconName}},
	}
	if cfg.LeaderElect {
		w.leases = append(w.leases, client.ObjectKey{Namespace: cfg.Namespace, Name: leaderLease})
	}
	return w
}

// NeedLeaderElection makes every replica look.
func (*revisionWatch) NeedLeaderElection() bool { return false }

// Start looks until ctx ends, and fails when etcd was set back: with it the manager stops, and the process ends.
func (w *revisionWatch) Start(ctx context.Context) error {
	tick := w.clock.NewTicker(revisionInterval)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C():
		}
	}
}

// look fails when a version is lower than one that was seen before. A Lease that cannot be read, or is not there, says nothing.
func (w *revisionWatch) look(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, revisionInterval)
	defer cancel()
	for _, key := range w.leases {
		lease := &coordinationv1.Lease{}
		if err := w.reader.Get(ctx, key, lease); err != nil {
			continue
		}
		version, err := strconv.ParseUint(lease.ResourceVersion, 10, 64)
		if err != nil {
			continue
		}
		if highest := w.highest[key]; version < highest {
			err := fmt.Errorf("etcd was set back: the Lease %s has version %d, and had %d: this process ends, so that the next one begins with what there is now", key, version, highest)
			w.log.Error(err, "Ending")
			return err
		}
		if w.highest == nil {
			w.highest = map[client.ObjectKey]uint64{}
		}
		w.highest[key] = version
	}
	return nil
}
