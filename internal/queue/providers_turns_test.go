package queue

import (
	"context"
	"fmt"
	"net"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/client_golang/prometheus"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// AWS counts by account and region, so providers that lead to the same place share its turns, and an edit of one gives
// no new ones.
func TestTurnsAreThePlacesAndOutliveEdits(t *testing.T) {
	server := sqstest.NewServer(t)
	registry := &Registry{
		Cluster: "c1", ClusterUID: "u", Limits: Limits{Read: 1, Write: 1, Tag: 1}, Metrics: NewMetrics(prometheus.NewRegistry()),
		Connect: func(_ context.Context, region, endpoint, _ string) (API, string, string, error) {
			return server.Client(func(o *sqs.Options) { o.Retryer = aws.NopRetryer{} }), region, endpoint, nil
		},
	}
	write := func(name string, generation int64, spec v1alpha1.QueueProviderSpec) error {
		t.Helper()
		p, err := registry.Check(t.Context(), &v1alpha1.QueueProvider{ObjectMeta: metav1.ObjectMeta{Name: name, Generation: generation}, Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.Create(t.Context(), "q-"+name, nil, nil)
		return err
	}
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
	} {
		if got := Classify(write(tc.name, tc.generation, tc.spec)); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.what, got, tc.want)
		}
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
