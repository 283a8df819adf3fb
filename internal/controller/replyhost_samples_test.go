package controller

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// Every ReplyHost of the samples comes to rest, with a pod that uses it: a second reconcile of the host, of its pod and of its
// record makes no request to SQS and no write to the API server.
func TestSampleReplyHostsComeToRest(t *testing.T) {
	t.Parallel()
	s := newStage(t)
	var hosts []*v1alpha1.ReplyHost
	for _, file := range []string{"features/reply-hosts.yaml", "v1alpha1_replyhost.yaml"} {
		hosts = append(hosts, s.sampleHosts("../../config/samples/"+file)...)
	}
	if len(hosts) < 3 {
		t.Fatalf("%d samples of ReplyHosts", len(hosts))
	}
	for _, h := range hosts {
		h.Namespace = s.namespace
		s.must(s.Create(s.ctx, h))
		s.pod("of-"+h.Name, map[string]string{v1alpha1.AnnotationReplyHost: h.Name}, ofSet)
	}
	s.settle()
	if n := len(s.sqs.Queues()); n != len(hosts) {
		t.Fatalf("%d queues of %d hosts", n, len(hosts))
	}
	s.sqs.ResetRequests()
	s.writes = 0
	s.round()
	if n := s.sqs.Requests(); n != 0 || s.writes != 0 {
		t.Errorf("%d requests to SQS (%v) and %d writes, and nothing had changed", n, s.sqs.RequestsByAction(), s.writes)
	}
	for _, h := range hosts {
		s.must(s.Get(s.ctx, client.ObjectKeyFromObject(h), h))
		if n := h.Status.Queues; n == nil || n.Active == nil || *n.Active != 1 {
			t.Errorf("%s counts %+v", h.Name, n)
		}
	}
}

func (s *stage) sampleHosts(file string) (all []*v1alpha1.ReplyHost) {
	s.Helper()
	text, err := os.ReadFile(file)
	s.must(err)
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		h := &v1alpha1.ReplyHost{}
		err := decoder.Decode(h)
		if errors.Is(err, io.EOF) {
			return all
		}
		s.must(err)
		all = append(all, h)
	}
}
