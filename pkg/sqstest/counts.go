package sqstest

// counts are the numbers that GetQueueAttributes calls approximate.
type counts struct{ visible, inFlight, delayed int }

// counted is what the counts were lately, while the fault plan has reads that lag, and nothing otherwise.
type counted []countedAt

type countedAt struct {
	at int64 // milliseconds: since when
	counts
}

func (q *queue) counts() counts { return counts{q.visibleCount(), q.inFlight, q.delayed} }

// noteFirst begins to note the counts, before anything changes them.
func (q *queue) noteFirst() {
	if len(q.seen) > 0 || q.server.faults.remembered(q.key.name) == 0 {
		return
	}
	q.seen = counted{{0, q.counts()}} // for as long as anybody remembers
}

// note adds the counts to those remembered, and forgets those that no read can ask for any more.
func (q *queue) note(now int64) {
	if len(q.seen) == 0 || q.deleted { // a read that sees a deleted queue still sees it as it was
		return
	}
	keep := q.server.faults.remembered(q.key.name)
	if keep == 0 {
		q.seen = nil
		return
	}
	switch last := &q.seen[len(q.seen)-1]; {
	case last.counts == q.counts():
	case last.at == now:
		last.counts = q.counts()
	default:
		q.seen = append(q.seen, countedAt{now, q.counts()})
	}
	for len(q.seen) > 1 && q.seen[1].at <= now-keep {
		q.seen = q.seen[1:]
	}
}

// countsAt is the counts as they were at that time, or as long ago as is remembered.
func (q *queue) countsAt(t int64) counts {
	if len(q.seen) == 0 {
		return q.counts()
	}
	then := q.seen[0].counts
	for _, c := range q.seen {
		if c.at > t {
			break
		}
		then = c.counts
	}
	return then
}
