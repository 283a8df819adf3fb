package sqstest_test

import (
	"reflect"
	"testing"

	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

func TestAccessByPolicy(t *testing.T) {
	t.Parallel()
	rules, err := sqstest.AccessByPolicy("me", []byte(`{"Version": "2012-10-17", "Statement": [
		{"Sid": "A", "Effect": "Allow", "Action": ["sqs:SendMessage", "s3:GetObject", "sqs:Get*"], "Resource": "arn:aws:sqs:*:*:rq_*"},
		{"Effect": "Allow", "Action": "sqs:ListQueues", "Resource": ["*", "arn:aws:sqs:*:*:rq_*"]},
		{"Effect": "Deny", "Action": "*", "Resource": ["arn:aws:sqs:eu-central-1:111122223333:secret", "arn:aws:s3:::bucket"]}]}`))
	want := []sqstest.AccessRule{
		{AccessKey: "me", Action: "SendMessage", Queue: "rq_*"}, {AccessKey: "me", Action: "Get*", Queue: "rq_*"},
		{AccessKey: "me", Action: "ListQueues"},
		{Deny: true, AccessKey: "me", Action: "*", Queue: "secret"},
	}
	if err != nil || !reflect.DeepEqual(rules, want) {
		t.Errorf("%v, %+v; want %+v", err, rules, want)
	}
	if one, err := sqstest.AccessByPolicy("me", []byte(`{"Statement": {"Effect": "Allow", "Action": "sqs:*", "Resource": "*"}}`)); err != nil || len(one) != 1 {
		t.Errorf("a statement without brackets: %v, %v", one, err)
	}
	for name, document := range map[string]string{
		"no JSON":            `Statement: []`,
		"no effect":          `{"Statement": [{"Action": "sqs:*", "Resource": "*"}]}`,
		"a condition":        `{"Statement": [{"Effect": "Allow", "Action": "sqs:*", "Resource": "*", "Condition": {"Bool": {"aws:SecureTransport": "true"}}}]}`,
		"NotAction":          `{"Statement": {"Effect": "Allow", "NotAction": "sqs:*", "Resource": "*"}}`,
		"an unknown action":  `{"Statement": [{"Effect": "Allow", "Action": "sqs:SendMessages", "Resource": "*"}]}`,
		"a batch's own":      `{"Statement": [{"Effect": "Allow", "Action": "sqs:SendMessageBatch", "Resource": "*"}]}`,
		"a queue no one has": `{"Statement": [{"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": "arn:aws:sqs:*:*:a b"}]}`,
	} {
		if rules, err := sqstest.AccessByPolicy("me", []byte(document)); err == nil {
			t.Errorf("%s is taken, as %+v", name, rules)
		}
	}
}
