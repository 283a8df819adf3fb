package rpcclient

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestPackLines(t *testing.T) {
	want := []packed{
		{id: "kq3FvZ0c1Lx9abcdefghijklmnopqrstuv", envelope: `{"k":"r","v":1,"e":"t","n":0,"end":1}`, body: `{"Sum":60}`},
		{id: `odd"\id`, envelope: `{"k":"r","v":1,"s":"NOT_FOUND","msg":"no\nuser","e":"z","n":0,"end":1}`, body: "-"},
		{id: "text", envelope: `{"k":"r","v":1,"n":0,"end":1}`, body: "a\tb\r\nc \\ \"d\" \u2028 é 😀"},
	}
	var lines []string
	for _, p := range want {
		line := p.line()
		if strings.Count(line, "\n") != 1 || !strings.HasSuffix(line, "\n") || !isXMLText(line) {
			t.Errorf("not one line of XML text: %q", line)
		}
		lines = append(lines, line)
	}
	e := packEntry(lines)
	got, malformed := unpack(*e.MessageBody)
	if malformed != 0 || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %d malformed", got, malformed)
	}
}

func TestUnpackTakesWhatItCanRead(t *testing.T) {
	good := packed{id: "ok", envelope: `{"k":"r"}`, body: "x"}.line()
	for name, bad := range map[string]string{
		"not JSON":       "[\n",
		"not an array":   `{"id":"a"}` + "\n",
		"too short":      `["a",{}]` + "\n",
		"no ID":          `["",{},"x"]` + "\n",
		"ID not a text":  `[1,{},"x"]` + "\n",
		"long ID":        `["` + strings.Repeat("a", maxVirtualNameBytes+1) + `",{},"x"]` + "\n",
		"blank in ID":    `["a b",{},"x"]` + "\n",
		"no envelope":    `["a","r","x"]` + "\n",
		"null envelope":  `["a",null,"x"]` + "\n",
		"body not text":  `["a",{},{}]` + "\n",
		"null body":      `["a",{},null]` + "\n",
		"two on a line":  `["a",{},"x"]["b",{},"y"]` + "\n",
		"cut in its end": `["a",{},"x`,
	} {
		got, malformed := unpack(good + bad)
		if len(got) != 1 || got[0].id != "ok" || malformed != 1 {
			t.Errorf("%s: got %+v, %d malformed", name, got, malformed)
		}
		if !strings.HasSuffix(bad, "\n") {
			bad += "\n"
		}
		if got, malformed = unpack(bad + "\n" + good); len(got) != 1 || malformed != 1 {
			t.Errorf("%s first: got %+v, %d malformed", name, got, malformed)
		}
	}
	many := strings.Repeat(good, maxPackEntries+3)
	if got, malformed := unpack(many); len(got) != maxPackEntries || malformed != 3 {
		t.Errorf("%d read, %d refused", len(got), malformed)
	}
	if got, malformed := unpack(`["a",{"k":"r"},"x","",{"later":1}]` + "\r\n"); len(got) != 1 || malformed != 0 {
		t.Errorf("what a later version adds: %+v, %d malformed", got, malformed)
	}
}

// Whatever arrives, the unpacker neither fails nor returns what a pack cannot hold; what it has read can
// be packed again and is read the same.
func FuzzUnpack(f *testing.F) {
	f.Add(packed{id: "id", envelope: `{"k":"r","v":1,"n":0,"end":1}`, body: "body"}.line())
	for _, body := range []string{"", "\"\\\n\r\t/", "{}", "\x00", "ä", "]"} {
		f.Add(packed{id: "id", envelope: `{"k":"r","v":1,"e":"t","n":0,"end":1}`, body: body}.line())
	}
	f.Fuzz(func(t *testing.T, body string) {
		replies, malformed := unpack(body)
		if len(replies) > maxPackEntries || malformed < 0 || len(replies)+malformed > 1+strings.Count(body, "\n") {
			t.Fatalf("%d replies and %d malformed in %d lines", len(replies), malformed, 1+strings.Count(body, "\n"))
		}
		for line := range strings.Lines(body) {
			line = strings.TrimRight(line, "\r\n")
			if p, ok := unpackPlain(line); ok {
				if q, ok := unpackAny(line); !ok || p != q {
					t.Fatalf("%q is read as %+v, by encoding/json as %+v, %t", line, p, q, ok)
				}
			}
		}
		var again strings.Builder
		for _, r := range replies {
			if r.id == "" || len(r.id) > maxVirtualNameBytes || !isPrintableASCII(r.id) || !json.Valid([]byte(r.envelope)) {
				t.Fatalf("took %+v", r)
			}
			_, _ = parseReplyEnvelope(r.envelope)
			again.WriteString(r.line())
		}
		if !utf8.ValidString(body) {
			return
		}
		if got, bad := unpack(again.String()); bad != 0 || len(got) != len(replies) || (len(got) > 0 && !reflect.DeepEqual(got, replies)) {
			t.Fatalf("packed again: %+v and %d malformed, want %+v", got, bad, replies)
		}
	})
}

