// Package sqstest is Amazon SQS in memory, for tests and demonstrations: all 23 actions of the API, over AWS JSON 1.0, as
// the AWS SDKs speak it. It is to SQS what net/http/httptest is to HTTP.
//
//	func TestMine(t *testing.T) {
//		server := sqstest.NewServer(t)               // listens on 127.0.0.1, closed with the test
//		client := server.Client()                    // an *sqs.Client of the AWS SDK
//		...
//		if n := server.Requests(sqstest.Action("SendMessage")); n != 1 { ... }
//	}
//
// # Three ways in
//
// A Server is an http.RoundTripper: Client returns an SDK client that calls it directly, without a socket and without a
// goroutine. That is the fastest, and the way into a testing/synctest bubble, where a 20 s poll takes no time; create the
// Server inside the bubble. A Server is an http.Handler. And NewServer, Listen or Serve make it listen, for other
// processes and other languages; the command cmd/sqstest does only that. All ways lead to the same queues.
//
// Queue URLs begin with whatever host the request came by. Any access key will do, and signatures are read but not
// checked: the region is that of the signature, the account that of the access key (WithAccessKey, else WithAccount).
//
// # What is like SQS
//
// Everything that a program can see, down to error codes, HTTP statuses, digests and the wording of most messages: visibility
// timeouts, delays, retention; long polls, of which one message wakes one, the longest waiting; receive counts and both
// timestamps; dead-letter queues, their permissions, and message move tasks; FIFO groups, deduplication and receive
// attempts; fair queues, which deliver a quiet tenant's messages before a noisy one's; batches that fail in part; limits
// (1 MiB for a message and for a whole batch, ten attributes, 120,000 in flight); the 60 s for which a deleted queue's name
// is locked and a second purge refused. test/conformance has a check for each, with its source, and runs it against other
// implementations as well.
//
// # What is not
//
// Without faults the server is a better SQS than SQS: messages come in order and once, reads see the latest write, and a
// long poll takes nothing once its client has gone: once the context has ended, by RoundTrip, and once the kernel knows that
// the connection has ended, over the server's own listener without TLS (on Unix but AIX; elsewhere, under another
// http.Server, and behind bytes that were sent after the request, once net/http has noticed). A client that closes its half
// of the connection and waits is taken for one that is gone. What was already on its way to a client that goes stays hidden.
// SetFaults makes it as bad as the real one, and worse: see Plan. Nothing is
// encrypted and no policy evaluated (SetAccess stands in for IAM); queue policies are kept and shown. There is no
// throughput quota, no throttling without a fault, and no query (XML) protocol.
//
// AWSLike is the plan for benchmarks: latency, shards and wake-ups as SQS has them, and no failures. For other processes,
// the same is cmd/sqstest --faults aws-like.
//
// # Size and speed
//
// A message of 1 KB takes about 1.5 KB of heap, so a million of them fit into 2 GB if the garbage collector is told to keep
// to that (GOMEMLIMIT=1800MiB; cmd/sqstest does so by itself). What a request costs depends neither on how many queues there
// are nor on how much is in them. make bench-sqstest shows both, and how far the server is from one that answers from a constant.
//
// Save and Load carry queues and messages from one Server to another, or over a restart.
//
// Each access key, action, queue and error that occur together have a counter of their own, for as long as the server
// lives, or until ResetRequests.
//
// # The SDK over a socket
//
// An SDK client of your own at Server.URL may see a receive fail now and then, with "use of closed network connection" or
// such: smithy-go closes the request's body early, whereupon net/http can tear down the connection under an answer that is
// still being read. Retries hide it, and so does an http.RoundTripper that hides the body's WriterTo (struct{ io.ReadCloser }). Client has no part in this.
//
// # Time
//
// Time comes from a Clock: package time, unless WithClock says otherwise. Nothing runs in the background: what is due is
// noticed when somebody looks at a queue, and only while a poll waits, or a move task runs, does a timer. A
// Server that only Client uses needs no Close.
package sqstest
