package rpcclient

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRequestStamp(t *testing.T) {
	stamp, err := newRequestStamp(&requestEnvelope{
		Kind: kindRequest, Version: 1, CallID: "id", Method: `say "hi"`, Encoding: encodingText,
		Metadata: map[string]string{"k": "\x00\uFFFE"},
	})
	if err != nil {
		t.Fatal(err)
	}
	text := stamp.render(1500*time.Millisecond+time.Microsecond, time.UnixMilli(1_700_000_000_123), 2)
	if len(text) > stamp.size() {
		t.Errorf("%d bytes, announced %d", len(text), stamp.size())
	}
	if !isXMLText(text) {
		t.Errorf("not XML characters: %q", text)
	}
	e, err := parseRequestEnvelope(text)
	if err != nil || e.BudgetMS != 1500 || e.SentMS != 1_700_000_000_123 || e.Attempt != 2 || e.Method != `say "hi"` ||
		e.Metadata["k"] != "\x00\uFFFE" {
		t.Errorf("got %+v, %v from %s", e, err, text)
	}
}

func TestParseRequestEnvelope(t *testing.T) {
	for text, want := range map[string]error{
		`{"k":"q","v":1,"id":"a","m":"x","b":1,"t":1,"a":1}`: nil,
		`{"k":"q","v":9,"id":"a","new":{"x":[1]}}`:           nil, // refused later, with an answer
		`{"k":"r","v":1}`:                       errNotOurs,
		`{"v":1}`:                               errNotOurs,
		`text`:                                  errNotOurs,
		`{"k":"q","v":1,"id":"a","md":{"n":1}}`: errors.New("cannot unmarshal"),
		`{"k":"q","v":2,"id":"a","md":{"n":1}}`: errors.New("version 2"),
		`{"k":"q","v":"1","id":"a"}`:            errors.New("cannot unmarshal"),
		`{"k":1,"v":1,"id":"a"}`:                errNotOurs,
		`[]`:                                    errNotOurs,
		`{"k":"q","v":1}`:                       errors.New("call ID"),
		`{"k":"q","v":0,"id":"a"}`:              errors.New("version"),
		`{"k":"q","v":1,"id":"a","b":-1}`:       errors.New("budget"),
		`{"k":"q","v":1,"id":"a","b":9000000000000000}`:                   errors.New("budget"),
		`{"k":"q","v":1,"id":"a","a":-1}`:                                 errors.New("attempt"),
		`{"k":"q","v":1,"id":"a","m":"` + strings.Repeat("m", 257) + `"}`: errors.New("method"),
	} {
		_, err := parseRequestEnvelope(text)
		switch {
		case want == nil && err != nil, want != nil && err == nil:
			t.Errorf("%s: %v, want %v", text, err, want)
		case want == nil:
		case errors.Is(want, errNotOurs) != errors.Is(err, errNotOurs):
			t.Errorf("%s: %v, want %v", text, err, want)
		case !strings.Contains(err.Error(), want.Error()):
			t.Errorf("%s: %v, want a word on %v", text, err, want)
		}
	}
}

