package rpcclient

import (
	"encoding/binary"
	"time"
)

// settledEntry is what is kept of a call whose messages are settled, for copies that come late. There are as many as
// calls in half a minute or more, and nearly none is ever looked at, except by the garbage collector, each time: so each
// is one piece of memory without pointers.
type settledEntry struct {
	expires time.Duration // from the cache's base
	bytes   int           // as the cache counts them
	record  []byte
}

// cutOffMark is set in the situation of an entry whose due follows at the end.
const cutOffMark = 0x80

// newSettledEntry condenses an entry whose handler does not run.
func newSettledEntry(e *cacheEntry, base time.Time) settledEntry {
	texts := [...]string{e.reply.virtual, e.reply.envelope, e.reply.trace, e.reply.body}
	size := 1 + 8 + (2+len(texts))*binary.MaxVarintLen64
	for _, t := range texts {
		size += len(t)
	}
	situation := byte(e.situation)
	if e.cutOff {
		situation, size = situation|cutOffMark, size+8
	}
	b := make([]byte, 0, size)
	b = append(b, situation)
	b = binary.LittleEndian.AppendUint64(b, e.hash)
	b = binary.AppendUvarint(b, uint64(e.attempt))
	b = binary.AppendUvarint(b, uint64(e.kept.after))
	for _, t := range texts {
		b = binary.AppendUvarint(b, uint64(len(t)))
		b = append(b, t...)
	}
	if e.cutOff {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.kept.due)) //nolint:gosec // Read back as it was.
	}
	return settledEntry{expires: e.expires.Sub(base), bytes: e.bytes, record: b}
}

// entry undoes newSettledEntry. Nothing is left of until when the entry was kept at least: its expiry is known.
func (s settledEntry) entry(key cacheKey, base time.Time) *cacheEntry {
	e := &cacheEntry{key: key, bytes: s.bytes, finished: true, expires: base.Add(s.expires)}
	b := s.record
	number := func() uint64 {
		v, n := binary.Uvarint(b)
		b = b[n:]
		return v
	}
	e.cutOff = b[0]&cutOffMark != 0
	e.situation, e.hash, b = Situation(b[0]&^cutOffMark), binary.LittleEndian.Uint64(b[1:]), b[9:]
	e.attempt, e.kept.after = int(number()), time.Duration(number())
	for _, t := range []*string{&e.reply.virtual, &e.reply.envelope, &e.reply.trace, &e.reply.body} {
		n := number()
		*t, b = string(b[:n]), b[n:]
	}
	if e.cutOff {
		e.kept.due = int64(binary.LittleEndian.Uint64(b)) //nolint:gosec // See newSettledEntry.
	}
	return e
}
