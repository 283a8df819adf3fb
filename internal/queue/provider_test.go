package queue

import (
	"maps"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// Two requests in a reply queue's whole life.
func TestAReplyQueueCostsTwoRequests(t *testing.T) {
	server := sqstest.New()
	p := provider(server)
	name := p.ReplyQueueName("4a7f0c0e-8d5b-4a58-9c57-0d5b0c3f7a11")
	url, err := p.CreateReplyQueue(t.Context(), name, map[string]string{MessageRetentionPeriod: "300"}, map[string]string{v1alpha1.TagKind: v1alpha1.TagKindReply})
	if err != nil {
		t.Fatal(err)
	}
	if q, there := server.Queue(name); !there || q.URL != url || q.Tags[v1alpha1.TagKind] != v1alpha1.TagKindReply {
		t.Errorf("the queue is %+v", q)
	}
	if p.AccountID() != "000000000000" {
		t.Errorf("account %q", p.AccountID())
	}
	if err := p.DeleteQueueByName(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	if server.Requests() != 2 || len(server.Queues()) != 0 {
		t.Errorf("%d requests, %d queues left", server.Requests(), len(server.Queues()))
	}
}

// A crash between CreateQueue and the note of it: the same record asks again, perhaps after the tags' source changed.
func TestCreateReplyQueueAgain(t *testing.T) {
	server := sqstest.New()
	p := provider(server)
	first, err := p.CreateReplyQueue(t.Context(), "q", map[string]string{MessageRetentionPeriod: "300"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.DefaultTags = map[string]string{"team": "new"}
	again, err := p.CreateReplyQueue(t.Context(), "q", map[string]string{MessageRetentionPeriod: "600"}, nil)
	if err != nil || again != first {
		t.Errorf("got %s, %v; want %s", again, err, first)
	}
}

func TestDeleteQueueByNameAfterARestart(t *testing.T) {
	server := sqstest.New()
	if _, err := provider(server).CreateReplyQueue(t.Context(), "q", nil, nil); err != nil {
		t.Fatal(err)
	}
	restarted := provider(server)
	if err := restarted.DeleteQueueByName(t.Context(), "q"); err != nil {
		t.Fatal(err)
	}
	if len(server.Queues()) != 0 {
		t.Error("the queue is still there")
	}
	if err := restarted.DeleteQueueByName(t.Context(), "q"); err != nil {
		t.Errorf("a queue that is gone: %v", err)
	}
	if err := provider(server).DeleteQueueByName(t.Context(), "never-was"); err != nil {
		t.Errorf("a queue that never was, and no URL known: %v", err)
	}
}

func TestReplyQueueAttributes(t *testing.T) {
	for _, tc := range []struct {
		name string
		spec v1alpha1.ReplyHostSpec
		want map[string]string
	}{
		{"nothing said", v1alpha1.ReplyHostSpec{}, map[string]string{MessageRetentionPeriod: "300"}},
		{
			"everything said",
			v1alpha1.ReplyHostSpec{
				Queue: &v1alpha1.ReplyQueueAttributes{
					VisibilityTimeoutSeconds: ptr.To[int32](0), MessageRetentionSeconds: ptr.To[int32](90),
					MaximumMessageBytes: ptr.To[int32](2048), ReceiveWaitSeconds: ptr.To[int32](20),
				},
				Encryption: &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a", DataKeyReuseSeconds: ptr.To[int32](60)},
			},
			map[string]string{
				MessageRetentionPeriod: "90", VisibilityTimeout: "0", MaximumMessageSize: "2048", ReceiveMessageWaitTime: "20",
				KMSMasterKeyID: "alias/a", KMSDataKeyReusePeriod: "60",
			},
		},
		{"Stable keeps replies as long as the queue waits for its reader", v1alpha1.ReplyHostSpec{Identity: v1alpha1.IdentityStable}, map[string]string{MessageRetentionPeriod: "600"}},
		{
			"Stable, its own retention", v1alpha1.ReplyHostSpec{Identity: v1alpha1.IdentityStable, IdleRetentionSeconds: ptr.To[int32](7200)},
			map[string]string{MessageRetentionPeriod: "7200"},
		},
		{
			"Stable, shorter than SQS allows", v1alpha1.ReplyHostSpec{Identity: v1alpha1.IdentityStable, IdleRetentionSeconds: ptr.To[int32](5)},
			map[string]string{MessageRetentionPeriod: "60"},
		},
		{"not encrypted", v1alpha1.ReplyHostSpec{Encryption: &v1alpha1.Encryption{Type: v1alpha1.EncryptionNone}}, map[string]string{MessageRetentionPeriod: "300", SQSManagedSSE: "false"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := ReplyQueueAttributes(&v1alpha1.ReplyHost{Spec: tc.spec}); !maps.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestConsents(t *testing.T) {
	p := &Provider{Cluster: "prod", ClusterUID: "uid"}
	for tag, want := range map[string]bool{"prod/shop": true, "uid/shop": true, "prod/other": false, "dev/shop": false, "": false, "shop": false} {
		if got := p.Consents(map[string]string{v1alpha1.TagAdoptableBy: tag}, "shop"); got != want {
			t.Errorf("%q: %t, want %t", tag, got, want)
		}
	}
	if (&Provider{}).Consents(nil, "") {
		t.Error("no tag is no consent")
	}
}

func TestLends(t *testing.T) {
	p := &Provider{Cluster: "prod", ClusterUID: "uid"}
	for tag, want := range map[string]bool{
		"prod/shop": true, "uid/shop": true, "dev/shop prod/shop": true, " prod/shop  dev/shop ": true,
		"prod/other": false, "dev/shop": false, "": false, " ": false, "shop": false, "prod/shop,dev/shop": false, "prod/shopping": false,
	} {
		if got := p.Lends(map[string]string{v1alpha1.TagSharedWith: tag}, "shop"); got != want {
			t.Errorf("%q: %t, want %t", tag, got, want)
		}
		if p.Consents(map[string]string{v1alpha1.TagSharedWith: tag}, "shop") || p.OfferedTo(map[string]string{v1alpha1.TagSharedWith: tag}) != "" {
			t.Errorf("%q: what is lent is not given", tag)
		}
	}
	if !p.Lends(map[string]string{v1alpha1.TagAdoptableBy: "prod/shop"}, "shop") {
		t.Error("who may adopt a queue may use it")
	}
	if (&Provider{}).Lends(nil, "") {
		t.Error("no tag is no consent")
	}
}

func TestOfferedTo(t *testing.T) {
	p := &Provider{Cluster: "prod", ClusterUID: "uid"}
	for tag, want := range map[string]string{
		"dev/shop": "dev/shop", "uid2/shop": "uid2/shop", "Dev-2/s": "Dev-2/s",
		"dev/shop/": "", "dev/a/b": "", "https://wiki.example.com/queues": "", "tbd/ask the platform team": "", "dev /shop": "", "dev/Shop": "", "dev/-": "",
		"prod/shop": "", "uid/other": "", "": "", "dev": "", "/shop": "", "dev/": "",
	} {
		if got := p.OfferedTo(map[string]string{v1alpha1.TagAdoptableBy: tag}); got != want {
			t.Errorf("%q: %q, want %q", tag, got, want)
		}
	}
}

func TestDeadLetterQueueIsLikeItsSource(t *testing.T) {
	p := &Provider{Prefix: "rq", Cluster: "c", ClusterUID: "uid"}
	channel := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "login"}}
	channel.Spec.FIFO = &v1alpha1.FIFO{}
	channel.Spec.Encryption = &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a"}
	channel.Spec.DeadLetter = &v1alpha1.DeadLetter{MaxReceiveCount: 3, Queue: &v1alpha1.DeadLetterQueue{}}
	d := p.DeadLetterQueue(channel, "arn:aws:sqs:r:1:source")
	if d.Name != "rq_c_shop_login_dlq.fifo" || d.Fixed[FIFOQueue] != "true" || d.Attributes[KMSMasterKeyID] != "alias/a" ||
		d.Attributes[MessageRetentionPeriod] != "1209600" || d.Owner.Kind != v1alpha1.TagKindDeadLetter ||
		d.Attributes[RedriveAllowPolicy] != `{"redrivePermission":"byQueue","sourceQueueArns":["arn:aws:sqs:r:1:source"]}` {
		t.Errorf("got %+v", d)
	}
}

// The dead-letter queue's encryption is held to the request queue's, also where the spec names none: it is SQS's own then.
func TestDeadLetterQueueIsEncryptedAsItsSource(t *testing.T) {
	p := &Provider{Prefix: "rq", Cluster: "c", ClusterUID: "uid"}
	for _, tc := range []struct {
		name       string
		encryption *v1alpha1.Encryption
		want       map[string]string
	}{
		{"unset", nil, map[string]string{SQSManagedSSE: "true"}},
		{"SQS's keys", &v1alpha1.Encryption{Type: v1alpha1.EncryptionSQSManaged}, map[string]string{SQSManagedSSE: "true"}},
		{"none", &v1alpha1.Encryption{Type: v1alpha1.EncryptionNone}, map[string]string{SQSManagedSSE: "false"}},
		{"KMS", &v1alpha1.Encryption{Type: v1alpha1.EncryptionKMS, KMSKeyID: "alias/a"}, map[string]string{KMSMasterKeyID: "alias/a"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			channel := &v1alpha1.RequestChannel{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "login"}}
			channel.Spec.Encryption = tc.encryption
			got := maps.Clone(p.DeadLetterQueue(channel, "arn:aws:sqs:r:1:source").Attributes)
			maps.DeleteFunc(got, func(name, _ string) bool { return !encryption[name] })
			if !maps.Equal(got, tc.want) {
				t.Errorf("encrypted by %v, want %v", got, tc.want)
			}
		})
	}
}

func TestTakesDeadLetters(t *testing.T) {
	for _, tc := range []struct {
		permission v1alpha1.DeadLetterPermission
		sources    []string
		want       string
	}{
		{v1alpha1.DeadLetterPermissionAll, nil, `{"redrivePermission":"allowAll"}`},
		{v1alpha1.DeadLetterPermissionNone, nil, `{"redrivePermission":"denyAll"}`},
		{v1alpha1.DeadLetterPermissionChannels, []string{"a", "b"}, `{"redrivePermission":"byQueue","sourceQueueArns":["a","b"]}`},
		// SQS refuses byQueue without a queue.
		{v1alpha1.DeadLetterPermissionChannels, []string{}, `{"redrivePermission":"denyAll"}`},
		{v1alpha1.DeadLetterPermissionChannels, nil, `{"redrivePermission":"denyAll"}`},
	} {
		if got := TakesDeadLetters(tc.permission, tc.sources); got != tc.want {
			t.Errorf("%s from %v: got %s, want %s", tc.permission, tc.sources, got, tc.want)
		}
	}
}

// One place has many names: AWS's endpoints all lead to one service, and a role's account may be that of the operator's own credentials.
func TestSamePlace(t *testing.T) {
	at := func(region, endpoint, role, seen string) *Provider {
		p := &Provider{Region: region, Endpoint: endpoint, RoleAccount: role}
		if seen != "" {
			p.learn("https://sqs/"+seen+"/q", "q")
		}
		return p
	}
	for _, c := range []struct {
		name string
		a, b *Provider
		same bool
	}{
		{"AWS's endpoint by its name", at("eu-west-1", "", "", ""), at("eu-west-1", "https://sqs.eu-west-1.amazonaws.com", "", ""), true},
		{"a VPC endpoint", at("eu-west-1", "", "", "1"), at("eu-west-1", "https://vpce-1-2.sqs.eu-west-1.vpce.amazonaws.com", "", "1"), true},
		{"another server", at("eu-west-1", "", "", "1"), at("eu-west-1", "http://localhost:4566", "", "1"), false},
		{"another region", at("eu-west-1", "", "", "1"), at("eu-west-2", "", "", "1"), false},
		{"a role of the operator's account, that was seen", at("eu-west-1", "", "", "1"), at("eu-west-1", "", "1", ""), true},
		{"a role, before the operator's account was seen", at("eu-west-1", "", "", ""), at("eu-west-1", "", "1", ""), false},
		{"a role of another account", at("eu-west-1", "", "", "1"), at("eu-west-1", "", "2", ""), false},
		{"two roles of one account", at("eu-west-1", "", "1", ""), at("eu-west-1", "", "1", "1"), true},
		{"accounts that were seen to differ", at("eu-west-1", "", "", "1"), at("eu-west-1", "", "", "2"), false},
	} {
		if c.a.SamePlace(c.b) != c.same || c.b.SamePlace(c.a) != c.same {
			t.Errorf("%s: the same place is %t", c.name, !c.same)
		}
	}
}
