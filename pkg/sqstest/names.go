package sqstest

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
)

// Names of members are as the API spells them, and of another case they name nothing: unknown members are passed over. As
// encoding/json takes any case, names that are not exact are hidden from it.

// shape is what a type of input has where: an object with members, or a list or a map, each of whose values has a shape. nil
// is anything else.
type shape struct {
	members map[string]*shape
	each    *shape
}

// shapeOf is the shape that encoding/json sees in a type.
func shapeOf(t reflect.Type) *shape {
	switch t.Kind() {
	case reflect.Pointer:
		return shapeOf(t.Elem())
	case reflect.Slice, reflect.Map:
		if each := shapeOf(t.Elem()); each != nil {
			return &shape{each: each}
		}
	case reflect.Struct:
		s := &shape{members: map[string]*shape{}}
		for _, f := range reflect.VisibleFields(t) {
			if f.Anonymous || !f.IsExported() {
				continue
			}
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				name = f.Name
			}
			s.members[name] = shapeOf(f.Type)
		}
		return s
	}
	return nil
}

// hideInexact is the document without the names that differ from a member's in case only. A document without any is returned
// as it is, and so is the rest of one that is no JSON.
func (s *shape) hideInexact(document []byte) []byte {
	h := hiding{scan: scan{b: document}}
	h.value(s)
	return h.b
}

type hiding struct {
	scan
	copied bool
	depth  int
}

// maxDepth is how deep encoding/json goes.
const maxDepth = 10_000

// value passes one value, and is false at what is no JSON.
func (h *hiding) value(s *shape) bool {
	if h.space() == len(h.b) {
		return false
	}
	switch h.b[h.i] {
	case '"':
		return h.skipText()
	case '{':
		return h.object(func() bool {
			start := h.i
			if h.space() == len(h.b) || h.b[h.i] != '"' || !h.skipText() {
				return false
			}
			var of *shape
			if s != nil {
				if of = s.each; of == nil {
					of = h.member(s, bytes.TrimLeft(h.b[start:h.i], " \t\r\n"))
				}
			}
			return h.next(':') && h.value(of)
		})
	case '[':
		return h.array(func() bool {
			if s == nil {
				return h.value(nil)
			}
			return h.value(s.each)
		})
	}
	end := bytes.IndexAny(h.b[h.i:], ",]} \t\r\n")
	if end < 0 {
		end = len(h.b) - h.i
	}
	h.i += end
	return end > 0
}

// member is the shape of the member whose quoted name was passed just now, and nil for a name that there is none of, or that
// is hidden.
func (h *hiding) member(s *shape, quoted []byte) *shape {
	name := quoted[1 : len(quoted)-1]
	if of, ok := s.members[string(name)]; ok {
		return of
	}
	var plain string
	if json.Unmarshal(quoted, &plain) != nil {
		return nil
	}
	if of, ok := s.members[plain]; ok {
		return of // written with escapes
	}
	for exact := range s.members {
		if !strings.EqualFold(exact, plain) {
			continue
		}
		if !h.copied {
			h.b, h.copied = bytes.Clone(h.b), true
		}
		for i := h.i - 1 - len(name); i < h.i-1; i++ {
			h.b[i] = '_'
		}
		break
	}
	return nil
}

// object passes an object whose members' names and values member passes.
func (h *hiding) object(member func() bool) bool { return h.list('{', '}', member) }

func (h *hiding) array(element func() bool) bool { return h.list('[', ']', element) }

func (h *hiding) list(open, end byte, one func() bool) bool {
	h.depth++
	defer func() { h.depth-- }()
	return h.depth <= maxDepth && h.scan.list(open, end, one)
}

// skipText passes the string that comes.
func (h *hiding) skipText() bool {
	for i := h.i + 1; i < len(h.b); i++ {
		switch h.b[i] {
		case '"':
			h.i = i + 1
			return true
		case '\\':
			i++
		}
	}
	return false
}
