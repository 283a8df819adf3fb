package queue

import (
	"regexp"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

func TestNames(t *testing.T) {
	p := &Provider{Prefix: "rq", Cluster: "0a1b2c3d"}
	long := strings.Repeat("n", 63)
	for _, tc := range []struct{ name, got, want string }{
		{"reply", p.ReplyQueueName("4a7f0c0e-8d5b-4a58-9c57-0d5b0c3f7a11"), "rq_0a1b2c3d_r_4a7f0c0e-8d5b-4a58-9c57-0d5b0c3f7a11"},
		{"request", p.RequestQueueName("shop", "login", false), "rq_0a1b2c3d_shop_login"},
		{"request FIFO", p.RequestQueueName("shop", "login", true), "rq_0a1b2c3d_shop_login.fifo"},
		{"dead letter", p.DeadLetterQueueName("shop", "login", false), "rq_0a1b2c3d_shop_login_dlq"},
		{"dead letter FIFO", p.DeadLetterQueueName("shop", "login", true), "rq_0a1b2c3d_shop_login_dlq.fifo"},
		{"namespace r is no reply queue", p.RequestQueueName("r", "login", false), "rq_0a1b2c3d_r-_login"},
		{"cut", p.RequestQueueName(long, long, true), "rq_0a1b2c3d_" + strings.Repeat("n", 45) + "__9d4a2cf2bd7e4dd4.fifo"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.name == "cut" {
				// The hash is checked by its properties below; its length and place here.
				tc.want, tc.got = tc.want[:57], tc.got[:57]
			}
			if tc.got != tc.want {
				t.Errorf("got %s, want %s", tc.got, tc.want)
			}
		})
	}
}

// Every name is legal, no two different objects share one, and only reply queues have the reply queues' prefix.
func TestNamesNeverCollide(t *testing.T) {
	legal := regexp.MustCompile(`^[A-Za-z0-9_-]{1,80}$|^[A-Za-z0-9_-]{1,75}\.fifo$`)
	label := rapid.OneOf(rapid.SampledFrom([]string{"r", "dlq", "r-dlq", "login"}), rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`))
	rapid.Check(t, func(t *rapid.T) {
		p := &Provider{Prefix: rapid.StringMatching(`[A-Za-z0-9-]{1,16}`).Draw(t, "prefix"), Cluster: rapid.StringMatching(`[a-z0-9-]{1,20}`).Draw(t, "cluster")}
		type object struct{ namespace, name string }
		a := object{label.Draw(t, "a.namespace"), label.Draw(t, "a.name")}
		b := object{label.Draw(t, "b.namespace"), label.Draw(t, "b.name")}
		fifo := rapid.Bool().Draw(t, "fifo")
		names := []string{
			p.RequestQueueName(a.namespace, a.name, fifo), p.DeadLetterQueueName(a.namespace, a.name, fifo),
			p.ReplyQueueName(types.UID(a.name)),
		}
		if a != b {
			names = append(names, p.RequestQueueName(b.namespace, b.name, fifo), p.DeadLetterQueueName(b.namespace, b.name, fifo))
		}
		seen := map[string]bool{}
		for i, name := range names {
			if !legal.MatchString(name) {
				t.Fatalf("SQS refuses %q", name)
			}
			if seen[name] {
				t.Fatalf("two queues share the name %q", name)
			}
			seen[name] = true
			if isReply := strings.HasPrefix(name, p.ReplyQueuePrefix()); isReply != (i == 2) {
				t.Fatalf("%q: reply queue's prefix: %t", name, isReply)
			}
		}
	})
}

func TestAllowsQueueName(t *testing.T) {
	p := &Provider{Prefix: "rq", Cluster: "c", AllowedQueueNames: []string{"team-${namespace}-*", "orders", "*_in_*_v1", "billing-*.fifo"}}
	for _, tc := range []struct {
		namespace, name string
		want            bool
	}{
		{"shop", "team-shop-login", true},
		{"shop", "team-shop-", true},
		{"shop", "team-other-login", false},
		{"shop", "xteam-shop-login", false},
		{"shop", "orders", true},
		{"shop", "orders2", false},
		{"shop", "a_in_b_v1", true},
		{"shop", "a_in_v1", false},
		{"shop", "_in__v1", true},
		{"shop", "billing-x.fifo", true},
		{"shop", "billing-x", false},
		{"shop", "a_in_b_v1_evil", false},
		{"shop", "_in_v1_in_v1x", false},
		{"shop", "billing-x.fifo2", false},
		{"shop", "anything", false},
	} {
		if got := p.AllowsQueueName(tc.namespace, tc.name); got != tc.want {
			t.Errorf("%s from %s: %t, want %t", tc.name, tc.namespace, got, tc.want)
		}
	}
	everything := &Provider{Prefix: "rq", Cluster: "c", AllowedQueueNames: []string{"*"}}
	for _, name := range []string{"rq_c_other_login", "pay_c_other_login", "pay_c_identity", "pay_c_r_0a1b2c3d-0000-0000-0000-000000000000"} {
		if everything.AllowsQueueName("shop", name) {
			t.Errorf("%s, of the operator's own form, was given out", name)
		}
	}
	for _, name := range []string{"rq_d_other", "c_rq_c_x", "a-c_b"} {
		if !everything.AllowsQueueName("shop", name) {
			t.Errorf("%s was refused", name)
		}
	}
	if (&Provider{}).AllowsQueueName("shop", "orders") {
		t.Error("without patterns nothing is allowed")
	}
}

// Whoever adopts or observes may be given a queue that the operator named, where a pattern allows it, but neither a reply queue
// nor the marker by which a cluster knows its place.
func TestAllowsExistingName(t *testing.T) {
	p := &Provider{Prefix: "rq", Cluster: "c", AllowedQueueNames: []string{"rq_*", "pay_*", "*_identity"}}
	for name, want := range map[string]bool{
		"rq_c_other_login": true, "rq_c_other_login_dlq": true, "pay_c_other_login": true, "rq_c_other_identity": true, "rq_d_identity": true,
		"rq_c_identity": false, "pay_c_identity": false, "team_c_identity": false,
		"rq_c_r_0a1b2c3d-0000-0000-0000-000000000000": false, "pay_c_r_x": false, "other": false,
	} {
		if got := p.AllowsExistingName("shop", name); got != want {
			t.Errorf("%s: %t, want %t", name, got, want)
		}
		if computed := p.IsComputedName(name); computed && p.AllowsQueueName("shop", name) {
			t.Errorf("%s was given out to be created", name)
		}
	}
}

func TestARNs(t *testing.T) {
	const arn = "arn:aws:sqs:eu-west-1:123456789012:login"
	if got, want := SiblingARN(arn, "login_dlq"), "arn:aws:sqs:eu-west-1:123456789012:login_dlq"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := SiblingARN("nonsense", "x"); got != "" {
		t.Errorf("sibling of nonsense: %s", got)
	}
	region, account, name, ok := ParseARN(arn)
	if region != "eu-west-1" || account != "123456789012" || name != "login" || !ok {
		t.Errorf("got %s %s %s %t", region, account, name, ok)
	}
	if _, _, _, ok := ParseARN("arn:aws:sns:eu-west-1:123456789012:login"); ok {
		t.Error("a topic passed for a queue")
	}
}
