package rpcclient

import (
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/schemas"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// operation is one of the operations that lightProtocol has ways of its own for, or one that it leaves to the SDK.
type operation struct {
	schema *smithy.OperationSchema
	output func() smithy.Deserializable
}

var operations = map[string]operation{
	"send": {
		smithy.NewOperationSchema(schemas.SendMessageBatch, schemas.SendMessageBatchRequest, schemas.SendMessageBatchResult),
		func() smithy.Deserializable { return new(sqs.SendMessageBatchOutput) },
	},
	"receive": {
		smithy.NewOperationSchema(schemas.ReceiveMessage, schemas.ReceiveMessageRequest, schemas.ReceiveMessageResult),
		func() smithy.Deserializable { return new(sqs.ReceiveMessageOutput) },
	},
	"delete": {
		smithy.NewOperationSchema(schemas.DeleteMessageBatch, schemas.DeleteMessageBatchRequest, schemas.DeleteMessageBatchResult),
		func() smithy.Deserializable { return new(sqs.DeleteMessageBatchOutput) },
	},
	"change": {
		smithy.NewOperationSchema(schemas.ChangeMessageVisibilityBatch, schemas.ChangeMessageVisibilityBatchRequest, schemas.ChangeMessageVisibilityBatchResult),
		func() smithy.Deserializable { return new(sqs.ChangeMessageVisibilityBatchOutput) },
	},
}

// sdkProtocol is the SDK's own.
func sdkProtocol() smithyhttp.ClientProtocol { return sqs.New(sqs.Options{}).Options().Protocol }

// written is a request as it would go out.
func written(t testing.TB, p smithyhttp.ClientProtocol, op operation, in smithy.Serializable) (*smithyhttp.Request, string) {
	t.Helper()
	req := smithyhttp.NewStackRequest().(*smithyhttp.Request)
	if err := p.SerializeRequest(context.Background(), op.schema, in, req); err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(req.GetStream())
	if err != nil {
		t.Fatal(err)
	}
	return req, string(body)
}

// checkWritten compares what both make of an input: byte for byte where no order of a map is in it.
func checkWritten(t testing.TB, light, sdk smithyhttp.ClientProtocol, op operation, in smithy.Serializable, ordered bool) {
	t.Helper()
	want, wantBody := written(t, sdk, op, in)
	got, gotBody := written(t, light, op, in)
	if !reflect.DeepEqual(got.Header, want.Header) || got.Method != want.Method || got.URL.Path != want.URL.Path ||
		got.ContentLength != want.ContentLength || got.IsStreamSeekable() != want.IsStreamSeekable() {
		t.Errorf("%s %s %v of %d bytes, want %s %s %v of %d", got.Method, got.URL, got.Header, got.ContentLength, want.Method, want.URL, want.Header, want.ContentLength)
	}
	if ordered && gotBody != wantBody {
		t.Errorf("wrote\n%s\nwant\n%s", gotBody, wantBody)
	}
	var g, w any
	if err := json.Unmarshal([]byte(gotBody), &g); err != nil {
		t.Fatalf("%v: %s", err, gotBody)
	}
	if err := json.Unmarshal([]byte(wantBody), &w); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(w, g); d != "" {
		t.Error(d)
	}
}

// answerOf is an answer as the SDK hands it to a protocol.
func answerOf(status int, text string) *smithyhttp.Response {
	return &smithyhttp.Response{Response: &http.Response{
		StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)),
	}}
}

