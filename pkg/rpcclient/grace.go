package rpcclient

import (
	"context"
	"sync"
	"time"
)

// cutOffGrace is what handlers get to return, and SQS to confirm deletes, when a Shutdown's context has ended.
const cutOffGrace = time.Second

// afterGrace has cut called cutOffGrace after ctx's end, unless stop is called before. stop waits until cut is not
// running, and will not.
func afterGrace(ctx context.Context, cut func()) (stop func()) {
	over := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		select {
		case <-ctx.Done():
		case <-over:
			return
		}
		grace := time.NewTimer(cutOffGrace)
		defer grace.Stop()
		select {
		case <-grace.C:
			cut()
		case <-over:
		}
	})
	return func() {
		close(over)
		wg.Wait()
	}
}
