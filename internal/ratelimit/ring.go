package ratelimit

// ring holds times in order. It grows with what is put into it, twofold, and so does not cost a key that comes once
// what it costs one that comes all the time. Of a nil ring there are no times.
type ring struct {
	times []int64
	first int // the oldest one's place
	n     int
}

func (r *ring) count() int {
	if r == nil {
		return 0
	}
	return r.n
}

// at gives the i-th time, from the oldest.
func (r *ring) at(i int) int64 {
	i += r.first
	if i >= len(r.times) {
		i -= len(r.times)
	}
	return r.times[i]
}

// push adds a time. Of more than limit times the oldest go.
func (r *ring) push(t int64, limit int) {
	if over := r.n + 1 - limit; over > 0 {
		r.drop(over)
	}
	if r.n == len(r.times) {
		r.resize(min(max(1, 2*r.n), limit))
	}
	r.n++
	last := r.first + r.n - 1
	if last >= len(r.times) {
		last -= len(r.times)
	}
	r.times[last] = t
}

// prune drops the times at and before cutoff, and gives their number.
func (r *ring) prune(cutoff int64) int {
	dropped := 0
	for dropped < r.n && r.at(dropped) <= cutoff {
		dropped++
	}
	r.drop(dropped)
	return dropped
}

func (r *ring) drop(n int) {
	r.n -= n
	if r.first += n; r.first >= len(r.times) {
		r.first -= len(r.times)
	}
}

// slack is how large a ring may be whatever it holds.
const slack = 16

// shrink gives memory back, where most of it is unused.
func (r *ring) shrink() {
	if len(r.times) > slack && r.n <= len(r.times)/4 {
		r.resize(2 * r.n)
	}
}

func (r *ring) resize(size int) {
	times := make([]int64, size)
	n := copy(times, r.times[r.first:min(r.first+r.n, len(r.times))])
	copy(times[n:], r.times[:r.n-n])
	r.times, r.first = times, 0
}
