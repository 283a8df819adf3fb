package rpcclient

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// fifoDeleteLinger is how long a delete on a FIFO queue waits for company.
const fifoDeleteLinger = 5 * time.Millisecond

// byGroup splits a receive of a FIFO queue by message group, in order.
func byGroup(all []*received) [][]*received {
	index := map[string]int{}
	var groups [][]*received
	for _, m := range all {
		name := m.message.Attributes[string(types.MessageSystemAttributeNameMessageGroupId)]
		i, ok := index[name]
		if !ok {
			i = len(groups)
			index[name] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], m)
	}
	return groups
}

// serveGroup serves the messages of one FIFO group, which a receive may bring together, one after the
// other, in one place. SQS gives out no more of the group before these are settled. Those that wait are kept hidden.
// When one is left in the queue, so are those that follow it: SQS gives them out in order again.
func (s *channelServer) serveGroup(group []*received) {
	first, rest := group[0], group[1:]
	for _, m := range rest {
		if m.held == nil {
			s.keep(m, s.admit(m.message, m.delivery, m.delivery.local))
		}
	}
	if !first.placed && !s.place(group) {
		s.putBack(group)
		return
	}
	// Deferred, since a handler that calls runtime.Goexit returns to nobody.
	defer func() {
		if len(rest) == 0 && first.placed {
			s.r.slots.release(1)
		}
		if first.refused != nil {
			<-first.refused
		}
		left := first.left.Load()
		if left {
			s.alone.Store(time.Now().Add(aloneFor * s.visibility).UnixNano())
		}
		if len(rest) == 0 {
			return
		}
		rest[0].placed = first.placed
		if left {
			s.putBack(rest)
			return
		}
		s.r.wg.Go(func() { s.serveGroup(rest) })
	}()
	s.serve(first)
}

// aloneFor is for how many times the visibility a FIFO queue is read message by message after one was left:
// what is received with it is counted by SQS as received each time, and would come to the dead-letter queue
// together with it.
const aloneFor = 3

// putBack leaves what follows a message that was left, or finds no place.
func (s *channelServer) putBack(rest []*received) {
	placed := 0
	changes := make([]visibilityChange, len(rest))
	for i, m := range rest {
		s.extender.release(m.held)
		changes[i].handle = deref(m.message.ReceiptHandle)
		if m.placed {
			placed++
		}
	}
	s.r.cfg.stats.left.Add(int64(len(rest)))
	s.settler.changeVisibility(changes)
	s.r.slots.release(placed)
}
