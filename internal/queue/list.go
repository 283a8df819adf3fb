package queue

import (
	"context"
	"fmt"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// pageSize is how many queues SQS lists at once, at most (ListQueues, API reference). It gives no token for the next
// page unless a size is asked for.
const pageSize = 1000

// ListPage returns the names of queues that start with prefix: one page, and the token for the next; empty: there is
// none. It costs one request. The list can lag behind what was created or deleted.
func (p *Provider) ListPage(ctx context.Context, prefix, token string) (names []string, next string, err error) {
	in := &sqs.ListQueuesInput{QueueNamePrefix: &prefix, MaxResults: aws.Int32(pageSize)}
	if token != "" {
		in.NextToken = &token
	}
	out, err := p.API.ListQueues(ctx, in)
	if err != nil {
		return nil, "", fmt.Errorf("list queues %s*: %w", prefix, err)
	}
	names = make([]string, len(out.QueueUrls))
	for i, url := range out.QueueUrls {
		names[i] = nameOf(url)
		p.learn(url, names[i])
	}
	return names, aws.ToString(out.NextToken), nil
}

// MarkIdentity puts tags on the marker queue, which is created when it is not there: one request to create it, one
// more when it was there. A queue of that name must have been looked at before: it could be another's.
func (p *Provider) MarkIdentity(ctx context.Context, exists bool, tags map[string]string) error {
	name := p.IdentityQueueName()
	if !exists {
		_, err := p.Create(ctx, name, nil, p.WithDefaultTags(tags))
		return err
	}
	url, err := p.QueueURL(ctx, name)
	if err != nil {
		return err
	}
	if _, err := p.API.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: &url, Tags: tags}); err != nil {
		return fmt.Errorf("tag queue %s: %w", name, err)
	}
	return nil
}

// UnmarkIdentity deletes the marker queue, whatever the fence says: it is for one that the caller has just made, and where it
// should not have been.
func (p *Provider) UnmarkIdentity(ctx context.Context) error {
	url, err := p.QueueURL(ctx, p.IdentityQueueName())
	if err == nil {
		_, err = p.API.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &url})
	}
	if err != nil && Classify(err) != NotFound {
		return fmt.Errorf("delete queue %s: %w", p.IdentityQueueName(), err)
	}
	return nil
}

// AccountOfAny asks SQS for any queue that the operator's credentials can list, whoever's it is, and returns the account that
// holds it; empty: there is none. It costs one request.
func (p *Provider) AccountOfAny(ctx context.Context) (string, error) {
	out, err := p.API.ListQueues(ctx, &sqs.ListQueuesInput{MaxResults: aws.Int32(1)})
	if err != nil {
		return "", fmt.Errorf("list any queue: %w", err)
	}
	for _, url := range out.QueueUrls {
		p.learn(url, nameOf(url))
		return AccountInURL(url), nil
	}
	return "", nil
}

// IdentityTags reads the marker queue's tags; exists is false when there is no such queue.
func (p *Provider) IdentityTags(ctx context.Context) (tags map[string]string, exists bool, err error) {
	tags, err = p.TagsOf(ctx, p.IdentityQueueName())
	if Classify(err) == NotFound {
		return nil, false, nil
	}
	return tags, err == nil, err
}

// TagsOf reads the tags of the queue called name. The error is of class NotFound when there is none.
func (p *Provider) TagsOf(ctx context.Context, name string) (map[string]string, error) {
	url, err := p.QueueURL(ctx, name)
	if err != nil {
		return nil, err
	}
	return p.Tags(ctx, url)
}
