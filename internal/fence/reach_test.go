package fence_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/internal/fence"
	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// rounds compares for that long.
func (c *cluster) rounds(d time.Duration) {
	for range d / fence.DefaultInterval {
		c.round()
	}
}

func (c *cluster) expectReach(when string, want fence.Reach) {
	c.Helper()
	got := c.Reach("default")
	if words := want.Message; words == "" || strings.Contains(got.Message, words) {
		got.Message = words
	}
	if got != want {
		c.Errorf("%s: %+v, want %+v", when, got, want)
	}
}

func (c *cluster) fault(f ...sqstest.Rule) { c.sqs.SetFaults(sqstest.Plan{Rules: f}) }

// What AWS denies is told after a minute in which it let no comparison pass, with its words and where people look; and ends
// with the first that is answered.
func TestADeniedProviderIsToldAfterAMinute(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	changes := 0
	c.Changed = func(string) { changes++ }
	c.expectReach("before anything was compared", fence.Reach{})
	c.Round(c.ctx)
	c.expectReach("after the first comparison", fence.Reach{Known: true})
	if changes != 1 {
		t.Errorf("%d notices that SQS answers, want 1", changes)
	}
	c.fault(sqstest.Rule{Fault: sqstest.AccessDenied})
	c.round()
	c.rounds(50 * time.Second)
	c.expectReach("denied for less than a minute", fence.Reach{Known: true})
	changes = 0
	c.round()
	denied := fence.Reach{Known: true, Reason: v1alpha1.ReasonAccessDenied, Message: "AccessDenied", Stuck: true}
	c.expectReach("denied for a minute", denied)
	c.rounds(10 * time.Minute)
	c.expectReach("denied for long", denied)
	if n := c.heard(v1alpha1.ConditionUnreachable); n != 1 || changes != 1 {
		t.Errorf("%d events and %d notices, want one of each", n, changes)
	}
	if said := c.identity().Data["status"]; !strings.Contains(said, "Unreachable, provider default: AWS has denied") {
		t.Errorf("the ConfigMap says %q", said)
	}
	c.fault()
	c.round()
	c.expectReach("answered again", fence.Reach{Known: true})
	if said := c.identity().Data["status"]; said != "" || changes != 2 {
		t.Errorf("it is over: the ConfigMap says %q after %d notices", said, changes)
	}
}

// An SQS that is away may come back by itself, for ten minutes; and one that slows the operator down is not away.
func TestAnOutageIsStuckAfterTenMinutes(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	c.Round(c.ctx)
	c.fault(sqstest.Rule{Fault: sqstest.Throttle})
	c.rounds(20 * time.Minute)
	c.expectReach("throttled for long", fence.Reach{Known: true})
	c.fault(sqstest.Rule{Fault: sqstest.ServerError})
	c.round()
	c.rounds(9 * time.Minute)
	away := fence.Reach{Known: true, Reason: v1alpha1.ReasonSQSUnavailable, Message: "SQS has not answered"}
	c.expectReach("away for nine minutes", away)
	c.fault(sqstest.Rule{Fault: sqstest.Throttle})
	c.round()
	c.expectReach("throttled once", away)
	c.fault(sqstest.Rule{Fault: sqstest.ServerError})
	c.rounds(time.Minute)
	away.Stuck = true
	c.expectReach("away for ten minutes", away)
	c.fault()
	c.round()
	c.fault(sqstest.Rule{Fault: sqstest.ServerError})
	c.rounds(30 * time.Second)
	c.expectReach("away for half a minute after an answer", fence.Reach{Known: true})
}

// Words that go to and fro are told each minute, and another reason at once.
func TestWordsOfAnOutageAreNotToldEachTime(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	changes := 0
	c.Changed = func(string) { changes++ }
	var failure error
	c.provider.API = failing{c.provider.API, &failure}
	for i := range 31 { // five minutes
		failure = &url.Error{Op: "Post", URL: "x", Err: &net.DNSError{Name: "sqs.example", IsNotFound: i%2 == 0, IsTimeout: i%2 == 1}}
		c.round()
	}
	if changes > 5 {
		t.Errorf("%d notices in four minutes, want one each", changes)
	}
	c.expectReach("away", fence.Reach{Known: true, Reason: v1alpha1.ReasonSQSUnavailable, Message: "look up sqs.example"})
	failure = nil
	c.fault(sqstest.Rule{Fault: sqstest.AccessDenied})
	c.round()
	c.expectReach("denied", fence.Reach{Known: true, Reason: v1alpha1.ReasonAccessDenied, Message: "AccessDenied", Stuck: true})
}

// A provider about which nobody asks any more is not called unreachable, nor one that cannot even be asked.
func TestWhoIsNotAskedAboutIsNotUnreachable(t *testing.T) {
	for name, leave := range map[string]func(*cluster){
		"no user is left":       func(c *cluster) { c.inUse = nil },
		"it does not exist":     func(c *cluster) { c.Providers = none{queue.ErrProviderNotFound} },
		"no client can be made": func(c *cluster) { c.Providers = none{queue.ErrProviderInvalid} },
	} {
		c := newCluster(t, sqstest.NewServer(t), uid, nil)
		c.fault(sqstest.Rule{Fault: sqstest.AccessDenied})
		c.round()
		c.rounds(2 * time.Minute)
		if c.Reach("default").Reason == "" {
			t.Fatal("a provider that is denied for two minutes is not told")
		}
		leave(c)
		c.round()
		c.expectReach(name, fence.Reach{})
		if said := c.identity().Data["status"]; said != "" {
			t.Errorf("%s: the ConfigMap goes on saying %q", name, said)
		}
	}
}

// An API server that fails says nothing of SQS.
func TestAnAPIServerThatFailsIsNoOutageOfSQS(t *testing.T) {
	c := newCluster(t, sqstest.NewServer(t), uid, nil)
	away := false
	c.Client = interceptor.NewClient(fake.NewClientBuilder().WithScheme(scheme.Scheme).WithObjects(c.identity()).Build(), interceptor.Funcs{
		Update: func(ctx context.Context, k client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if away {
				return errors.New("the API server is away")
			}
			return k.Update(ctx, o, opts...)
		},
	})
	c.Round(c.ctx)
	away = true
	c.rounds(20 * time.Minute)
	c.expectReach("no ConfigMap can be written", fence.Reach{Known: true})
}

// none has no provider.
type none struct{ err error }

func (n none) Get(context.Context, string, string) (*queue.Provider, error) { return nil, n.err }
func (n none) ForDeletion(context.Context, string) (*queue.Provider, error) { return nil, n.err }

// failing fails what a comparison reads, while failure says how.
type failing struct {
	queue.API
	failure *error
}

func (f failing) GetQueueUrl(ctx context.Context, in *sqs.GetQueueUrlInput, o ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error) {
	if *f.failure != nil {
		return nil, *f.failure
	}
	return f.API.GetQueueUrl(ctx, in, o...)
}

func (f failing) ListQueueTags(ctx context.Context, in *sqs.ListQueueTagsInput, o ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error) {
	if *f.failure != nil {
		return nil, *f.failure
	}
	return f.API.ListQueueTags(ctx, in, o...)
}
