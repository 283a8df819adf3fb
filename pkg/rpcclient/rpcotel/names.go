package rpcotel

// Every name that this package emits. Those with a dot-prefix of the field's are OpenTelemetry's semantic
// conventions: RPC (release candidate) and messaging with Amazon SQS (development), release 1.44.
const (
	scopeName = "github.com/replyqueue/replyqueue/pkg/rpcclient/rpcotel"

	attrRPCSystem = "rpc.system.name"
	attrRPCMethod = "rpc.method"
	// attrRPCMethodOriginal is the name that a caller gave where attrRPCMethod is _OTHER; on spans alone.
	attrRPCMethodOriginal = "rpc.method_original"
	// attrRPCStatus is gRPC's name of the code. Releases after 1.44 of the conventions call it
	// rpc.status_code; it changes here when that release is out.
	attrRPCStatus = "rpc.response.status_code"
	attrErrorType = "error.type"

	attrMessagingSystem        = "messaging.system"
	attrMessagingOperation     = "messaging.operation.name"
	attrMessagingOperationType = "messaging.operation.type"
	attrMessagingDestination   = "messaging.destination.name"
	attrMessagingTemplate      = "messaging.destination.template"
	attrMessagingTemporary     = "messaging.destination.temporary"
	attrMessagingConversation  = "messaging.message.conversation_id"
	attrQueueURL               = "aws.sqs.queue.url"
	attrServerAddress          = "server.address"
	attrServerPort             = "server.port"

	// Ours: there is no convention for them.
	attrChannel      = "replyqueue.channel"
	attrKind         = "replyqueue.call.kind"
	attrOutcome      = "replyqueue.call.outcome"
	attrAttempts     = "replyqueue.call.attempts"
	attrPause        = "replyqueue.call.pause"
	attrAttempt      = "replyqueue.call.attempt"
	attrReceiveCount = "replyqueue.request.receive_count"
	attrDwell        = "replyqueue.request.dwell"
	attrPeer         = "replyqueue.peer"
	attrSituation    = "replyqueue.request.situation"
	attrLate         = "replyqueue.reply.late"
	attrDropped      = "replyqueue.reply.dropped"

	metricClientDuration    = "rpc.client.call.duration"
	metricServerDuration    = "rpc.server.call.duration"
	metricOperationDuration = "messaging.client.operation.duration"
	metricSent              = "messaging.client.sent.messages"
	metricConsumed          = "messaging.client.consumed.messages"
	metricPending           = "replyqueue.client.calls.pending"
	metricRetries           = "replyqueue.client.calls.retries"
	metricStray             = "replyqueue.client.replies.stray"
	metricSettled           = "replyqueue.server.requests.settled"
	metricForgotten         = "replyqueue.server.requests.forgotten"
	metricDwell             = "replyqueue.server.requests.dwell"
	metricBatch             = "replyqueue.sqs.batch.size"

	systemReplyqueue = "replyqueue"
	systemSQS        = "aws_sqs"
	operationSend    = "send"
	operationProcess = "process"
	// replyQueueTemplate names all reply queues at once: each is one process's, and a metric or span with
	// its name would have as many values as there were processes.
	replyQueueTemplate = "reply-queue"
)

// durationBuckets in seconds and batchBuckets in messages. The first are the conventions'; a batch has 1
// to 10.
var (
	durationBuckets = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	batchBuckets    = []float64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
)
