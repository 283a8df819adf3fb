package rpcproto_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpcproto"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpctest"
)

// The well-known types stand for a program's own messages.
var length = rpcproto.NewMethod[*wrapperspb.StringValue, *wrapperspb.Int64Value]("length")

func handleLength(r *rpcclient.Responder) {
	length.Handle(r, func(_ context.Context, s *wrapperspb.StringValue) (*wrapperspb.Int64Value, error) {
		return wrapperspb.Int64(int64(len(s.GetValue()))), nil
	})
}

func TestMessagesTravel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		channel := rpctest.Serve(t, handleLength)
		for _, s := range []string{"", "ann", "\x00\xff"[:1]} {
			got, err := length.Call(t.Context(), channel, wrapperspb.String(s))
			if err != nil || got.GetValue() != int64(len(s)) {
				t.Errorf("length of %q: %v, %v", s, got, err)
			}
		}
	})
}

func TestASideWithAnotherCodecIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		channel := rpctest.Serve(t, handleLength)
		asJSON := rpcclient.NewMethod[string, int]("length")
		_, err := asJSON.Call(t.Context(), channel, "ann")
		if rpcclient.CodeOf(err) != rpcclient.InvalidArgument {
			t.Errorf("got %v", err)
		}
	})
}

func TestRoundTrip(t *testing.T) {
	want, err := structpb.NewStruct(map[string]any{"a": 1.5, "b": "text", "c": []any{true, nil}, "d": map[string]any{"e": "f"}})
	if err != nil {
		t.Fatal(err)
	}
	first, err := rpcproto.Codec.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // maps have no order, the encoding has
		if again, err := rpcproto.Codec.Marshal(want); err != nil || string(again) != string(first) {
			t.Fatalf("encoded differently: %v", err)
		}
	}
	var typed *structpb.Struct
	plain := &structpb.Struct{}
	for name, v := range map[string]any{"nil pointer": &typed, "message": plain} {
		if err := rpcproto.Codec.Unmarshal(first, v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !proto.Equal(typed, want) || !proto.Equal(plain, want) {
		t.Errorf("got %v and %v, want %v", typed, plain, want)
	}
}

func TestWhatIsNoMessageIsRefused(t *testing.T) {
	if _, err := rpcproto.Codec.Marshal("text"); err == nil {
		t.Error("encoded a string")
	}
	text := ""
	var none *int
	for _, v := range []any{nil, text, &text, none, &none, struct{}{}} {
		if err := rpcproto.Codec.Unmarshal(nil, v); err == nil {
			t.Errorf("decoded into a %T", v)
		}
	}
	var m *wrapperspb.StringValue
	if err := rpcproto.Codec.Unmarshal([]byte{0xff}, &m); err == nil || m != nil {
		t.Errorf("decoded garbage: %v, %v", m, err)
	}
}

func ExampleNewMethod() {
	// In a program: var Length = rpcproto.NewMethod[*pb.Text, *pb.Length]("length")
	length := rpcproto.NewMethod[*wrapperspb.StringValue, *wrapperspb.Int64Value]("length")
	fmt.Println(length.Name(), rpcproto.Codec.Name())
	// Output: length protobuf
}
