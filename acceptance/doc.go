// Package acceptance drives the built binary from outside, over real sockets: one file a requirement, each test named
// after the criterion that it shows, and the stories of a whole conversation beside them.
//
// Its tests build what they need, on systems with signals of Unix. What is not there, such as a browser, is skipped, unless PARLEY_TEST_REQUIRE names it.
package acceptance
