package chat

import "slices"

// ResponseTime is how long one response took, in milliseconds.
type ResponseTime struct {
	FirstTokenMS int64 `json:"first_token_ms"` // from the start of the turn to the first text; 0: there was none
	TotalMS      int64 `json:"total_ms"`       // from the start of the turn to its end
}

// AddResponseTime appends t to times and drops the oldest first, so that there are never more than most. The times
// given are not changed: others may read them.
func AddResponseTime(times []ResponseTime, t ResponseTime, most int) []ResponseTime {
	keep := max(0, min(len(times), most-1))
	kept := slices.Clone(times[len(times)-keep:])
	if most < 1 {
		return kept
	}
	return append(kept, t)
}

// Summary describes a number of durations, in milliseconds. All are 0 where there are none.
type Summary struct {
	Count         int
	Min, Mean     int64
	P50, P95, Max int64 // by the nearest-rank method
}

// SummariseResponseTimes describes the times to the first token, of those responses that had one, and the total times.
func SummariseResponseTimes(times []ResponseTime) (firstToken, total Summary) {
	var first, all []int64
	for _, t := range times {
		if t.FirstTokenMS > 0 {
			first = append(first, t.FirstTokenMS)
		}
		all = append(all, t.TotalMS)
	}
	return summarise(first), summarise(all)
}

func summarise(ms []int64) Summary {
	n := len(ms)
	if n == 0 {
		return Summary{}
	}
	slices.Sort(ms)
	sum := int64(0)
	for _, v := range ms {
		sum += v
	}
	rank := func(percent int) int64 { return ms[(n*percent+99)/100-1] }
	return Summary{Count: n, Min: ms[0], Mean: sum / int64(n), P50: rank(50), P95: rank(95), Max: ms[n-1]}
}
