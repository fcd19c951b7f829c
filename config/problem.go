package config

import (
	"errors"
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a configuration. None of its fields holds a secret.
type Problem struct {
	Key     string // the whole dotted key; for what is no key, the variable or flag
	Problem string // what is wrong
	Fix     string // what to do
}

// Error gives the problem on one line: "key: problem; fix".
func (p *Problem) Error() string { return p.Key + ": " + p.Problem + "; " + p.Fix }

// Problems lists the problems in an error of [Load] or [Config.Validate]. It is empty for any other error.
func Problems(err error) []*Problem {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []*Problem
		for _, e := range joined.Unwrap() {
			all = append(all, Problems(e)...)
		}
		return all
	}
	if p, ok := errors.AsType[*Problem](err); ok {
		return []*Problem{p}
	}
	return nil
}

// problems collects what is wrong.
type problems []*Problem

func (ps *problems) add(key, problem, fix string) {
	*ps = append(*ps, &Problem{Key: key, Problem: problem, Fix: fix})
}

// addNew adds the problems of more whose keys have none yet: a value that could not be read has its default for the
// moment, or is missing, and what follows from that would only confuse.
func (ps *problems) addNew(more problems) {
	known := *ps
	for _, p := range more {
		if !known.touch(p.Key) {
			*ps = append(*ps, p)
		}
	}
}

// touch reports whether there is a problem with key, a part of it, or the whole that it is part of.
func (ps problems) touch(key string) bool {
	for _, p := range ps {
		if isPart(p.Key, key) || isPart(key, p.Key) {
			return true
		}
	}
	return false
}

// isPart reports whether key is whole, or lies in it.
func isPart(key, whole string) bool {
	rest, ok := strings.CutPrefix(key, whole)
	return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

func (ps problems) join() error {
	errs := make([]error, len(ps))
	for i, p := range ps {
		errs[i] = p
	}
	return errors.Join(errs...)
}

// at is the key of a list's element.
func at(key string, i int) string { return fmt.Sprintf("%s[%d]", key, i) }
