// Package rpcenv builds requesters and responders from what the Replyqueue operator injected into the
// pod: addresses, AWS region and endpoint, return addresses, and the heartbeat by which the operator
// knows that the process lives. Nothing needs to be configured.
//
//	requester, err := rpcenv.NewRequester(ctx)
//	login, err := requester.Channel("login")
//	reply, err := Sum.Call(ctx, login, SumRequest{Numbers: []int{1, 2, 3}})
//
// AWS credentials come from the SDK's own chain. REPLYQUEUE_REGION and REPLYQUEUE_ENDPOINT, or what the
// Lease of a pod without them says, apply to this package's SQS client only, so that the application's other AWS clients stay where they are.
//
// The operator says which reply queues a responder may answer: its own. A responder that Java requesters call too is
// told so, and which method their requests are for; its role must be allowed to send to their queues:
//
//	responder, err := rpcenv.NewResponder(ctx,
//		rpcclient.WithReturnPrefixes("__RequesterClientQueues__"),
//		rpcclient.WithDefaultMethod("calculate_sum", 30*time.Second))
//
// A requester heartbeats from its start until its Shutdown. A heartbeat that fails never stops calls.
package rpcenv
