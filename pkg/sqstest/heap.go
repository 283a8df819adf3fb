package sqstest

// indexed is a binary heap whose items know their place, so that any of them can be moved or removed in O(log n). Pushing
// items in rising order, which is what sends do, is O(1).
type indexed[T any] struct {
	items []T
	less  func(a, b T) bool
	place func(item T) *int32 // where an item keeps its place; -1 when it is in no heap
}

func (h *indexed[T]) len() int { return len(h.items) }

// first is the least item. The heap must not be empty.
func (h *indexed[T]) first() T { return h.items[0] }

func (h *indexed[T]) push(item T) {
	h.items = append(h.items, item)
	*h.place(item) = int32(len(h.items) - 1) // two thousand million messages do not fit in memory
	h.up(len(h.items) - 1)
}

func (h *indexed[T]) has(item T) bool { return *h.place(item) >= 0 }

func (h *indexed[T]) remove(item T) {
	i, last := int(*h.place(item)), len(h.items)-1
	if i != last {
		h.swap(i, last)
	}
	var zero T
	h.items[last] = zero
	h.items = h.items[:last]
	*h.place(item) = -1
	if i != last && !h.down(i) {
		h.up(i)
	}
	// A queue that was deep once must not hold its arrays for ever.
	if c := cap(h.items); c > 1024 && len(h.items) < c/8 {
		h.items = append(make([]T, 0, c/4), h.items...)
	}
}

func (h *indexed[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !h.less(h.items[i], h.items[parent]) {
			return
		}
		h.swap(i, parent)
		i = parent
	}
}

func (h *indexed[T]) down(i int) bool {
	start := i
	for {
		child := 2*i + 1
		if child >= len(h.items) {
			break
		}
		if right := child + 1; right < len(h.items) && h.less(h.items[right], h.items[child]) {
			child = right
		}
		if !h.less(h.items[child], h.items[i]) {
			break
		}
		h.swap(i, child)
		i = child
	}
	return i > start
}

func (h *indexed[T]) swap(i, j int) {
	h.items[i], h.items[j] = h.items[j], h.items[i]
	*h.place(h.items[i]) = int32(i)
	*h.place(h.items[j]) = int32(j)
}
