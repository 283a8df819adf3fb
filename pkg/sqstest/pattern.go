package sqstest

import (
	"errors"
	"fmt"
	"path"
	"strings"
	"unicode/utf8"
)

// A rule of a plan, or one about access, that matches nothing is a mistake: which names its pattern can match is decided
// here, exactly.

// nameKinds are the kinds of queue names that a pattern can match.
type nameKinds struct{ none, standard, fifo bool }

// kindsOf is what queue names a pattern can match; none is that of requests about no queue. It fails on a malformed pattern.
func kindsOf(pattern string) (nameKinds, error) {
	steps, err := parsePattern(pattern)
	if err != nil {
		return nameKinds{}, err
	}
	standard := shortest(steps, "")
	fifo := shortest(steps, ".fifo")
	return nameKinds{
		none:     matches(pattern, ""),
		standard: standard > 0 && standard <= maxQueueName,
		fifo:     fifo > 0 && fifo <= maxQueueName,
	}, nil
}

func errNoSuchName(pattern string) error {
	return fmt.Errorf("no queue has a name like %q: up to %d letters, digits, hyphens and underscores, .fifo in the end of a FIFO queue's included",
		pattern, maxQueueName)
}

// patternStep is a part of a pattern of package path: any number of characters, or one that matches the class.
type patternStep struct {
	any   bool
	class string // "?", "[…]", an escape or a character: a pattern by itself
}

// parsePattern takes a pattern apart. An empty one is "*".
func parsePattern(pattern string) ([]patternStep, error) {
	if _, err := path.Match(pattern, ""); err != nil {
		return nil, err
	}
	if pattern == "" {
		pattern = "*"
	}
	var steps []patternStep
	for rest := pattern; rest != ""; {
		n := 1
		switch rest[0] {
		case '*':
			steps, rest = append(steps, patternStep{any: true}), rest[1:]
			continue
		case '\\':
			n++
			n += utf8Len(rest[1:]) - 1
		case '[':
			if n = classLen(rest); n == 0 {
				return nil, path.ErrBadPattern
			}
		default:
			n = utf8Len(rest)
		}
		steps, rest = append(steps, patternStep{class: rest[:n]}), rest[n:]
	}
	// path.Match notices some mistakes only in what it comes to.
	for _, s := range steps {
		if _, err := path.Match(s.class, "a"); err != nil {
			return nil, errors.New("bad class " + s.class)
		}
	}
	return steps, nil
}

func utf8Len(s string) int {
	_, n := utf8.DecodeRuneInString(s)
	return n
}

// classLen is the length of the "[…]" that s begins with, 0 when it has no end.
func classLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case ']':
			return i + 1
		}
	}
	return 0
}

// nameCharacters are those of queue names, without the point of ".fifo" (CreateQueue, API reference).
const nameCharacters = "-_0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// shortest is the length of the shortest name that the steps match, of one or more name characters and then the ending; 0
// when they match none.
func shortest(steps []patternStep, ending string) int {
	// place is how far a name has come: in the steps, and in the name, which is 0 before its first character, 1 among name
	// characters, and beyond that within the ending.
	type place struct{ step, part int }
	last := place{len(steps), 1 + len(ending)}
	seen := map[place]bool{}
	var now []place
	reach := func(list []place, p place) []place {
		for ; !seen[p]; p.step++ { // a "*" may match nothing
			seen[p] = true
			list = append(list, p)
			if p.step == len(steps) || !steps[p.step].any {
				break
			}
		}
		return list
	}
	now = reach(now, place{})
	for length := 0; len(now) > 0; length++ {
		var next []place
		for _, p := range now {
			if p == last {
				return length
			}
			if p.step == len(steps) {
				continue
			}
			s := steps[p.step]
			then := p.step + 1
			if s.any {
				then = p.step
			}
			if p.part <= 1 && s.matchesOneOf(nameCharacters) {
				next = reach(next, place{then, 1})
			}
			if p.part >= 1 && p.part <= len(ending) && s.matchesOneOf(ending[p.part-1:p.part]) {
				next = reach(next, place{then, p.part + 1})
			}
		}
		now = next
	}
	return 0
}

func (s patternStep) matchesOneOf(characters string) bool {
	return s.any || strings.ContainsFunc(characters, func(c rune) bool { return matches(s.class, string(c)) })
}