// checkRead compares what both read of an answer.
func checkRead(t testing.TB, light, sdk smithyhttp.ClientProtocol, name string, status int, text string) {
	t.Helper()
	op := operations[name]
	want, got := op.output(), op.output()
	wantErr := sdk.DeserializeResponse(context.Background(), op.schema, sqs.TypeRegistry, answerOf(status, text), want)
	gotErr := light.DeserializeResponse(context.Background(), op.schema, sqs.TypeRegistry, answerOf(status, text), got)
	if (gotErr == nil) != (wantErr == nil) || gotErr != nil && gotErr.Error() != wantErr.Error() {
		t.Fatalf("%s of %q: error %v, want %v", name, text, gotErr, wantErr)
	}
	if wantErr != nil {
		return // nobody looks at the rest
	}
	if d := cmp.Diff(want, got, cmpopts.IgnoreUnexported(
		sqs.SendMessageBatchOutput{}, sqs.ReceiveMessageOutput{}, sqs.DeleteMessageBatchOutput{}, sqs.ChangeMessageVisibilityBatchOutput{},
		types.SendMessageBatchResultEntry{}, types.DeleteMessageBatchResultEntry{}, types.BatchResultErrorEntry{}, types.Message{},
		types.MessageAttributeValue{}, types.ChangeMessageVisibilityBatchResultEntry{}), cmpopts.IgnoreFields(sqs.SendMessageBatchOutput{}, "ResultMetadata"),
		cmpopts.IgnoreFields(sqs.ReceiveMessageOutput{}, "ResultMetadata"), cmpopts.IgnoreFields(sqs.DeleteMessageBatchOutput{}, "ResultMetadata"),
		cmpopts.IgnoreFields(sqs.ChangeMessageVisibilityBatchOutput{}, "ResultMetadata")); d != "" {
		t.Fatalf("%s of %q:\n%s", name, text, d)
	}
}

var oddTexts = []string{
	"", "x", "12345678", "1234567\"", "1234567\\9", "1234567\x1f", "1234567\x7f.", "1234567é", "a\"b\\c/d\n\r\t\b\f\x00\x1f\x7f",
	"grüße, 世界 🙂 and more of it", "\u2028\u2029", "\ufffd\ufffe\uffff", "bad \xff\xfe utf-8 \xc3", "<a href='x'>&amp;</a>",
	strings.Repeat("x", 1<<10), strings.Repeat(`{"a":"b"},`, 100),
}

func TestProtocolWritesWhatTheSDKWrites(t *testing.T) {
	light, sdk := newLightProtocol(sdkProtocol()), sdkProtocol()
	url := aws.String("https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_ns_login")
	texts := oddTexts
	random := rand.New(rand.NewPCG(1, 2))
	const bytes = "abcdefghijklmnop\"\\\n\x00\x1f\x7f\x80\xe2\xa8"
	for range 200 {
		b := make([]byte, random.IntN(64))
		for i := range b {
			b[i] = bytes[random.IntN(len(bytes))]
		}
		texts = append(texts, string(b))
	}
	for _, text := range texts {
		e := types.SendMessageBatchRequestEntry{Id: aws.String("0"), MessageBody: &text}
		checkWritten(t, light, sdk, operations["send"], &sqs.SendMessageBatchInput{QueueUrl: url, Entries: []types.SendMessageBatchRequestEntry{e, e}}, true)
		e.MessageAttributes = map[string]types.MessageAttributeValue{text: stringAttribute(text)}
		e.MessageGroupId, e.MessageDeduplicationId = &text, &text
		checkWritten(t, light, sdk, operations["send"], &sqs.SendMessageBatchInput{QueueUrl: url, Entries: []types.SendMessageBatchRequestEntry{e, e}}, true)
		checkWritten(t, light, sdk, operations["delete"], &sqs.DeleteMessageBatchInput{
			QueueUrl: &text, Entries: []types.DeleteMessageBatchRequestEntry{{Id: aws.String("0"), ReceiptHandle: &text}, {}},
		}, true)
		checkWritten(t, light, sdk, operations["receive"], &sqs.ReceiveMessageInput{
			QueueUrl: &text, MessageAttributeNames: []string{text, "b"}, MessageSystemAttributeNames: systemAttributes, MaxNumberOfMessages: 10,
			VisibilityTimeout: 5, WaitTimeSeconds: 20,
		}, true)
	}
	for _, in := range []smithy.Serializable{
		&sqs.SendMessageBatchInput{},
		&sqs.SendMessageBatchInput{Entries: []types.SendMessageBatchRequestEntry{}},
		&sqs.SendMessageBatchInput{Entries: []types.SendMessageBatchRequestEntry{{}, {MessageAttributes: map[string]types.MessageAttributeValue{}}}},
		&sqs.SendMessageBatchInput{Entries: []types.SendMessageBatchRequestEntry{{DelaySeconds: 3}}},
		&sqs.SendMessageBatchInput{Entries: []types.SendMessageBatchRequestEntry{{MessageSystemAttributes: map[string]types.MessageSystemAttributeValue{
			"AWSTraceHeader": {DataType: aws.String("String"), StringValue: aws.String("Root=1")},
		}}}},
		&sqs.SendMessageBatchInput{Entries: []types.SendMessageBatchRequestEntry{{MessageAttributes: map[string]types.MessageAttributeValue{
			"binary": {DataType: aws.String("Binary"), BinaryValue: []byte{0, 1}},
		}}}},
		&sqs.SendMessageBatchInput{Entries: []types.SendMessageBatchRequestEntry{{MessageAttributes: map[string]types.MessageAttributeValue{
			"lists": {StringListValues: []string{"a"}, BinaryListValues: [][]byte{{1}}},
		}}}},
	} {
		checkWritten(t, light, sdk, operations["send"], in, true)
	}
	checkWritten(t, light, sdk, operations["send"], &sqs.SendMessageBatchInput{QueueUrl: url, Entries: []types.SendMessageBatchRequestEntry{{
		MessageAttributes: map[string]types.MessageAttributeValue{"a": stringAttribute("1"), "b": stringAttribute("2"), "c": {}},
	}}}, false)
	for _, in := range []smithy.Serializable{
		&sqs.ReceiveMessageInput{},
		&sqs.ReceiveMessageInput{MessageAttributeNames: []string{}, MessageSystemAttributeNames: []types.MessageSystemAttributeName{}},
		&sqs.ReceiveMessageInput{AttributeNames: []types.QueueAttributeName{"All"}, ReceiveRequestAttemptId: url}, //nolint:staticcheck // middleware may still set what is deprecated
	} {
		checkWritten(t, light, sdk, operations["receive"], in, true)
	}
	checkWritten(t, light, sdk, operations["delete"], &sqs.DeleteMessageBatchInput{}, true)
	checkWritten(t, light, sdk, operations["delete"], &sqs.DeleteMessageBatchInput{Entries: []types.DeleteMessageBatchRequestEntry{}}, true)
	checkWritten(t, light, sdk, operations["change"], &sqs.ChangeMessageVisibilityBatchInput{
		QueueUrl: url, Entries: []types.ChangeMessageVisibilityBatchRequestEntry{{Id: aws.String("0"), ReceiptHandle: aws.String("h"), VisibilityTimeout: 7}},
	}, true)
}

