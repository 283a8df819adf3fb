package rpcclient_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// A host of SQS whose clock is ahead does not make a responder drop what others give out.
func TestOneHostsClockAhead(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		stamp := regexp.MustCompile(`"ApproximateFirstReceiveTimestamp":"(\d+)"`)
		ahead, plain := 0, p.client
		p.client = wrapped(plain, func(inner doer, action string, r *http.Request) (*http.Response, error) {
			resp, err := inner.Do(r)
			if err != nil || action != "ReceiveMessage" {
				return resp, err
			}
			body, err := io.ReadAll(resp.Body)
			if err == nil && ahead == 0 {
				body = stamp.ReplaceAllFunc(body, func(m []byte) []byte {
					ahead++
					ms, _ := strconv.ParseInt(string(stamp.FindSubmatch(m)[1]), 10, 64)
					return fmt.Appendf(nil, `"ApproximateFirstReceiveTimestamp":"%d"`, ms+10_000)
				})
			}
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			return resp, err
		})
		p.serve(t, addUp)
		p.call(t) // has 30 s: it survives
		for range 10 {
			time.Sleep(time.Second)
			if _, err := sum.Call(context.Background(), p.channel, sumRequest{}, rpcclient.CallTimeout(5*time.Second)); err != nil {
				t.Error(err)
			}
		}
		if s := p.responder.Stats(); ahead != 1 || s.Expired != 0 {
			t.Errorf("%d answers were ahead, %d requests expired", ahead, s.Expired)
		}
	})
}
