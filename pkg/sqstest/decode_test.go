package sqstest

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

// FuzzQuickDecode: what is read by hand is what encoding/json reads.
func FuzzQuickDecode(f *testing.F) {
	for _, s := range []string{
		`{"QueueUrl":"u","Entries":[{"Id":"0","MessageBody":"a\"b\\c\n\/","MessageAttributes":{"x":{"DataType":"String","StringValue":"v"},"y":{"DataType":"String"}}}]}`,
		` { "Entries" : [ { "Id" : "0" , "ReceiptHandle" : "h" } , { } ] , "QueueUrl" : "" } `,
		`{"Entries":[{"Id":"0","MessageBody":"b","MessageGroupId":"g","MessageDeduplicationId":"d","MessageAttributes":{}}]}`,
		`{"QueueUrl":"u","MaxNumberOfMessages":10,"VisibilityTimeout":0,"WaitTimeSeconds":20,"MessageAttributeNames":["a","b"],"MessageSystemAttributeNames":[]}`,
		`{"MaxNumberOfMessages":007}`, `{"MaxNumberOfMessages":1e1}`, `{"WaitTimeSeconds":999999999999}`, `{"WaitTimeSeconds": 1 , "VisibilityTimeout":1.5}`,
		`{"Entries":[],"QueueUrl":"u"}`, `{"Entries":[{"Id":"","Id":"1"}]}`, `{"Entries":[{"Id":"0","MessageBody":"é"}]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, document []byte) {
		var send, sent sendMessageBatchIn
		if quickly(document, &send) {
			if err := json.Unmarshal(document, &sent); err != nil || !reflect.DeepEqual(send, sent) {
				t.Errorf("by hand %+v, by encoding/json %+v, %v", send, sent, err)
			}
		}
		var remove, removed deleteMessageBatchIn
		if quickly(document, &remove) {
			if err := json.Unmarshal(document, &removed); err != nil || !reflect.DeepEqual(remove, removed) {
				t.Errorf("by hand %+v, by encoding/json %+v, %v", remove, removed, err)
			}
		}
		var receive, received receiveMessageIn
		if quickly(document, &receive) {
			if err := json.Unmarshal(document, &received); err != nil || !reflect.DeepEqual(receive, received) {
				t.Errorf("by hand %+v, by encoding/json %+v, %v", receive, received, err)
			}
		}
	})
}

// What clients send is read by hand; what is odd is not.
func TestWhatIsReadByHand(t *testing.T) {
	const common = `{"Entries":[{"Id":"0","MessageAttributes":{"a":{"DataType":"String","StringValue":"{\"k\":\"q\"}"}},"MessageBody":"x"}],"QueueUrl":"u"}`
	if !quickly([]byte(common), &sendMessageBatchIn{}) {
		t.Error("a common request was left to encoding/json")
	}
	for _, odd := range []string{
		``, `{`, `{}x`, `null`, `{"Entries":null}`, `{"entries":[]}`, `{"Entries":[null]}`, `{"Entries":[{"Id":1}]}`, `{"Entries":[{"DelaySeconds":1}]}`,
		`{"Entries":[{"Id":"\u0041"}]}`, "{\"Entries\":[{\"Id\":\"\x01\"}]}", "{\"Entries\":[{\"Id\":\"\xff\"}]}", `{"Entries":[{"Id":"\x"}]}`,
		`{"Entries":[{"Id":"a","Id":"b"}]}`, `{"Entries":[],"Entries":[]}`, `{"QueueUrl":"a","QueueUrl":"b"}`, `{"Entries":[{},]}`, `{"Entries":[{}{}]}`,
		`{"Entries":[{"MessageAttributes":{"a":{},"a":{}}}]}`, `{"Entries":[{"MessageAttributes":{"a":{"BinaryValue":"AA=="}}}]}`, `{"Other":1}`,
	} {
		if quickly([]byte(odd), &sendMessageBatchIn{}) {
			t.Errorf("%s was read by hand", odd)
		}
	}
	const poll = `{"MaxNumberOfMessages":10,"MessageAttributeNames":["a"],"MessageSystemAttributeNames":["All"],"QueueUrl":"u","VisibilityTimeout":0,"WaitTimeSeconds":20}`
	if !quickly([]byte(poll), &receiveMessageIn{}) {
		t.Error("a common receive was left to encoding/json")
	}
	for _, odd := range []string{
		`{"MaxNumberOfMessages":"1"}`, `{"MaxNumberOfMessages":-1}`, `{"MaxNumberOfMessages":01}`, `{"MaxNumberOfMessages":1.0}`, `{"MaxNumberOfMessages":1e0}`,
		`{"MaxNumberOfMessages":1000000000}`, `{"MaxNumberOfMessages":}`, `{"MaxNumberOfMessages":null}`, `{"WaitTimeSeconds":1,"WaitTimeSeconds":1}`,
		`{"MessageAttributeNames":null}`, `{"MessageAttributeNames":[1]}`, `{"MessageAttributeNames":[],"MessageAttributeNames":[]}`, `{"AttributeNames":[]}`,
		`{"MessageAttribute\u004eames":[]}`, `{"Queue\/Url":""}`,
	} {
		if quickly([]byte(odd), &receiveMessageIn{}) {
			t.Errorf("%s was read by hand", odd)
		}
	}
}

// FuzzAppendText: a text is written as encoding/json writes it.
func FuzzAppendText(f *testing.F) {
	for _, s := range []string{"", "plain", "a\"b\\c\n\r\t\b\f\x00\x1f\x7f", "é\u2028\u2029\ufffd", "\xff\xc3", "<&>", strings.Repeat("😀", 3)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		var want bytes.Buffer
		e := json.NewEncoder(&want)
		e.SetEscapeHTML(false)
		if err := e.Encode(s); err != nil {
			t.Fatal(err)
		}
		if got := string(appendText(nil, s)); got+"\n" != want.String() {
			t.Errorf("%s, encoding/json writes %s", got, want.String())
		}
	})
}
