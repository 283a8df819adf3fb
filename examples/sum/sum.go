// Package sum is the method that the example requester and responder share.
package sum

import "github.com/replyqueue/replyqueue/pkg/rpcclient"

// Request asks for the sum of Numbers. Caller and Sequence come back in the reply, so that a requester
// can tell that the answer is to its own question.
type Request struct {
	Caller   string `json:"caller"`
	Sequence int64  `json:"sequence"`
	Numbers  []int  `json:"numbers"`
}

// Reply is the sum, the request's identity, and who added up.
type Reply struct {
	Sum       int    `json:"sum"`
	Caller    string `json:"caller"`
	Sequence  int64  `json:"sequence"`
	Responder string `json:"responder"`
}

// Calculate is the method, as both sides know it.
var Calculate = rpcclient.NewMethod[Request, Reply]("calculate_sum")
