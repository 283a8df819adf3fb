package sqstest

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
)

// Messages between two FIFO queues are saved with the sequence numbers that they would have got, in the order in which they
// left.
func TestSaveNumbersWhatIsOnItsWay(t *testing.T) {
	s := New()
	q, _, apiErr := s.registry.create(s, queueKey{s.region, s.account, "to.fifo"}, defaultSettings(true), nil, s.millis())
	if apiErr != nil {
		t.Fatal(apiErr)
	}
	var want []string
	for i := range 20 {
		m := &message{id: fmt.Sprint(i), body: "b", group: "g", sequence: "another queue's"}
		s.moving.add(move{m, q})
		want = append(want, m.id)
	}
	var saved bytes.Buffer
	if err := s.Save(&saved); err != nil {
		t.Fatal(err)
	}
	again := New()
	if err := again.Load(&saved); err != nil {
		t.Fatal(err)
	}
	loaded := again.registry.get(q.key)
	var got, numbers []string
	for m := loaded.fifo.groups["g"].head; m != nil; m = m.next {
		got, numbers = append(got, m.id), append(numbers, m.sequence)
	}
	numbers = append(numbers, loaded.fifo.nextSequence())
	if !slices.Equal(got, want) {
		t.Errorf("in the order %v", got)
	}
	if !slices.IsSorted(numbers) || len(slices.Compact(numbers)) != 21 || len(numbers[0]) != 20 {
		t.Errorf("sequence numbers %v", numbers)
	}
}
