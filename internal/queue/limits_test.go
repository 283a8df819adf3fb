package queue

import (
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/prometheus/client_golang/prometheus"
	testingclock "k8s.io/utils/clock/testing"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Turns are given out by place and by class: who used up those of one has all of the others.
func TestEachRegionAndEachClassHasTurnsOfItsOwn(t *testing.T) {
	ctx := t.Context()
	server := sqstest.NewServer(t)
	metrics, clk := NewMetrics(prometheus.NewRegistry()), testingclock.NewFakeClock(time.Unix(0, 0))
	guarded := func(region string) API {
		api := server.Client(func(o *sqs.Options) { o.Region, o.Retryer = region, aws.NopRetryer{} })
		return Guard(api, region, Limits{Read: 1, Write: 1, Tag: 1}, metrics, clk)
	}
	west, east := guarded("eu-west-1"), guarded("us-east-1")
	create := func(api API) error {
		_, err := api.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: ptr.To("q")})
		return err
	}
	if err := create(west); err != nil {
		t.Fatal(err)
	}
	if err := create(west); Classify(err) != Throttled {
		t.Fatalf("a second write within the second: %v", err)
	}
	if err := create(east); err != nil {
		t.Errorf("another region: %v", err)
	}
	out, err := west.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: ptr.To("q")})
	if err != nil {
		t.Fatalf("a read: %v", err)
	}
	if _, err := west.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: out.QueueUrl}); err != nil {
		t.Errorf("tags: %v", err)
	}
	for class, do := range map[string]func() error{
		"SetQueueAttributes, which writes as CreateQueue does": func() error {
			_, err := west.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: out.QueueUrl, Attributes: map[string]string{}})
			return err
		},
		"GetQueueAttributes, which reads as GetQueueUrl does": func() error {
			_, err := west.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: out.QueueUrl})
			return err
		},
		"TagQueue, which is limited as ListQueueTags is": func() error {
			_, err := west.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: out.QueueUrl, Tags: map[string]string{"a": "b"}})
			return err
		},
	} {
		if err := do(); Classify(err) != Throttled {
			t.Errorf("%s: %v", class, err)
		}
	}
	if n := server.Requests(); n != 4 {
		t.Errorf("%d requests were sent, want 4: none that was told to wait", n)
	}
}
