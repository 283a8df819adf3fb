package injected_test

import (
	"fmt"

	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// A container without rpcenv reads the variables by itself.
func ExampleParseChannels() {
	text := injected.Encode(injected.Channels{"login": {URL: "https://sqs.eu-west-1.amazonaws.com/111122223333/login", Role: injected.RoleCall}})
	fmt.Println(injected.EnvChannels, text)
	channels, err := injected.ParseChannels(text)
	login := channels["login"]
	fmt.Println(login.URL, login.Role.Calls(), login.Role.Serves(), err)
	// Output:
	// REPLYQUEUE_CHANNELS {"login":{"url":"https://sqs.eu-west-1.amazonaws.com/111122223333/login","role":"call"}}
	// https://sqs.eu-west-1.amazonaws.com/111122223333/login true false <nil>
}

func ExampleParseHeartbeat() {
	h, err := injected.ParseHeartbeat(`{"namespace":"replyqueue-heartbeats","name":"0d5e","intervalSeconds":60}`)
	fmt.Println(h.Namespace, h.Name, h.Interval(), err)
	// Output: replyqueue-heartbeats 0d5e 1m0s <nil>
}

func ExampleParseIdentity() {
	i, err := injected.ParseIdentity(`{"kind":"Stable","retentionSeconds":600}`)
	fmt.Println(i.Kind == injected.IdentityStable, i.Retention(), err)
	_, err = injected.ParseIdentity("") // the queue goes with the pod
	fmt.Println(err)
	// Output:
	// true 10m0s <nil>
	// identity: not injected
}

func ExampleParseReturnAddresses() {
	a, err := injected.ParseReturnAddresses(`{"accountID":"111122223333","region":"eu-west-1","prefixes":["rq_c_r_"]}`)
	fmt.Println(a.AccountID, a.Region, a.Prefixes, err)
	// Output: 111122223333 eu-west-1 [rq_c_r_] <nil>
}

func ExampleChannelURLVariable() {
	fmt.Println(injected.ChannelURLVariable("pricing.shop"))
	// Output: REPLYQUEUE_CHANNEL_PRICING_SHOP_URL
}
