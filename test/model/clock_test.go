package model

import (
	"testing"
	"time"
	"unsafe"
)

// epoch is when every world begins, by clocks that nobody changed.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// instant is a time as time.Now returns it: with the reading of the wall clock, which people and NTP change, and that of
// the monotonic clock, which nobody does. The package time offers no way to make one that is not now, so this lays it out
// as the package does; TestInstant says when that changed.
func instant(wall time.Time, monotonic time.Duration) time.Time {
	const (
		hasMonotonic = 1 << 63
		// Seconds from 1885, where such readings begin, to 1970.
		to1970 = ((1969*365 + 1969/4 - 1969/100 + 1969/400) - (1884*365 + 1884/4 - 1884/100 + 1884/400)) * 86400
	)
	layout := struct {
		wall uint64
		ext  int64
		loc  *time.Location
	}{wall: hasMonotonic | uint64(wall.Unix()+to1970)<<30 | uint64(wall.Nanosecond()), ext: int64(monotonic)}
	return *(*time.Time)(unsafe.Pointer(&layout)) //nolint:gosec // See above.
}

// clock is an operator's clock: the world's time, with a wall clock that may be wrong.
type clock struct {
	now  func() time.Duration
	skew *time.Duration
}

func (c clock) Now() time.Time {
	return instant(epoch.Add(c.now()).Add(*c.skew), c.now())
}

func (c clock) Since(t time.Time) time.Duration { return c.Now().Sub(t) }

func TestInstant(t *testing.T) {
	wall := time.Date(2031, 5, 6, 7, 8, 9, 10, time.UTC)
	a, b := instant(wall, time.Second), instant(wall.Add(-24*time.Hour), 3*time.Second)
	switch {
	case a.UnixNano() != wall.UnixNano():
		t.Errorf("the wall reading is %v, want %v", a, wall)
	case b.Sub(a) != 2*time.Second || !b.After(a):
		t.Errorf("the monotonic readings are not what times are compared by: %v", b.Sub(a))
	case b.Round(0).Sub(a.Round(0)) != -24*time.Hour:
		t.Error("without the monotonic reading the wall readings are compared")
	}
}
