package rpcclient_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// What responders do with a store: the first claims a request and answers it, a copy of it gets that answer.
func ExampleMemoryReplyStore() {
	ctx := context.Background()
	store := rpcclient.NewMemoryReplyStore(10_000)
	request := rpcclient.StoreKey{ID: "hash of the call", Content: "hash of what is asked", Attempt: 1, Owner: "first"}
	copied := request
	copied.Owner = "second"
	lease := func() time.Time { return time.Now().Add(15 * time.Second) }

	_, state, err := store.Claim(ctx, request, lease())
	fmt.Println(state == rpcclient.ClaimGranted, err)
	_, state, err = store.Claim(ctx, copied, lease())
	fmt.Println(state == rpcclient.ClaimBusy, err)
	fmt.Println(store.Complete(ctx, request, []byte("42"), false, time.Now().Add(time.Minute)))
	reply, state, err := store.Claim(ctx, copied, lease())
	fmt.Println(state == rpcclient.ClaimAnswered, string(reply), err)

	// One that comes to nothing is given back.
	other := rpcclient.StoreKey{ID: "hash of another call", Content: "hash", Attempt: 1, Owner: "first"}
	_, _, _ = store.Claim(ctx, other, lease())
	fmt.Println(store.Release(ctx, other))
	// Output:
	// true <nil>
	// true <nil>
	// <nil>
	// true 42 <nil>
	// <nil>
}

// A program that answers without a Responder asks where a reply may go.
func ExampleReturnAddressPolicy_Check() {
	const requests = "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_ns_login"
	policy := rpcclient.ReturnAddressPolicy{Prefixes: []string{"rq_c_r_"}}
	fmt.Println(policy.Check(requests, "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f3a#nnnnnnnnnnnnAAAAAAAAAAAAAAAAAAAAAA"))
	_, err := policy.Check(requests, "https://sqs.eu-west-1.amazonaws.com/111122223333/salaries#nnnnnnnnnnnnAAAAAAAAAAAAAAAAAAAAAA")
	fmt.Println(err != nil)
	// Output:
	// https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f3a#nnnnnnnnnnnnAAAAAAAAAAAAAAAAAAAAAA <nil>
	// true
}

// strict is JSON that refuses fields it does not know.
type strict struct{ rpcclient.Codec }

func (strict) Name() string { return "strict-json" }

func (s strict) Unmarshal(data []byte, v any) error {
	d := json.NewDecoder(strings.NewReader(string(data)))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func ExampleCodec() {
	codec := strict{rpcclient.JSON}
	payload, err := codec.Marshal(greeting{Name: "Ann"})
	fmt.Println(codec.Name(), string(payload), err)
	fmt.Println(codec.Unmarshal([]byte(`{"nickname":"Ann"}`), &greeting{}))
	// Output:
	// strict-json {"name":"Ann"} <nil>
	// json: unknown field "nickname"
}
