package rpcclient_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

type servedFunc func(rpcclient.Served)

func (f servedFunc) OnServed(s rpcclient.Served) { f(s) }

// A request is judged by its sender's clock and SQS's, whatever the responder's own clock says.
func TestRequestOfAnotherClock(t *testing.T) {
	stamps := regexp.MustCompile(`"(ApproximateFirstReceiveTimestamp|SentTimestamp)":"(\d+)"`)
	for name, tc := range map[string]struct {
		sender, sqs time.Duration // behind the responder's clock
		want        rpcclient.Situation
		warns       int
	}{
		"the sender's clock is 4 minutes behind":                             {sender: 4 * time.Minute, want: rpcclient.Succeeded},
		"the sender's clock is 6 minutes behind":                             {sender: 6 * time.Minute, want: rpcclient.Expired, warns: 1},
		"the responder's is 20 minutes ahead":                                {sender: 20 * time.Minute, sqs: 20 * time.Minute, want: rpcclient.Succeeded},
		"the responder's is 20 minutes ahead, the sender's 6 minutes behind": {sender: 26 * time.Minute, sqs: 20 * time.Minute, want: rpcclient.Expired, warns: 1},
		"the responder's is 20 minutes behind":                               {sender: -20 * time.Minute, sqs: -20 * time.Minute, want: rpcclient.Succeeded},
		"the responder's is 20 minutes behind, the sender's 6 behind SQS's":  {sender: -14 * time.Minute, sqs: -20 * time.Minute, want: rpcclient.Expired, warns: 1},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				p := newPair(t)
				plain := p.client
				p.client = wrapped(plain, func(inner doer, action string, r *http.Request) (*http.Response, error) {
					resp, err := inner.Do(r)
					if err != nil || action != "ReceiveMessage" {
						return resp, err
					}
					body, err := io.ReadAll(resp.Body)
					body = stamps.ReplaceAllFunc(body, func(m []byte) []byte {
						part := stamps.FindSubmatch(m)
						ms, _ := strconv.ParseInt(string(part[2]), 10, 64)
						return fmt.Appendf(nil, `"%s":"%d"`, part[1], ms-tc.sqs.Milliseconds())
					})
					resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
					return resp, err
				})
				var log bytes.Buffer
				var mu sync.Mutex
				var got []rpcclient.Served
				stop := p.serve(t, addUp, rpcclient.WithHooks(servedFunc(func(s rpcclient.Served) {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, s)
				})), rpcclient.WithConcurrency(1),
					rpcclient.WithLogger(slog.New(slog.NewTextHandler(&log, nil))))
				for range 3 {
					id := rpcclient.NewCallID()
					if _, err := plain.SendMessage(t.Context(), &sqs.SendMessageInput{QueueUrl: &p.url, MessageBody: aws.String(`{"Numbers":[1]}`),
						MessageAttributes: attributes("ResponseQueueUrl", p.replyURL+"#"+id, "replyqueue",
							fmt.Sprintf(`{"k":"q","v":1,"id":%q,"m":"calculate_sum","e":"t","b":30000,"t":%d,"a":1}`, id, time.Now().Add(-tc.sender).UnixMilli()))}); err != nil {
						t.Fatal(err)
					}
					time.Sleep(5 * time.Second)
				}
				stop()
				if len(got) != 3 || got[0].Situation != tc.want || got[2].Situation != tc.want {
					t.Fatalf("%d served: %+v; want %s", len(got), got, tc.want)
				}
				if warns := strings.Count(log.String(), "sender's clock"); (warns > 0) != (tc.warns > 0) || strings.Count(log.String(), "\n") != tc.warns {
					t.Errorf("the log, of which %d lines are wanted:\n%s", tc.warns, log.String())
				}
				if tc.warns > 0 && !strings.Contains(fmt.Sprint(got[0].Err), "clock") {
					t.Errorf("the hook is told %v", got[0].Err)
				}
			})
		})
	}
}

// A requester whose clock is behind SQS's by an answer's Date stamps SQS's time from then on, and its own again when it
// has been set. One whose clock is ahead stamps its own.
func TestStampOfAClockThatIsBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := newPair(t)
		var ahead atomic.Int64 // SQS's clock
		var mu sync.Mutex
		var stamps []time.Duration
		p.client = wrapped(p.client, func(inner doer, action string, r *http.Request) (*http.Response, error) {
			if action == "SendMessageBatch" {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					return nil, err
				}
				r.Body = io.NopCloser(bytes.NewReader(body))
				var in struct {
					Entries []struct {
						MessageAttributes map[string]struct{ StringValue string }
					}
				}
				var envelope struct{ T int64 }
				if err := json.Unmarshal(body, &in); err != nil {
					t.Error(err)
				}
				if err := json.Unmarshal([]byte(in.Entries[0].MessageAttributes["replyqueue"].StringValue), &envelope); err != nil {
					t.Error(err)
				}
				mu.Lock()
				stamps = append(stamps, time.Until(time.UnixMilli(envelope.T)))
				mu.Unlock()
			}
			resp, err := inner.Do(r)
			if err == nil {
				resp.Header.Set("Date", time.Now().Add(time.Duration(ahead.Load())).UTC().Format(http.TimeFormat))
			}
			return resp, err
		})
		_, channel := p.newRequester(t, rpcclient.StaticReplyQueue(p.replyURL))
		for _, d := range []time.Duration{0, 10 * time.Minute, 10 * time.Minute, 0, -10 * time.Minute, 0} {
			ahead.Store(int64(d))
			_, _ = sum.Call(context.Background(), channel, sumRequest{}, rpcclient.CallTimeout(time.Second))
		}
		want := []time.Duration{0, 0, 10 * time.Minute, 10 * time.Minute, 0, 0}
		mu.Lock()
		defer mu.Unlock()
		if len(stamps) != len(want) {
			t.Fatalf("stamps %v", stamps)
		}
		for i := range want {
			if off := want[i] - stamps[i]; off < -time.Millisecond || off > 1001*time.Millisecond {
				t.Errorf("call %d is stamped %s after it is made, want %s", i, stamps[i], want[i])
			}
		}
	})
}
