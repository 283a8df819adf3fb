// Package conformance is one table of checks of what Amazon SQS does, run through the AWS SDK against any server that
// claims to be one.
//
// Each check names its source: a section of the API reference or of the developer guide, or an answer of AWS that was
// recorded and published. `go test` runs all of them against pkg/sqstest, in a testing/synctest bubble, so that the rules
// about minutes take none. To hear an independent opinion, let it run against other implementations too:
//
//	go test ./test/conformance -v -run Servers -servers=sqstest,moto,local-aws-sqs
//
// or `make conformance`, whose last line is
//
//	CONFORMANCE OK checks=<n> sqstest=<passed> unexpected=0
//
// moto_server must be on the PATH (pip install 'moto[server]'), and npm be able to install local-aws-sqs; when one of them
// cannot be had, the run fails: the table says what to install, and the last line is CONFORMANCE INCOMPLETE with the
// servers that are absent. A run that was asked for less (SERVERS=sqstest,moto make conformance, or
// CONFORMANCE_PATIENCE) succeeds with CONFORMANCE PARTIAL and what is missing, and one with anything unexpected fails with
// CONFORMANCE FAILED. What a server is known to do differently is listed in known/<server>.txt, with the
// reason; a check that fails and is not listed, or is listed and passes, makes the run fail. So does a check that ours alone
// passes, unless citations_test.go has the evidence for it. A run takes about five minutes, since the rules about
// minutes take minutes on servers with a clock of their own; CONFORMANCE_PATIENCE=10s leaves out what waits for longer.
//
// Any endpoint will do (AWS, LocalStack, ElasticMQ, another sqstest): CONFORMANCE_ENDPOINT=http://127.0.0.1:4566 adds it,
// with the credentials and the region of the SDK's own environment where they are set, and CONFORMANCE_KNOWN=<server>
// chooses its list of known differences. On AWS, the queues are called c-<random>, and are deleted afterwards; a run costs
// a few hundred requests. The endpoints of other servers, as they are by default:
//
//	LocalStack  CONFORMANCE_ENDPOINT=http://127.0.0.1:4566
//	ElasticMQ   CONFORMANCE_ENDPOINT=http://127.0.0.1:9324
//	AWS         CONFORMANCE_ENDPOINT=https://sqs.eu-central-1.amazonaws.com AWS_REGION=eu-central-1 AWS_PROFILE=...
package conformance
