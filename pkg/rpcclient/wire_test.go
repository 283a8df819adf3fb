package rpcclient_test

import (
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// attributes makes String attributes of names and values in turn.
func attributes(pairs ...string) map[string]types.MessageAttributeValue {
	out := map[string]types.MessageAttributeValue{}
	for i := 0; i+1 < len(pairs); i += 2 {
		out[pairs[i]] = types.MessageAttributeValue{DataType: aws.String("String"), StringValue: &pairs[i+1]}
	}
	return out
}

// rawMessage is a send of a body with String attributes of names and values in turn.
func rawMessage(queueURL, body string, pairs ...string) *sqs.SendMessageInput {
	return &sqs.SendMessageInput{QueueUrl: &queueURL, MessageBody: &body, MessageAttributes: attributes(pairs...)}
}