// answers are what SQS says, and what it does not say today.
var answers = map[string][]string{
	"send": {
		`{"Successful":[{"Id":"0","MessageId":"m","MD5OfMessageBody":"a","MD5OfMessageAttributes":"b"},{"Id":"1"}],"Failed":[]}`,
		`{"Failed":[{"Id":"3","Code":"InternalFailure","Message":"x","SenderFault":false},{"Id":"4","SenderFault":true}]}`,
		`{"Successful":[{"Id":"0","MD5OfMessageSystemAttributes":"a","SequenceNumber":"18849496460467696128"}]}`,
		`{"Successful":null,"Failed":null}`, `{"Successful":[null]}`, `{"Successful":[{"Id":null}]}`, `{"Successful":[{"Id":7}]}`,
		`{"Successful":[{"Id":"0","New":{"a":[1,2]}}],"More":1}`, `{"Successful":[{"Id":"0","Id":"1"}],"Successful":[]}`,
		`{"Failed":[{"Id":"3","SenderFault":"true"}]}`, `{"Failed":[{"SenderFault":trueish}]}`,
		` { "Successful" : [ { "Id" : "0" } , { "Id" : "1" } ] , "Failed" : [ ] } ` + "\n",
	},
	"delete": {
		`{"Successful":[{"Id":"0"},{"Id":"1"}],"Failed":[]}`, `{"Successful":[],"Failed":[{"Id":"0","Code":"ReceiptHandleIsInvalid","SenderFault":true}]}`,
		`{"Successful":[{"Id":"0","X":1}]}`, `{"Other":1}`, `{"Successful":[{}],"Successful":[{}]}`,
	},
	"receive": {
		`{"Messages":[{"MessageId":"m","ReceiptHandle":"h","MD5OfBody":"a","Body":"b","Attributes":{"SentTimestamp":"1","ApproximateReceiveCount":"2"},` +
			`"MD5OfMessageAttributes":"c","MessageAttributes":{"replyqueue":{"DataType":"String","StringValue":"{\"k\":\"q\"}"},"n":{"DataType":"Number","StringValue":"1"}}},{"Body":"second"}]}`,
		`{}`, `{"Messages":[]}`, `{"Messages":null}`, `{"Messages":[{"Attributes":{},"MessageAttributes":{}}]}`,
		`{"Messages":[{"MessageAttributes":{"b":{"DataType":"Binary","BinaryValue":"AAE="}}}]}`,
		`{"Messages":[{"MessageAttributes":{"b":null}}]}`, `{"Messages":[{"Attributes":{"a":null}}]}`,
		`{"Messages":[{"Attributes":{"a":"1","a":"2"},"Attributes":{"b":"3"}}]}`, `{"Messages":[{"MessageAttributes":{"a":{"DataType":"x"},"a":{"StringValue":"y"}}}]}`,
		`{"Messages":[{"Body":"\u0041\u00e9\u4e16\ud83d\ude42\u2028"},{"Body":"\"\\\/\b\f\n\r\t"}]}`,
		`{"Messages":[{"Body":"\ud83d"}]}`, `{"Messages":[{"Body":"\ud83dx"}]}`, `{"Messages":[{"Body":"\ud83d\u0041"}]}`, `{"Messages":[{"Body":"\ude42\ud83d"}]}`,
		`{"Messages":[{"Body":"\ufffd \ud83d\ufffd"}]}`, `{"Messages":[{"Body":"\u12"}]}`, `{"Messages":[{"Body":"\x"}]}`, `{"Messages":[{"Body":"\`,
		"{\"Messages\":[{\"Body\":\"a\x01b\"}]}", "{\"Messages\":[{\"Body\":\"\\n\x01b\"}]}", "{\"Messages\":[{\"Body\":\"\xff\"},{\"Body\":\"\\n\xff\"}]}",
		`{"Messages":[{"Body":"` + strings.Repeat(`x\"y`, 20_000) + `","MessageId":"` + strings.Repeat("z", 20_000) + `","Attributes":{"a":"b"}}]}`,
		`{"Messages":[{"Bod\u0079":"b"}]}`, `{"Messages":[{"body":"b"}]}`,
		`{"Messages":[{"Body":"b"}]}trailing`, `{"Messages":[{"Body":"b"}`, `{"Messages":[{"Body":"b"},]}`, `{"Messages":[{"Body":"b",}]}`, `{"Messages":[{"Body"}]}`,
		`{"Messages":{"Body":"b"}}`, `[]`, `null`, `"x"`, `{`, ``, ` `, `{"Messages" "x"}`, `{"Messages":[{"Body":"b"}]]`, `{"Messages":["b"]}`,
	},
	"change": {`{"Successful":[{"Id":"0"}],"Failed":[]}`},
}

func TestProtocolReadsWhatTheSDKReads(t *testing.T) {
	light, sdk := newLightProtocol(sdkProtocol()), sdkProtocol()
	for name := range operations {
		for _, of := range answers {
			for _, text := range of {
				checkRead(t, light, sdk, name, 200, text)
			}
		}
		checkRead(t, light, sdk, name, 400, `{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"no"}`)
		checkRead(t, light, sdk, name, 500, `<html>`)
	}
}

// What SQS says today is read without the SDK, or all of this is for nothing.
func TestProtocolReadsPlainAnswersItself(t *testing.T) {
	for name, read := range map[string]func(*jsonText) bool{
		"send":    func(j *jsonText) bool { return readSendBatch(j, new(sqs.SendMessageBatchOutput)) },
		"delete":  func(j *jsonText) bool { return readDeleteBatch(j, new(sqs.DeleteMessageBatchOutput)) },
		"receive": func(j *jsonText) bool { return readReceive(j, new(sqs.ReceiveMessageOutput)) },
	} {
		if !read(newJSONText(answers[name][0])) {
			t.Errorf("%s: %s", name, answers[name][0])
		}
	}
}

// A part of a long answer does not keep all of it.
func TestPartsOfLongAnswersAreCopies(t *testing.T) {
	long := `{"Messages":[{"MessageId":"m","Body":"` + strings.Repeat("x", sharedText) + `"}]}`
	for text, copied := range map[string]bool{long: true, answers["receive"][0]: false} {
		j := newJSONText(text)
		if j.copy != copied || !readReceive(j, new(sqs.ReceiveMessageOutput)) {
			t.Errorf("an answer of %d bytes: copied %t", len(text), j.copy)
		}
	}
}

// A member that a later SDK adds is one that writers and readers here must know of, or leave to the SDK.
func TestProtocolKnowsEveryMember(t *testing.T) {
	for _, c := range []struct {
		v    any
		want []string
	}{
		{sqs.SendMessageBatchInput{}, []string{"Entries", "QueueUrl"}},
		{sqs.SendMessageBatchOutput{}, []string{"Failed", "Successful", "ResultMetadata"}},
		{sqs.ReceiveMessageInput{}, []string{
			"QueueUrl", "AttributeNames", "MaxNumberOfMessages", "MessageAttributeNames", "MessageSystemAttributeNames", "ReceiveRequestAttemptId",
			"VisibilityTimeout", "WaitTimeSeconds",
		}},
		{sqs.ReceiveMessageOutput{}, []string{"Messages", "ResultMetadata"}},
		{sqs.DeleteMessageBatchInput{}, []string{"Entries", "QueueUrl"}},
		{sqs.DeleteMessageBatchOutput{}, []string{"Failed", "Successful", "ResultMetadata"}},
		{types.SendMessageBatchRequestEntry{}, []string{
			"Id", "MessageBody", "DelaySeconds", "MessageAttributes", "MessageDeduplicationId", "MessageGroupId", "MessageSystemAttributes",
		}},
		{types.SendMessageBatchResultEntry{}, []string{
			"Id", "MD5OfMessageBody", "MessageId", "MD5OfMessageAttributes", "MD5OfMessageSystemAttributes", "SequenceNumber",
		}},
		{types.DeleteMessageBatchRequestEntry{}, []string{"Id", "ReceiptHandle"}},
		{types.DeleteMessageBatchResultEntry{}, []string{"Id"}},
		{types.BatchResultErrorEntry{}, []string{"Code", "Id", "SenderFault", "Message"}},
		{types.Message{}, []string{"Attributes", "Body", "MD5OfBody", "MD5OfMessageAttributes", "MessageAttributes", "MessageId", "ReceiptHandle"}},
		{types.MessageAttributeValue{}, []string{"DataType", "BinaryListValues", "BinaryValue", "StringListValues", "StringValue"}},
	} {
		typ := reflect.TypeOf(c.v)
		var got []string
		for i := range typ.NumField() {
			if f := typ.Field(i); f.IsExported() {
				got = append(got, f.Name)
			}
		}
		slices.Sort(got)
		slices.Sort(c.want)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s has the members %v, known are %v", typ, got, c.want)
		}
	}
}

// The SDK's protocol is replaced where it is the one that is known, and what the application set otherwise stays.
func TestProtocolOfTheDerivedClient(t *testing.T) {
	if _, ok := newClient(sqs.New(sqs.Options{Region: "eu-west-1"})).Options().Protocol.(*lightProtocol); !ok {
		t.Error("the SDK's protocol was kept")
	}
}

func FuzzProtocol(f *testing.F) {
	for _, of := range answers {
		for _, text := range of {
			f.Add("a\"b", text)
		}
	}
	for _, text := range oddTexts {
		f.Add(text, `{"Messages":[{"Body":"b"}]}`)
	}
	light, sdk := newLightProtocol(sdkProtocol()), sdkProtocol()
	f.Fuzz(func(t *testing.T, text, answer string) {
		for _, name := range []string{"send", "receive", "delete"} {
			checkRead(t, light, sdk, name, 200, answer)
		}
		e := types.SendMessageBatchRequestEntry{
			Id: aws.String("0"), MessageBody: &text, MessageAttributes: map[string]types.MessageAttributeValue{text: stringAttribute(text)},
		}
		checkWritten(t, light, sdk, operations["send"], &sqs.SendMessageBatchInput{QueueUrl: &text, Entries: []types.SendMessageBatchRequestEntry{e}}, true)
	})
}
