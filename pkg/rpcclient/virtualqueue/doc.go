// Package virtualqueue gives code that makes a temporary SQS queue for every request the same five
// operations, with the SDK's signatures, over one host queue: a virtual queue costs no SQS request to
// create, to delete or to keep. It is for programs written so already, by hand or after the Amazon SQS
// Temporary Queue Client for Java, whose messages and URLs it understands. New programs are better served
// by package rpcclient, which adds deadlines, errors and batches.
//
//	queues := virtualqueue.New(client)
//	defer queues.Close(ctx)
//	created, err := queues.CreateQueue(ctx, &sqs.CreateQueueInput{
//		QueueName:  aws.String("replies-to-42"),
//		Attributes: map[string]string{virtualqueue.HostQueueURL: os.Getenv("REPLYQUEUE_REPLY_QUEUE_URL")},
//	})
//	// *created.QueueUrl is <host queue URL>#replies-to-42: send it along, receive from it, delete it.
//
// Queues whose URL has no # go to the SDK client unchanged.
//
// # What a virtual queue is
//
// A name on a host queue. A message sent to it travels over the host queue with the attribute
// QueueNameAttribute, and is handed to whoever receives from the virtual queue in this process. Nothing
// polls the host queue while nobody receives; one long poll at a time serves all that do.
//
// As with SQS, a received message is hidden, not gone: it is deleted by DeleteMessage, and otherwise comes
// back. (The Java client deletes it before it hands it over.) A virtual queue of which nobody receives for
// its idle retention is forgotten, and answers QueueDoesNotExist from then on. Until then, as long as the host queue is
// polled for others, its messages are received again whenever they come back, which SQS counts: a host queue is better
// without a dead-letter queue. Ten are kept here at a time.
//
// A host queue should have one process as its reader. In a pod that Replyqueue has injected it is the
// pod's reply queue; do not give the same queue to an rpcclient.Requester as well. A message for a name that
// nobody here knows stays hidden for 30 s when it is received for the first and the second time, so that another reader
// may have it then, and is deleted the third time, see WithOrphans.
//
// # Answering
//
// SendMessage sends wherever its QueueUrl says. A responder must not take that URL from a request as it
// is: rpcclient.ReturnAddressPolicy.Check says whether a return address is one, and where the reply may go.
package virtualqueue
