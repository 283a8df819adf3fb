package queue

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// Observe reads what the queue called name is: two requests when it exists, and one more until the provider has
// seen the URL of any queue of its own. A queue that is not there is no error.
func (p *Provider) Observe(ctx context.Context, name string) (Observed, error) {
	url, err := p.QueueURL(ctx, name)
	if Classify(err) == NotFound {
		return Observed{}, nil
	}
	if err != nil {
		return Observed{}, err
	}
	return p.observeAt(ctx, url)
}

func (p *Provider) observeAt(ctx context.Context, url string) (Observed, error) {
	attributes, err := p.Attributes(ctx, url)
	if Classify(err) == NotFound {
		return Observed{}, nil
	}
	if err != nil {
		return Observed{}, err
	}
	tags, err := p.Tags(ctx, url)
	if Classify(err) == NotFound {
		return Observed{}, nil
	}
	if err != nil {
		return Observed{}, err
	}
	return Observed{Exists: true, URL: url, ARN: attributes[QueueARN], Attributes: attributes, Tags: tags}, nil
}

// Attributes reads every attribute of the queue at url.
func (p *Provider) Attributes(ctx context.Context, url string) (map[string]string, error) {
	out, err := p.API.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{
		QueueUrl: &url, AttributeNames: []types.QueueAttributeName{types.QueueAttributeNameAll},
	})
	if err != nil {
		return nil, fmt.Errorf("get attributes of queue %s: %w", nameOf(url), err)
	}
	return out.Attributes, nil
}

// Tags reads the tags of the queue at url.
func (p *Provider) Tags(ctx context.Context, url string) (map[string]string, error) {
	out, err := p.API.ListQueueTags(ctx, &sqs.ListQueueTagsInput{QueueUrl: &url})
	if err != nil {
		return nil, fmt.Errorf("list tags of queue %s: %w", nameOf(url), err)
	}
	if out.Tags == nil {
		return map[string]string{}, nil
	}
	return out.Tags, nil
}

// CreateAndObserve creates a queue and reads back what it is: three requests. SQS returns the URL of a queue that
// exists already with the same attributes, so whose queue it is is for the tags in the answer to say. A queue of
// that name with other attributes is observed too, at the cost of one more request. A queue that cannot be read so
// soon after its creation gives an error of class NotFound. With an error, the answer has the URL if the queue is there.
func (p *Provider) CreateAndObserve(ctx context.Context, name string, plan Plan) (Observed, error) {
	url, err := p.Create(ctx, name, plan.Attributes, plan.Tags)
	if Classify(err) == Exists {
		url, err = p.LookUp(ctx, name)
	}
	if err != nil {
		return Observed{}, err
	}
	tags, err := p.Tags(ctx, url)
	if err != nil {
		return Observed{URL: url}, err
	}
	attributes, err := p.Attributes(ctx, url)
	if err != nil {
		return Observed{URL: url}, err
	}
	return Observed{Exists: true, URL: url, ARN: attributes[QueueARN], Attributes: attributes, Tags: tags}, nil
}

// CreateBeside creates a queue whose ARN is known from a sibling's: two requests. What it is, is what was asked for,
// unless it existed: then its attributes are read too, since SQS compares those that are given alone. With an error, the
// answer has the URL if the queue is there.
func (p *Provider) CreateBeside(ctx context.Context, siblingARN, name string, plan Plan) (Observed, error) {
	plan.Tags = maps.Clone(plan.Tags)
	made := plan.MarkCreation()
	url, err := p.Create(ctx, name, plan.Attributes, plan.Tags)
	if Classify(err) == Exists {
		if url, err = p.LookUp(ctx, name); err != nil {
			return Observed{}, err
		}
		observed, err := p.observeAt(ctx, url)
		observed.URL = url
		return observed, err
	}
	if err != nil {
		return Observed{}, err
	}
	tags, err := p.Tags(ctx, url)
	if err != nil {
		return Observed{URL: url}, err
	}
	attributes := plan.Attributes
	if !made(tags) {
		if attributes, err = p.Attributes(ctx, url); err != nil {
			return Observed{URL: url}, err
		}
	}
	return Observed{Exists: true, URL: url, ARN: SiblingARN(siblingARN, name), Attributes: attributes, Tags: tags}, nil
}