func TestErrorEnvelope(t *testing.T) {
	big, _ := json.Marshal(strings.Repeat("x", maxDetailsBytes))
	e := (&Error{Code: "MADE_UP", Message: strings.Repeat("é", 1000), RetryAfter: time.Microsecond, Details: []json.RawMessage{
		big, json.RawMessage(`{"limit":3}`), json.RawMessage(`{`), json.RawMessage("[\"\xf5\"]"),
	}})
	env := newErrorEnvelope(e, true)
	text, err := marshalEnvelope(&env)
	if err != nil {
		t.Fatal(err)
	}
	got, err := parseReplyEnvelope(text)
	if err != nil || got.Code != Unknown || !got.Rejected || got.RetryAfterMS != 1 || len(got.Details) != 2 ||
		string(got.Details[1]) != "[\"\uFFFD\"]" || !isXMLText(text) || len(got.Message) != maxMessageBytes || !isXMLText(got.Message) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestParseReplyEnvelope(t *testing.T) {
	if e, err := parseReplyEnvelope(`{"k":"r","v":1,"n":0,"end":1}`); err != nil || e.Code != OK {
		t.Errorf("no code: %+v, %v", e, err)
	}
	if e, err := parseReplyEnvelope(`{"k":"r","v":1,"s":"FUTURE"}`); err != nil || e.Code != Unknown {
		t.Errorf("unknown code: %+v, %v", e, err)
	}
	for _, text := range []string{`{"k":"q","v":1,"id":"a"}`, ``, `{"k":"r"`} {
		if _, err := parseReplyEnvelope(text); !errors.Is(err, errNotOurs) {
			t.Errorf("%s: %v, want errNotOurs", text, err)
		}
	}
	if _, err := parseReplyEnvelope(`{"k":"r","v":"1"}`); err == nil || errors.Is(err, errNotOurs) {
		t.Errorf("a mistyped field: %v, and its body is no answer", err)
	}
	if _, err := parseReplyEnvelope(`{"k":"r","v":2}`); err == nil || errors.Is(err, errNotOurs) {
		t.Errorf("version 2: %v", err)
	}
}

// No envelope makes a parser panic, and what is accepted can be written again.
func FuzzEnvelope(f *testing.F) {
	f.Add(`{"k":"q","v":1,"id":"a","m":"x","e":"t","c":"json","f":["p"],"md":{"k":"v"},"b":30000,"t":1700000000000,"a":1}`)
	f.Add(`{"k":"r","v":1,"s":"NOT_FOUND","msg":"no","d":[{"a":1},2],"x":true,"ra":5,"e":"z","run":"r","n":0,"end":1}`)
	f.Add(`{"k":"r","v":1,"d":["\uFFFE"]}`)
	f.Add("{\"k\":\"r\",\"v\":1,\"d\":[\"\xf5\"]}")
	f.Fuzz(func(t *testing.T, text string) {
		if e, err := parseRequestEnvelope(text); err == nil {
			stamp, err := newRequestStamp(&e)
			if err != nil {
				t.Fatalf("%q: %v", text, err)
			}
			again, err := parseRequestEnvelope(stamp.render(time.Second, time.Now(), 1))
			if err != nil || again.CallID != e.CallID && isValidUTF8(e.CallID) {
				t.Fatalf("%q: %+v, %v", text, again, err)
			}
		}
		if e, err := parseReplyEnvelope(text); err == nil {
			out, err := marshalEnvelope(&e)
			if err != nil || !isXMLText(out) {
				t.Fatalf("%q: %q, %v", text, out, err)
			}
			if _, err := parseReplyEnvelope(out); err != nil {
				t.Fatalf("%q: %v", out, err)
			}
		}
	})
}

func isValidUTF8(s string) bool { return strings.ToValidUTF8(s, "") == s }

func TestBody(t *testing.T) {
	for _, tc := range []struct{ payload, body, encoding string }{
		{"", "-", encodingEmpty},
		{"-", "-", encodingText},
		{"é\t\r\n\U0001F600", "é\t\r\n\U0001F600", encodingText},
		{"\x00", "AA==", encodingBase64},
		{"\xff", "/w==", encodingBase64},
		{"\uFFFE", "77++", encodingBase64},
		{"\x0b", "Cw==", encodingBase64},
	} {
		body, encoding := encodeBody([]byte(tc.payload))
		if body != tc.body || encoding != tc.encoding {
			t.Errorf("encodeBody(%q) = %q, %q", tc.payload, body, encoding)
		}
		back, err := decodeBody(body, encoding)
		if err != nil || string(back) != tc.payload {
			t.Errorf("decodeBody(%q, %q) = %q, %v", body, encoding, back, err)
		}
	}
	for _, encoding := range []string{"b", "gzip"} {
		if _, err := decodeBody("*", encoding); err == nil {
			t.Errorf("encoding %q of * was accepted", encoding)
		}
	}
}

func FuzzBody(f *testing.F) {
	f.Add([]byte("text"))
	f.Add([]byte{0xef, 0xbf, 0xbf})
	f.Fuzz(func(t *testing.T, payload []byte) {
		body, encoding := encodeBody(payload)
		if body == "" || !isXMLText(body) {
			t.Fatalf("SQS would refuse %q", body)
		}
		back, err := decodeBody(body, encoding)
		if err != nil || !bytes.Equal(back, payload) {
			t.Fatalf("%q came back as %q, %v", payload, back, err)
		}
	})
}

func TestCallID(t *testing.T) {
	nonce := newNonce()
	id := newCallID(nonce)
	if len(nonce) != nonceLength || len(id) != nonceLength+tokenLength || !hasNonce(id, nonce) || hasNonce(id, newNonce()) || hasNonce(nonce, nonce) {
		t.Errorf("nonce %q, id %q", nonce, id)
	}
	if id == newCallID(nonce) {
		t.Error("two calls with one ID")
	}
	if h := hashCallID(id); len(h) != 12 || strings.Contains(id, h) {
		t.Errorf("hash %q", h)
	}
}

// FuzzPlainEnvelope: what is read and written by hand is what encoding/json reads and writes.
func FuzzPlainEnvelope(f *testing.F) {
	f.Add(`{"k":"q","v":1,"id":"kq3FvZ0c1Lx9","m":"add","e":"t","c":"raw","b":30000,"t":1700000000000,"a":1}`)
	f.Add(`{"k":"q","v":1,"id":"<&>","m":"a","b":0,"t":0,"a":0}`)
	f.Add(`{"k":"q","k":"r"}`)
	f.Add(`{"v":01,"a":-1,"b":1.5,"t":1e3}`)
	f.Add(`{"id":1,"v":"1"}`)
	f.Add(`{"k":"q","f":["pack","stream"],"m":"x"}`)
	f.Add(`{"f":[],"f":[1]}`)
	f.Fuzz(func(t *testing.T, text string) {
		e, ok := plainRequest(text)
		if !ok {
			return
		}
		var want requestEnvelope
		if err := json.Unmarshal([]byte(text), &want); err != nil || !reflect.DeepEqual(e, want) {
			t.Fatalf("%q: by hand %+v, by encoding/json %+v, %v", text, e, want, err)
		}
		e.BudgetMS, e.SentMS, e.Attempt = 0, 0, 0
		if head, ok := plainHead(&e); ok && isPlain(e.Kind) {
			if all, err := json.Marshal(&e); err != nil || string(all) != head+`,"b":0,"t":0,"a":0}` {
				t.Fatalf("by hand %s, by encoding/json %s, %v", head, all, err)
			}
		}
	})
}

// What requesters send usually is read by hand.
func TestUsualEnvelopeIsPlain(t *testing.T) {
	e := requestEnvelope{Kind: kindRequest, Version: protocolVersion, CallID: newCallID(newNonce()), Method: "orders.add", Encoding: encodingText}
	stamp, err := newRequestStamp(&e)
	if err != nil {
		t.Fatal(err)
	}
	text := stamp.render(time.Second, time.Now(), 1)
	if _, ok := plainRequest(text); !ok {
		t.Errorf("%s is left to encoding/json", text)
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = parseRequestEnvelope(text) }); n > 0 {
		t.Errorf("reading it makes %v allocations", n)
	}
}

