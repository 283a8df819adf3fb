package queue

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	testingclock "k8s.io/utils/clock/testing"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// AWS counts by account and region, so providers that lead to the same place share its turns, and an edit of one gives
// no new ones.
func TestTurnsAreThePlacesAndOutliveEdits(t *testing.T) {
	write := writer(t, sqstest.NewServer(t))
	const role = "arn:aws:iam::111122223333:role/"
	west := v1alpha1.QueueProviderSpec{Region: "eu-west-1"}
	if err := write("a", 1, west); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		what       string
		name       string
		generation int64
		spec       v1alpha1.QueueProviderSpec
		want       Class
	}{
		{"the same provider after an edit", "a", 2, v1alpha1.QueueProviderSpec{Region: "eu-west-1", AllowedQueueNames: []string{"x"}}, Throttled},
		{"another provider of the same region", "b", 1, west, Throttled},
		{"another region", "c", 1, v1alpha1.QueueProviderSpec{Region: "us-east-1"}, None},
		{"another account", "d", 1, v1alpha1.QueueProviderSpec{Region: "eu-west-1", RoleARN: role + "one"}, None},
		{"another role of that account", "e", 1, v1alpha1.QueueProviderSpec{Region: "eu-west-1", RoleARN: role + "two"}, Throttled},
		{"the same by the endpoint's name", "f", 1, v1alpha1.QueueProviderSpec{Region: "eu-west-1", Endpoint: "https://sqs.eu-west-1.amazonaws.com"}, Throttled},
		{"the same by a VPC endpoint", "g", 1, v1alpha1.QueueProviderSpec{Region: "eu-west-1", Endpoint: "https://vpce-1.sqs.eu-west-1.vpce.amazonaws.com"}, Throttled},
		{"a server that is not AWS's", "h", 1, v1alpha1.QueueProviderSpec{Region: "eu-west-1", Endpoint: "http://127.0.0.1:4566"}, None},
	} {
		if got := Classify(write(tc.name, tc.generation, tc.spec)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.what, got, tc.want)
		}
	}
}

// The operator's own credentials are some account's too. As soon as a queue's URL has told which, they share its turns with the
// roles of that account, whoever came first, and in regions that they come to later.
func TestTurnsOfTheOperatorsOwnAccountAreShared(t *testing.T) {
	server := sqstest.NewServer(t, sqstest.WithAccount("111122223333"))
	const role = "arn:aws:iam::111122223333:role/one"
	of := func(region, roleARN string) v1alpha1.QueueProviderSpec {
		return v1alpha1.QueueProviderSpec{Region: region, RoleARN: roleARN}
	}
	for what, order := range map[string][]v1alpha1.QueueProviderSpec{
		"a role comes later":                    {of("eu-west-1", ""), of("eu-west-1", role)},
		"and so do the own credentials":         {of("eu-west-1", ""), of("eu-west-1", role), of("eu-west-1", "")},
		"the own credentials in another region": {of("us-east-1", ""), of("eu-west-1", role), of("eu-west-1", "")},
	} {
		write := writer(t, server)
		for i, spec := range order {
			want := None
			if i == len(order)-1 || (i > 0 && order[0].Region == spec.Region) {
				want = Throttled
			}
			if got := Classify(write(string(rune('a'+i)), 1, spec)); got != want {
				t.Errorf("%s, provider %d: %q, want %q", what, i+1, got, want)
			}
		}
	}

	registry := &Registry{}
	limits, clk := Limits{Read: 1, Write: 1, Tag: 1}, testingclock.NewFakeClock(time.Unix(0, 0))
	own := registry.turnsAt(counted{region: "r"}, limits, clk)
	theirs := registry.turnsAt(counted{region: "r", account: "1"}, limits, clk)
	if own.Load() == theirs.Load() {
		t.Error("nobody knows yet that it is the same account")
	}
	registry.owns("", "1")
	if own.Load() != theirs.Load() {
		t.Error("it is the same account")
	}
	registry.owns("", "2")
	if own.Load() == theirs.Load() || registry.turnsAt(counted{region: "r", account: "2"}, limits, clk).Load() != own.Load() {
		t.Error("the credentials have become another account's")
	}
}

// writer returns what creates a queue by a provider of that name, generation and spec. All share one registry, with one turn to
// write for each place.
func writer(t *testing.T, server *sqstest.Server) func(name string, generation int64, spec v1alpha1.QueueProviderSpec) error {
	registry := &Registry{
		Cluster: "c1", ClusterUID: "u", Limits: Limits{Read: 1, Write: 1, Tag: 1}, Metrics: NewMetrics(prometheus.NewRegistry()),
		Clock: testingclock.NewFakeClock(time.Unix(0, 0)),
		Connect: func(_ context.Context, region, endpoint, _ string) (API, string, string, error) {
			return server.Client(func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }), region, endpoint, nil
		},
	}
	return func(name string, generation int64, spec v1alpha1.QueueProviderSpec) error {
		t.Helper()
		p, err := registry.Check(t.Context(), &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: generation}, Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Create(t.Context(), "q-"+name, nil, nil)
		if limited := (*SlowDown)(nil); errors.As(err, &limited) && limited.Provider != name {
			t.Errorf("provider %s is told of, and not %s", limited.Provider, name)
		}
		return err
	}
}

// A queue whose spec never named its encryption keeps the key that somebody else gave it.
func TestPlanLeavesForeignEncryptionAlone(t *testing.T) {
	desired := Desired{Name: "q", Owner: Owner{Cluster: "c", Kind: "request", Namespace: "n", Name: "o"}, Attributes: map[string]string{DelaySeconds: "5"}}
	observed := Observed{Exists: true, Tags: desired.Owner.Tags(), Attributes: map[string]string{
		DelaySeconds: "5", KMSMasterKeyID: "alias/theirs", KMSDataKeyReusePeriod: "600", SQSManagedSSE: "false",
	}}
	if plan := MakePlan(desired, Remembered{Attributes: []string{DelaySeconds}}, observed, Terms{}); !plan.Empty() {
		t.Errorf("planned %+v for a queue that is as asked for", plan)
	}
}

// The words of one failure are always the same, or each would be another status to write.
func TestExplainSaysTheSameOfEachFailedLookUp(t *testing.T) {
	words := func(port int) string {
		return Explain(&net.OpError{Op: "dial", Net: "tcp", Err: &net.DNSError{
			Err: fmt.Sprintf("read udp 192.0.2.1:%d->192.0.2.2:53: i/o timeout", port), Name: "sqs.eu-west-1.amazonaws.com", Server: "192.0.2.2:53", IsTimeout: true,
		}})
	}
	if a, b := words(40001), words(40002); a != b || a != "look up sqs.eu-west-1.amazonaws.com: no answer in time" {
		t.Errorf("%q and %q", a, b)
	}
}
