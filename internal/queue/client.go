package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awsmiddleware "github.com/aws/aws-sdk-go-v2/aws/middleware"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/stscreds"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/middleware"
)

// connection is what a client is made from. Empty fields leave the SDK's own environment in charge.
type connection struct {
	region, endpoint, roleARN string
}

// errNoRegion is what most often is missing.
var errNoRegion = errors.New("no AWS region: set spec.region of the QueueProvider, or AWS_REGION for the operator")

// connect makes a client from the SDK's own environment and configuration, and says which region and endpoint it
// uses. It does not call AWS.
func connect(ctx context.Context, c connection, version string) (client *sqs.Client, region, endpoint string, err error) {
	options := []func(*config.LoadOptions) error{
		config.WithAPIOptions(userAgent(version)),
		// The workqueue backs off and tries again; retries here would block a worker and hide the throttling.
		config.WithRetryer(func() aws.Retryer { return aws.NopRetryer{} }),
	}
	if c.region != "" {
		options = append(options, config.WithRegion(c.region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, "", "", fmt.Errorf("load AWS configuration: %w", err)
	}
	if cfg.Region == "" {
		return nil, "", "", errNoRegion
	}
	if c.roleARN != "" {
		assume := stscreds.NewAssumeRoleProvider(sts.NewFromConfig(cfg), c.roleARN, func(o *stscreds.AssumeRoleOptions) {
			o.RoleSessionName = "replyqueue"
		})
		cfg.Credentials = aws.NewCredentialsCache(assume)
	}
	if cfg.Credentials != nil {
		cfg.Credentials = tellingCredentials{cfg.Credentials}
	}
	client = sqs.NewFromConfig(cfg, func(o *sqs.Options) {
		o.HTTPClient = hideBody{o.HTTPClient}
		if c.endpoint != "" {
			o.BaseEndpoint = &c.endpoint
		}
	})
	if base := client.Options().BaseEndpoint; base != nil {
		endpoint = *base
	}
	return client, cfg.Region, endpoint, nil
}

func userAgent(version string) []func(*middleware.Stack) error {
	return []func(*middleware.Stack) error{awsmiddleware.AddUserAgentKeyValue("replyqueue", version)}
}

// hideBody works around a defect that a fast server brings out: smithy-go closes a request's body after Do, while
// net/http may still be reading it through its WriterTo, which then reports an error and tears the connection
// down in the middle of the answer. A body that is nothing but a reader and a closer does not.
type hideBody struct {
	client sqs.HTTPClient
}

// Do sends the request with its body's other methods hidden.
func (h hideBody) Do(r *http.Request) (*http.Response, error) {
	if r.Body != nil && r.Body != http.NoBody {
		r.Body = struct{ io.ReadCloser }{r.Body}
	}
	return h.client.Do(r)
}
