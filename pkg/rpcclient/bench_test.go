package rpcclient_test

import (
	"context"
	"fmt"
	"sort"
	"sync"
	"testing"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// BenchmarkCall measures whole calls against SQS in process (no sockets): nanoseconds and allocations of
// requester, responder, SDK and server together, and the SQS requests a call costs.
//
//	go test -run xxx -bench Call -benchtime 20000x ./pkg/rpcclient
func BenchmarkCall(b *testing.B) {
	for _, callers := range []int{1, 16, 256, 2048} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			p := newPair(b)
			stop := p.serve(b, addUp, rpcclient.WithReceiveWait(time.Second))
			defer stop()
			p.call(b)
			before := p.server.Requests()
			took := make([]time.Duration, b.N)
			var next sync.Mutex
			done := 0
			b.ReportAllocs()
			b.ResetTimer()
			var wg sync.WaitGroup
			for range callers {
				wg.Go(func() {
					for {
						next.Lock()
						i := done
						done++
						next.Unlock()
						if i >= b.N {
							return
						}
						started := time.Now()
						if _, err := sum.Call(context.Background(), p.channel, sumRequest{Numbers: []int{i, 1}}); err != nil {
							b.Error(err)
							return
						}
						took[i] = time.Since(started)
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			sort.Slice(took, func(i, j int) bool { return took[i] < took[j] })
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			b.ReportMetric(float64(p.server.Requests()-before)/float64(b.N), "requests/call")
			b.Logf("per action: %v %v", p.requester.Stats().Requests, p.responder.Stats().Requests)
		})
	}
}
