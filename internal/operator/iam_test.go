package operator_test

import (
	"os"
	"reflect"
	"slices"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/sqs"

	"github.com/replyqueue/replyqueue/internal/queue"
	"github.com/replyqueue/replyqueue/pkg/sqstest"
)

// operatorsPolicy is what the operator's role is to be allowed in IAM, as it is shipped.
const operatorsPolicy = "../../config/iam/operator.json"

// operatorsKey is the access key that a spec's operator signs with; whoever plays people and pods has another.
const operatorsKey = "OPERATOR"

func asOperator(o *sqs.Options) {
	o.Credentials = aws.NewCredentialsCache(credentials.NewStaticCredentialsProvider(operatorsKey, "secret", ""))
	o.Retryer = aws.NopRetryer{}
}

func operatorsAccess() ([]sqstest.AccessRule, error) {
	document, err := os.ReadFile(operatorsPolicy)
	if err != nil {
		return nil, err
	}
	return sqstest.AccessByPolicy(operatorsKey, document)
}

func TestTheShippedIAMPolicyIsWhatTheOperatorCalls(t *testing.T) {
	t.Parallel()
	rules, err := operatorsAccess()
	if err != nil {
		t.Fatal(err)
	}
	var allowed, called []string
	for _, r := range rules {
		allowed = append(allowed, r.Action)
		// IAM knows no resource for ListQueues: allowed on some queues, it is denied.
		if onAll := r.Queue == ""; onAll != (r.Action == "ListQueues") {
			t.Errorf("%s is allowed on %s", r.Action, r.Queue)
		}
		if r.Action != "ListQueues" && r.Queue != queue.DefaultPrefix+"_*" {
			t.Errorf("%s is allowed on %s, which is not what names begin with", r.Action, r.Queue)
		}
	}
	for method := range reflect.TypeFor[queue.API]().Methods() {
		called = append(called, method.Name)
	}
	slices.Sort(allowed)
	slices.Sort(called)
	if !slices.Equal(allowed, called) {
		t.Errorf("allowed is %v, called is %v", allowed, called)
	}
}
