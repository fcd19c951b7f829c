package chat_test

import (
	"slices"
	"testing"

	"github.com/parley-chat/parley/chat"
)

func times(totals ...int64) []chat.ResponseTime {
	var all []chat.ResponseTime
	for _, ms := range totals {
		all = append(all, chat.ResponseTime{FirstTokenMS: ms / 10, TotalMS: ms})
	}
	return all
}

func TestR12_1_ResponseTimesHaveAMaximum(t *testing.T) {
	for _, most := range []int{0, 1, 3} {
		var all []chat.ResponseTime
		for i := range int64(10) {
			if all = chat.AddResponseTime(all, chat.ResponseTime{TotalMS: i}, most); len(all) > most {
				t.Fatalf("%d of at most %d are kept", len(all), most)
			}
		}
		if len(all) != most {
			t.Errorf("%d are kept, want %d", len(all), most)
		}
	}
}

func TestR12_2_TheOldestResponseTimeGoesFirst(t *testing.T) {
	full := times(1, 2, 3)
	if got := chat.AddResponseTime(full, chat.ResponseTime{TotalMS: 4, FirstTokenMS: 0}, 3); !slices.Equal(got, times(2, 3, 4)) {
		t.Errorf("after a fourth, %v are kept", got)
	}
	if !slices.Equal(full, times(1, 2, 3)) {
		t.Errorf("whoever had the list before now has %v", full)
	}
	if got := chat.AddResponseTime(times(1, 2, 3, 4, 5), chat.ResponseTime{TotalMS: 6}, 2); !slices.Equal(got, times(5, 6)) {
		t.Errorf("with a smaller maximum %v are kept", got)
	}
}

func TestResponseTimesAreSummarised(t *testing.T) {
	all := times(1000, 200, 300, 400, 500, 600, 700, 800, 900, 100)
	first, total := chat.SummariseResponseTimes(append(all, chat.ResponseTime{TotalMS: 0}))
	if want := (chat.Summary{Count: 10, Min: 10, Mean: 55, P50: 50, P95: 100, Max: 100}); first != want {
		t.Errorf("to the first token: %+v, want %+v", first, want)
	}
	if want := (chat.Summary{Count: 11, Min: 0, Mean: 500, P50: 500, P95: 1000, Max: 1000}); total != want {
		t.Errorf("in all: %+v, want %+v", total, want)
	}
	if first, total := chat.SummariseResponseTimes(nil); first != (chat.Summary{}) || total != (chat.Summary{}) {
		t.Errorf("of none: %+v, %+v", first, total)
	}
}
