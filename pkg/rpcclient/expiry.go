package rpcclient

import "time"

// expiryHeap has what expires next at its head. It looks at no entry to keep its order: there are many, all over
// memory. Nor has it pointers, which the garbage collector would follow.
type expiryHeap []expiry

// expiry is when the time of a key's entry is over, from the cache's base. That of an entry which was removed
// before stays until it comes to the head.
type expiry struct {
	at  time.Duration
	key cacheKey
}

func (h *expiryHeap) push(x expiry) {
	all := append(*h, x)
	*h = all
	for i := len(all) - 1; i > 0; {
		parent := (i - 1) / 2
		if all[parent].at <= x.at {
			break
		}
		all[i], all[parent] = all[parent], x
		i = parent
	}
}

// pop removes the head.
func (h *expiryHeap) pop() {
	all := *h
	last := len(all) - 1
	x := all[last]
	all[last] = expiry{}
	all = all[:last]
	*h = all
	if last == 0 {
		return
	}
	all[0] = x
	for i := 0; ; {
		child := 2*i + 1
		if child >= last {
			return
		}
		if right := child + 1; right < last && all[right].at < all[child].at {
			child = right
		}
		if x.at <= all[child].at {
			return
		}
		all[i], all[child] = all[child], x
		i = child
	}
}