func newFakeReply(id, body string) *outgoing {
	m := &replyMessage{pack: true, content: replyContent{virtual: id, envelope: `{"k":"r","v":1,"n":0,"end":1}`, body: body}}
	return &outgoing{message: m}
}

func TestBatchBuilderPacks(t *testing.T) {
	build := func(all ...*outgoing) (shape []int, left int) {
		b := batchBuilder{room: maxPackBytes - packOverhead}
		for i, o := range all {
			if !b.add(o) {
				left = len(all) - i
				break
			}
		}
		for _, p := range b.parcels {
			shape = append(shape, len(p))
			if len(p) > 1 {
				e, live, _ := render(p, p[0].queuedAt)
				if n := messageSize(*e.MessageBody) + packOverhead; n > maxPackBytes || len(live) != len(p) {
					t.Errorf("a pack of %d bytes with %d of %d", n, len(live), len(p))
				}
			}
		}
		return shape, left
	}
	many := func(n int, id, body string) (all []*outgoing) {
		for range n {
			all = append(all, newFakeReply(id, body))
		}
		return all
	}
	a, b := strings.Repeat("a", 34), strings.Repeat("b", 34)
	kb := strings.Repeat("x", 1000)
	lines := (maxPackBytes - packOverhead) / len(packed{id: a, envelope: `{"k":"r","v":1,"n":0,"end":1}`, body: kb}.line())
	for name, tc := range map[string]struct {
		all  []*outgoing
		want []int
		left int
	}{
		"one":                  {many(1, a, kb), []int{1}, 0},
		"some":                 {many(20, a, kb), []int{20}, 0},
		"two processes":        {append(many(3, a, kb), many(2, b, kb)...), []int{3, 2}, 0},
		"too many for one":     {many(lines+1, a, kb), []int{lines, 1}, 0},
		"ten packs":            {many(11*lines, a, kb), []int{lines, lines, lines, lines, lines, lines, lines, lines, lines, lines}, lines},
		"entries are bounded":  {many(maxPackEntries+5, a, "x"), []int{maxPackEntries, 5}, 0},
		"large ones alone":     {append(many(2, a, strings.Repeat("x", maxPackBytes)), many(2, a, kb)...), []int{1, 1, 2}, 0},
		"quotes count":         {many(2, a, strings.Repeat(`"`, 20<<10)), []int{1, 1}, 0},
		"no process in the ID": {many(2, "short", kb), []int{1, 1}, 0},
	} {
		if got, left := build(tc.all...); !reflect.DeepEqual(got, tc.want) || left != tc.left {
			t.Errorf("%s: %v and %d left, want %v and %d", name, got, left, tc.want, tc.left)
		}
	}
}

// The replies that most packs are of are read without encoding/json.
func TestUnpackPlain(t *testing.T) {
	for _, p := range []packed{
		{id: "id", envelope: `{"k":"r","v":1,"e":"t","n":0,"end":1}`, body: "body"},
		{id: "id", envelope: `{"k":"r","v":1,"e":"t","c":"raw","n":0,"end":1}`, body: "{\"a\":\"\\\"}\n\r\t"},
	} {
		if got, ok := unpackPlain(strings.TrimSuffix(p.line(), "\n")); !ok || got != p {
			t.Errorf("%q: %+v, %t", p.line(), got, ok)
		}
	}
	for _, line := range []string{
		"", "[", "[]", `["id"]`, `["id",`, `["id",{"k":"r","v":1,"e":"t","n":0,"end":1}`, `["id",{"k":"r","v":1,"e":"t","n":0,"end":1},`,
		`["id",{"k":"r","v":1,"e":"t","n":0,"end":1},"b"`, `["id",{"k":"r","v":1,"e":"t","n":0,"end":1},"b`, `["id",{"k":"r","v":1,"e":"t","n":0,"end":1},"b\`,
		`["id",{"k":"r","v":1,"e":"t","n":0,"end":1},"b\u0041"]`, `["id",{"k":"r","v":1,"e":"t","n":0,"end":1},"b",1]`,
		`["",{"k":"r","v":1,"e":"t","n":0,"end":1},"b"]`, `["id",{"k":"r","n":0},"b"]`, `["id","x","b"]`, `["id",{"k":"r","v":1,"e":"t","n":0,"end":1},"ä"]`,
	} {
		if p, ok := unpackPlain(line); ok {
			t.Errorf("%q was taken for plain: %+v", line, p)
		}
	}
}
