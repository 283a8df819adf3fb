// Command caller only calls, in an injected pod.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/rpcenv"
)

var sum = rpcclient.NewMethod[[]int, int]("calculate_sum")

func main() {
	ctx := context.Background()
	if err := call(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func call(ctx context.Context) error {
	requester, err := rpcenv.NewRequester(ctx)
	if err != nil {
		return err
	}
	login, err := requester.Channel("login")
	if err != nil {
		return err
	}
	total, err := sum.Call(ctx, login, []int{1, 2, 3})
	if err != nil {
		return err
	}
	fmt.Println(total)
	return requester.Shutdown(ctx)
}
