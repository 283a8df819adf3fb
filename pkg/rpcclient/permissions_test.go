package rpcclient_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// policyFor is what is shipped for IAM in config/iam, as the server's rules for an access key of the same name.
func policyFor(t *testing.T, side string) (rules []sqstest.AccessRule) {
	t.Helper()
	document, err := os.ReadFile("../../config/iam/" + side + ".json")
	if err != nil {
		t.Fatal(err)
	}
	rules, err = sqstest.AccessByPolicy(side, document)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestTheShippedIAMPoliciesSuffice has both sides do all that they ask of SQS, each under its own policy, and then takes each action
// out of each policy in turn: it is missed.
func TestTheShippedIAMPoliciesSuffice(t *testing.T) {
	t.Parallel()
	sides := map[string][]sqstest.AccessRule{"requester": policyFor(t, "requester"), "responder": policyFor(t, "responder")}
	all := slices.Concat(sides["requester"], sides["responder"])
	if refused, failed := callsUnder(t, all); failed != nil || len(refused) > 0 {
		t.Errorf("under the policies as shipped: %v, refused %v", failed, refused)
	}
	for side, rules := range sides {
		for _, missing := range rules {
			if strings.HasSuffix(missing.Queue, ".fifo") {
				continue // The same once more, for a channel that is FIFO.
			}
			rest := slices.DeleteFunc(slices.Clone(all), func(r sqstest.AccessRule) bool {
				return r.AccessKey == side && r.Action == missing.Action
			})
			if refused, _ := callsUnder(t, rest); !slices.Contains(refused, side+" "+missing.Action) {
				t.Errorf("without %s of the %s, refused is %v: it is not needed, or the calls never come to it", missing.Action, side, refused)
			}
		}
	}
}

// callsUnder makes two calls under those rules, one of which takes longer than its request stays invisible, by two requesters that
// share a queue and so meet each other's replies. It returns what was refused, as "side Action", and the calls'
// errors.
func callsUnder(t *testing.T, rules []sqstest.AccessRule) (refused []string, failed error) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		server := sqstest.New()
		defer server.Close()
		url := createQueue(server.Client(), "rq_86a05f82_shop_login")
		replies := createQueue(server.Client(), "rq_86a05f82_r_5a3c9a1e-7d55-4c53-9d0e-0b8a4d1f6c27")
		server.SetAccess(rules...)
		as := func(side string) *sqs.Client {
			return server.Client(func(o *sqs.Options) {
				o.Credentials = aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
					return aws.Credentials{AccessKeyID: side, SecretAccessKey: "secret"}, nil
				})
			})
		}
		login := rpcclient.WithChannels(rpcclient.ChannelConfig{Name: "login", URL: url, VisibilityTimeout: 30 * time.Second})
		responder, err := rpcclient.NewResponder(as("responder"), login)
		if err != nil {
			t.Fatal(err)
		}
		greet.Handle(responder, func(_ context.Context, g greeting) (string, error) {
			if g.Name == "slow" {
				time.Sleep(time.Minute)
			}
			return "Hello, " + g.Name, nil
		})
		served := make(chan error, 1)
		go func() { served <- responder.Serve(context.Background()) }()

		var calls sync.WaitGroup
		var requesters []*rpcclient.Requester
		errs := make([]error, 2)
		for i, name := range []string{"slow", "fast"} {
			requester, err := rpcclient.NewRequester(as("requester"), rpcclient.StaticReplyQueue(replies), login)
			if err != nil {
				t.Fatal(err)
			}
			requesters = append(requesters, requester)
			channel, err := requester.Channel("login")
			if err != nil {
				t.Fatal(err)
			}
			calls.Go(func() {
				_, errs[i] = greet.Call(t.Context(), channel, greeting{Name: name}, rpcclient.CallTimeout(3*time.Minute))
			})
			synctest.Wait() // The first waits at the queue before the second does, and gets its reply.
		}
		calls.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for _, requester := range requesters {
			_ = requester.Shutdown(ctx) // What is refused shows in the log of requests.
		}
		_ = responder.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Log(err) // Likewise.
		}
		failed = errors.Join(errs...)
		for _, r := range server.RequestLog(func(r *sqstest.Request) bool { return r.Status == http.StatusForbidden }) {
			refused = append(refused, r.AccessKey+" "+strings.TrimSuffix(r.Action, "Batch"))
		}
	})
	return refused, failed
}
