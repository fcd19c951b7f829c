// Package matrix holds tests only: every type of provider against every answer and every fault of llmtest. What the
// types share is stated once, and what differs beside it.
package matrix