// Apply carries out a plan for a queue that exists: first the tags, so that ownership is written before anything
// else, then the attributes in one request, then the tags to remove. It stops at the first error. done is what was carried
// out, and lost what may have been: the request whose answer did not come.
func (p *Provider) Apply(ctx context.Context, url string, plan Plan) (done, lost Plan, err error) {
	if len(plan.Tags) > 0 {
		step := Plan{Tags: plan.Tags}
		if _, err := p.API.TagQueue(ctx, &sqs.TagQueueInput{QueueUrl: &url, Tags: plan.Tags}); err != nil {
			return done, step.unlessRefused(err), fmt.Errorf("tag queue %s: %w", nameOf(url), err)
		}
		done.Tags = plan.Tags
	}
	if len(plan.Attributes) > 0 {
		step := Plan{Attributes: plan.Attributes}
		_, err := p.API.SetQueueAttributes(ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: plan.Attributes})
		if err != nil {
			names := strings.Join(slices.Sorted(maps.Keys(plan.Attributes)), ", ")
			return done, step.unlessRefused(err), fmt.Errorf("set %s of queue %s: %w", names, nameOf(url), err)
		}
		done.Attributes = plan.Attributes
	}
	if len(plan.Untag) > 0 {
		if err := p.Untag(ctx, url, plan.Untag); err != nil {
			return done, Plan{Untag: plan.Untag}.unlessRefused(err), err
		}
		done.Untag = plan.Untag
	}
	return done, Plan{}, nil
}

// unlessRefused is the plan, or nothing where SQS's answer says that it was not carried out.
func (p Plan) unlessRefused(err error) Plan {
	if Classify(err) == Transient {
		return p
	}
	return Plan{}
}

// Untag removes tags from the queue at url.
func (p *Provider) Untag(ctx context.Context, url string, keys []string) error {
	if _, err := p.API.UntagQueue(ctx, &sqs.UntagQueueInput{QueueUrl: &url, TagKeys: keys}); err != nil {
		return fmt.Errorf("untag queue %s: %w", nameOf(url), err)
	}
	return nil
}

// Delete deletes the queue at url with its messages. A queue that is not there is success. It fails with *Held when
// queues may not be deleted.
func (p *Provider) Delete(ctx context.Context, url string) error {
	if err := p.MayDelete(); err != nil {
		return err
	}
	if _, err := p.API.DeleteQueue(ctx, &sqs.DeleteQueueInput{QueueUrl: &url}); err != nil && Classify(err) != NotFound {
		return fmt.Errorf("delete queue %s: %w", nameOf(url), err)
	}
	return nil
}

// Counts are how many messages a queue holds, by where they are. SQS's counts are approximate.
type Counts struct {
	// Visible can be received now, InFlight were received and not deleted, Delayed are not yet delivered.
	Visible, InFlight, Delayed int
}

// Total is the number of all messages.
func (c Counts) Total() int { return c.Visible + c.InFlight + c.Delayed }

// countAttributes are the attributes that Counts are read from.
var countAttributes = []types.QueueAttributeName{
	types.QueueAttributeNameApproximateNumberOfMessages,
	types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
	types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
}

// CountsIn reads the counts from a queue's attributes; what they do not say is 0.
func CountsIn(attributes map[string]string) Counts {
	var n [3]int
	for i, name := range countAttributes {
		n[i], _ = strconv.Atoi(attributes[string(name)])
	}
	return Counts{Visible: n[0], InFlight: n[1], Delayed: n[2]}
}

// CountMessages asks how many messages the queue called name holds: one request, and one more until the provider has
// seen the URL of any queue of its own.
func (p *Provider) CountMessages(ctx context.Context, name string) (Counts, error) {
	url, err := p.QueueURL(ctx, name)
	if err != nil {
		return Counts{}, err
	}
	out, err := p.API.GetQueueAttributes(ctx, &sqs.GetQueueAttributesInput{QueueUrl: &url, AttributeNames: countAttributes})
	if err != nil {
		return Counts{}, fmt.Errorf("count the messages of queue %s: %w", name, err)
	}
	return CountsIn(out.Attributes), nil
}

// ConsentOf reads the tags of the queue called name, in which its owner may have consented to its use; none when
// there is no such queue.
func (p *Provider) ConsentOf(ctx context.Context, name string) (map[string]string, error) {
	url, err := p.QueueURL(ctx, name)
	if err != nil {
		if Classify(err) == NotFound {
			return nil, nil
		}
		return nil, err
	}
	tags, err := p.Tags(ctx, url)
	if Classify(err) == NotFound {
		return nil, nil
	}
	return tags, err
}

// Empty reports whether all three counts of messages are known and zero.
func Empty(attributes map[string]string) bool {
	for _, name := range []types.QueueAttributeName{
		types.QueueAttributeNameApproximateNumberOfMessages,
		types.QueueAttributeNameApproximateNumberOfMessagesNotVisible,
		types.QueueAttributeNameApproximateNumberOfMessagesDelayed,
	} {
		if attributes[string(name)] != "0" {
			return false
		}
	}
	return true
}
