// Package queue is the operator's side of SQS: where queues are made, what they are called, how one queue is
// brought to what it should be, and what SQS's errors mean. It is the only importer of the AWS SDK in the operator.
package queue

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
)

// API is what the operator asks of SQS. The methods are the SDK's own, so that its client is an API.
type API interface {
	CreateQueue(context.Context, *sqs.CreateQueueInput, ...func(*sqs.Options)) (*sqs.CreateQueueOutput, error)
	DeleteQueue(context.Context, *sqs.DeleteQueueInput, ...func(*sqs.Options)) (*sqs.DeleteQueueOutput, error)
	GetQueueUrl(context.Context, *sqs.GetQueueUrlInput, ...func(*sqs.Options)) (*sqs.GetQueueUrlOutput, error)
	GetQueueAttributes(context.Context, *sqs.GetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.GetQueueAttributesOutput, error)
	SetQueueAttributes(context.Context, *sqs.SetQueueAttributesInput, ...func(*sqs.Options)) (*sqs.SetQueueAttributesOutput, error)
	ListQueueTags(context.Context, *sqs.ListQueueTagsInput, ...func(*sqs.Options)) (*sqs.ListQueueTagsOutput, error)
	TagQueue(context.Context, *sqs.TagQueueInput, ...func(*sqs.Options)) (*sqs.TagQueueOutput, error)
	UntagQueue(context.Context, *sqs.UntagQueueInput, ...func(*sqs.Options)) (*sqs.UntagQueueOutput, error)
	ListQueues(context.Context, *sqs.ListQueuesInput, ...func(*sqs.Options)) (*sqs.ListQueuesOutput, error)
}

// DefaultPrefix is the first part of queue names where nothing else is configured.
const DefaultPrefix = "rq"

// Provider is one place where queues are made: account, region, endpoint, and the terms of use. It is safe for
// concurrent use once built.
type Provider struct {
	// Name of the QueueProvider, or "default" for the operator's own environment.
	Name string
	// Region is the AWS region.
	Region string
	// Endpoint is the URL of the SQS API; empty: AWS's own for the region.
	Endpoint string
	// RoleAccount is the account of the role to assume; empty: none is, and it is that of the operator's own credentials.
	RoleAccount string
	// Prefix is the first part of every queue name; letters, digits and hyphens.
	Prefix string
	// Cluster is the second part of every queue name; letters, digits and hyphens.
	Cluster string
	// ClusterUID is the UID of the kube-system namespace: the ownership tag's value.
	ClusterUID string
	// DefaultTags are put on every queue, under those that a channel or host asks for.
	DefaultTags map[string]string
	// AllowedQueueNames are the patterns within which spec.queueName may choose; empty: none.
	AllowedQueueNames []string
	// AllowPolicies lets channels set a queue policy.
	AllowPolicies bool
	// ForeignPrefixes are prefixes of names of queues that the Java client makes, and that are swept by its rule.
	ForeignPrefixes []string
	// API answers for this provider, limited and measured.
	API API
	// Fence says whether queues may be deleted; nil: always.
	Fence Fence

	// base is the URL of this account's queues up to the name, as SQS itself wrote it last.
	base atomic.Pointer[string]
	// onAccount, if set, is told the account when it becomes known, and when it is another.
	onAccount func(account string)
}

// AccountID is the account that holds the provider's queues, as seen in the URL of one of them; empty until the
// first queue was created or looked up.
func (p *Provider) AccountID() string {
	if base := p.base.Load(); base != nil {
		return nameOf(strings.TrimSuffix(*base, "/"))
	}
	return ""
}

// ForgetAccount has the URL of the next queue asked for, and not computed: the credentials may have become another
// account's.
func (p *Provider) ForgetAccount() { p.base.Store(nil) }

// SameAccount reports whether the operator sees the account that holds the queue with that URL: by the marker queue, which
// it looks up by its name, at the cost of one request. Only then does a queue that is not found not exist. Without a
// fence there is no marker, and the answer is yes. It fails with SQS's error, but for a marker that is not found.
func (p *Provider) SameAccount(ctx context.Context, url string) (bool, error) {
	if p.Fence == nil {
		return true, nil
	}
	seen, err := p.LookUp(ctx, p.IdentityQueueName())
	if err != nil {
		if Classify(err) == NotFound {
			err = nil
		}
		return false, err
	}
	return AccountInURL(seen) == AccountInURL(url), nil
}

// AccountInURL is the account in a queue's URL.
func AccountInURL(url string) string { return nameOf(strings.TrimSuffix(url, "/"+nameOf(url))) }

