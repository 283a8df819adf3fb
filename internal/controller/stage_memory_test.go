package controller

// Remembers is how many channels the process remembers something of.
func (r *RequestChannelReconciler) Remembers() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(len(r.visited), len(r.named))
}
