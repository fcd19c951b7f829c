package router

// Rooms gives the number of sessions that somebody is connected to, or may come back to.
func (r *Router) Rooms() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.rooms)
}
