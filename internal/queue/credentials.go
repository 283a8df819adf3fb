package queue

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/smithy-go"
)

// noCredentials is a failure to get credentials, which no request can be signed without. It is not SQS that fails.
type noCredentials struct{ cause error }

// Error says that it is about credentials.
func (e *noCredentials) Error() string { return "no credentials: " + e.cause.Error() }

// Unwrap is the cause.
func (e *noCredentials) Unwrap() error { return e.cause }

// tellingCredentials marks the failures of a provider of credentials.
type tellingCredentials struct{ aws.CredentialsProvider }

// Retrieve is the provider's; it fails with *noCredentials.
func (t tellingCredentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	credentials, err := t.CredentialsProvider.Retrieve(ctx)
	if err != nil {
		return credentials, &noCredentials{err}
	}
	return credentials, nil
}

// class is Denied where there are no credentials, and Transient where the way to them fails.
func (e *noCredentials) class() Class {
	if e.onEC2() || networkWords(e.cause) == "" {
		return Denied
	}
	return Transient
}

// words say where credentials were looked for in vain.
func (e *noCredentials) words() string {
	if e.onEC2() {
		// The metadata service is where the SDK looks last.
		return "the operator has no AWS credentials: there are none in its environment, and EC2's metadata service gives none"
	}
	return "the operator gets no AWS credentials: " + Explain(e.cause)
}

func (e *noCredentials) onEC2() bool {
	var operation *smithy.OperationError
	return errors.As(e.cause, &operation) && operation.ServiceID == "ec2imds"
}
