package sqstest

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestNamesOfAnotherCaseNameNothing(t *testing.T) {
	form := shapeOf(reflect.TypeFor[sendMessageBatchIn]())
	for document, want := range map[string]string{
		`{"queueurl":"a","QueueUrl":"b","QUEUEURL":"c"}`: `{"QueueUrl":"b"}`,
		`{"Entries":[{"id":"1","Id":"2"},{"ID":"3"}]}`:   `{"Entries":[{"Id":"2"},{}]}`,
		`{"entries":[{"Id":"2"}]}`:                       `{}`,
		// The names of attributes are the sender's own, whatever they are.
		`{"Entries":[{"MessageAttributes":{"id":{"DataType":"String","stringvalue":"a","StringValue":"b"},"Id":{}}}]}`: `{"Entries":[{"MessageAttributes":{"id":{"DataType":"String","StringValue":"b"},"Id":{}}}]}`,
		`{ "queueUrl" : "a" , "QueueUrl" : "{\"queueurl\":1}" }`:                                                       `{"QueueUrl":"{\"queueurl\":1}"}`,
		`{"\u0051ueueUrl":"a","\u0071ueueUrl":"b"}`:                                                                    `{"QueueUrl":"a"}`,
		"{\"Entrie\u017f\":[{\"Id\":\"1\"}]}":                                                                          `{}`, // folds to s
		`{"Other":{"queueurl":[1,true,{"id":null}]},"QueueUrl":"a"}`:                                                   `{"QueueUrl":"a"}`,
	} {
		var got, wanted sendMessageBatchIn
		if err := json.Unmarshal(form.hideInexact([]byte(document)), &got); err != nil {
			t.Errorf("%s: %v", document, err)
		}
		if err := json.Unmarshal([]byte(want), &wanted); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, wanted) {
			t.Errorf("%s was read as %+v, want %+v", document, got, wanted)
		}
	}
}

func TestNoRequestIsTooDeep(t *testing.T) {
	for _, deep := range []string{strings.Repeat("[", maxRequestBytes), strings.Repeat(`{"a":`, maxRequestBytes/5)} {
		if _, err := actions["SendMessage"].decode([]byte(deep)); err == nil || err.shape != "SerializationException" {
			t.Errorf("got %v", err)
		}
	}
}

// FuzzHideInexact: what is JSON remains JSON, and what is none remains none.
func FuzzHideInexact(f *testing.F) {
	for _, s := range []string{
		`{"QueueUrl":"u","Entries":[{"Id":"0","MessageBody":"a\"b\\"},null,3]}`, `{"queueurl":1}`, `{"a`, `{"a\`, `["`, `{"Entries":{"Id":[]}}`, ` `, `{"a":}`,
	} {
		f.Add([]byte(s))
	}
	form := shapeOf(reflect.TypeFor[sendMessageBatchIn]())
	f.Fuzz(func(t *testing.T, document []byte) {
		before := string(document)
		out := form.hideInexact(document)
		if string(document) != before || len(out) != len(document) || json.Valid(out) != json.Valid(document) {
			t.Errorf("%q became %q", before, out)
		}
		if again := form.hideInexact(out); string(again) != string(out) {
			t.Errorf("%q became %q, and then %q", before, out, again)
		}
	})
}