// Eight bytes at a time or one rune after the other: the answer is the same.
func TestIsXMLText(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	parts := []string{"plain text ", "x", "\t", "\n", "\r", "\x7f", "ä", "世", "🙂", "\ufffd", "\ufffe", "\uffff", "\x00", "\x1f", "\x80", "\xed\xa0\x80", " "}
	for range 20_000 {
		var b strings.Builder
		for range random.IntN(12) {
			n := len(parts)
			if random.IntN(4) > 0 {
				n = 10 // of good ones
			}
			b.WriteString(parts[random.IntN(n)])
		}
		text := b.String()
		want := utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
			return r < ' ' && r != '\t' && r != '\n' && r != '\r' || r == 0xfffe || r == 0xffff
		})
		if got, ofBytes := isXMLText(text), isXMLText([]byte(text)); got != want || ofBytes != want {
			t.Fatalf("%q: %t, as bytes %t, want %t", text, got, ofBytes, want)
		}
	}
}

func BenchmarkIsXMLText(b *testing.B) {
	payload := bytes.Repeat([]byte("x"), 1<<10)
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		if !isXMLText(payload) {
			b.Fatal("no")
		}
	}
}

func TestNamesInAnotherCaseAreOtherNames(t *testing.T) {
	const fields = `"v":1,"id":"abcdefghijklmnop","m":"sum","b":1000,"t":1,"a":1,"md":{"Tenant":"A"}`
	for _, other := range []string{`"M":"drop"`, `"M" : "drop"`, `"\u004d":"drop"`, `"B":5,"V":9`, `"K":"r"`, "\"\u212a\":\"r\"", `"ID":7`} {
		for _, text := range []string{`{"k":"q",` + fields + `,` + other + `}`, `{` + other + `,"k":"q",` + fields + `}`} {
			e, err := parseRequestEnvelope(text)
			if err != nil || e.Method != "sum" || e.BudgetMS != 1000 || e.CallID != "abcdefghijklmnop" || e.Metadata["Tenant"] != "A" {
				t.Errorf("%s: %+v, %v", text, e, err)
			}
		}
	}
	if _, err := parseRequestEnvelope(`{"K":"q","V":1,"ID":"abcdefghijklmnop","M":"sum","B":1000}`); !errors.Is(err, errNotOurs) {
		t.Errorf("an envelope without a kind: %v", err)
	}
	if e, err := parseReplyEnvelope(`{"k":"r","v":1,"d":["<A>"],"n":0,"end":1,"S":"NOT_FOUND","X":"?"}`); err != nil || e.Code != OK || e.Rejected || len(e.Details) != 1 {
		t.Errorf("%+v, %v", e, err)
	}
	if packVersion(`{"K":"p","v":1}`) != 0 || packVersion(`{"k":"p","v":1,"V":2}`) != 1 {
		t.Error("a pack is told by a name in another case")
	}
}