// OfAWS reports whether queues are made at AWS's own endpoint. Another server may name any account and region in its ARNs.
func (p *Provider) OfAWS() bool { return notAWSs(p.Endpoint) == "" }

// SamePlace reports whether the queues of both are in one account and region, as far as that is known without asking AWS.
func (p *Provider) SamePlace(other *Provider) bool {
	if a, b := p.AccountID(), other.AccountID(); a != "" && b != "" && a != b {
		return false
	}
	a, b := cmp.Or(p.RoleAccount, p.AccountID()), cmp.Or(other.RoleAccount, other.AccountID())
	account := p.RoleAccount == other.RoleAccount || (a != "" && a == b)
	return account && p.Region == other.Region && notAWSs(p.Endpoint) == notAWSs(other.Endpoint)
}

// learn keeps the base of a URL that SQS answered for the queue called name.
func (p *Provider) learn(url, name string) {
	base, found := strings.CutSuffix(url, name)
	if known := p.base.Load(); found && (known == nil || *known != base) {
		p.base.Store(&base)
		if p.onAccount != nil {
			p.onAccount(p.AccountID())
		}
	}
}

// QueueURL is the URL of the queue called name. It costs a request, and can fail with NotFound, only until the
// provider has seen the URL of any queue of its own; after that it is computed, and says nothing about whether the
// queue exists.
func (p *Provider) QueueURL(ctx context.Context, name string) (string, error) {
	if base := p.base.Load(); base != nil {
		return *base + name, nil
	}
	return p.LookUp(ctx, name)
}

// LearnAccount finds out which account the queues are in, for AccountID, if there is any queue of this cluster's by which to
// tell: one request, until it is known.
func (p *Provider) LearnAccount(ctx context.Context) error {
	if p.AccountID() != "" {
		return nil
	}
	_, err := p.LookUp(ctx, p.IdentityQueueName())
	if Classify(err) == NotFound {
		return nil
	}
	return err
}

// LookUp asks SQS for the URL of the queue called name. The error is of class NotFound when there is none.
func (p *Provider) LookUp(ctx context.Context, name string) (string, error) {
	out, err := p.API.GetQueueUrl(ctx, &sqs.GetQueueUrlInput{QueueName: &name})
	if err != nil {
		return "", fmt.Errorf("get URL of queue %s: %w", name, err)
	}
	p.learn(*out.QueueUrl, name)
	return *out.QueueUrl, nil
}

// Create creates the queue called name with attributes and tags in one request and returns its URL. SQS returns
// the URL of a queue of that name that exists already when the attributes given are equal, so whoever may meet
// another's queue must read its tags afterwards. With other attributes the error is of class Exists.
func (p *Provider) Create(ctx context.Context, name string, attributes, tags map[string]string) (string, error) {
	out, err := p.API.CreateQueue(ctx, &sqs.CreateQueueInput{QueueName: &name, Attributes: attributes, Tags: tags})
	if err != nil {
		return "", fmt.Errorf("create queue %s: %w", name, err)
	}
	p.learn(*out.QueueUrl, name)
	return *out.QueueUrl, nil
}

// CreateReplyQueue creates a reply queue in one CreateQueue request, with the provider's default tags under
// those given, and returns its URL. A queue of that name can only be the one that the same record created before:
// then its URL is returned too, at the cost of one more request where SQS compares and finds a difference.
func (p *Provider) CreateReplyQueue(ctx context.Context, name string, attributes, tags map[string]string) (string, error) {
	url, err := p.Create(ctx, name, attributes, p.WithDefaultTags(tags))
	if Classify(err) == Exists {
		return p.LookUp(ctx, name)
	}
	return url, err
}

// WithDefaultTags returns tags over the provider's default tags.
func (p *Provider) WithDefaultTags(tags map[string]string) map[string]string {
	all := make(map[string]string, len(p.DefaultTags)+len(tags))
	maps.Copy(all, p.DefaultTags)
	maps.Copy(all, tags)
	return all
}

// DeleteQueueByName deletes the queue called name, with its messages, without looking at its tags: it is for
// names that only the operator can have made. A queue that is not there is success. It costs one request, two
// until the provider has seen the URL of any queue of its own. It fails with *Held when queues may not be deleted.
func (p *Provider) DeleteQueueByName(ctx context.Context, name string) error {
	if err := p.MayDelete(); err != nil {
		return err
	}
	url, err := p.QueueURL(ctx, name)
	if err == nil {
		_, err = p.API.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &url})
	}
	if err != nil && Classify(err) != NotFound {
		return fmt.Errorf("delete queue %s: %w", name, err)
	}
	return nil
}
