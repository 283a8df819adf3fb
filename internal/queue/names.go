package queue

import (
	"crypto/sha256"
	"encoding/hex"
	"regexp"
	"strings"

	"k8s.io/apimachinery/pkg/types"
)

const (
	// maxNameLength is SQS's limit on a queue's name, ".fifo" included (CreateQueue, API reference).
	maxNameLength = 80
	// replySegment stands in reply queues' names where request queues have a namespace.
	replySegment = "r"

	fifoSuffix       = ".fifo"
	deadLetterSuffix = "_dlq"
)

// ReplyQueueName is the name of the reply queue of one ReplyQueue record:
// <prefix>_<cluster>_r_<UID>. A UID is never used twice, so neither is the name.
func (p *Provider) ReplyQueueName(recordUID types.UID) string {
	return fit(p.ReplyQueuePrefix()+string(recordUID), "")
}

// ReplyQueuePrefix is what the name of every reply queue of this cluster starts with, and of no request or
// dead-letter queue.
func (p *Provider) ReplyQueuePrefix() string {
	return p.Prefix + "_" + p.Cluster + "_" + replySegment + "_"
}

// IdentityQueueName is the name of the marker queue that says which cluster the queues of this place are of:
// <prefix>_<cluster>_identity. With one part fewer than every other name it is no other queue's.
func (p *Provider) IdentityQueueName() string {
	return fit(p.Prefix+"_"+p.Cluster+"_identity", "")
}

// OwnPrefix is what the names of all queues start with that the operator names itself.
func (p *Provider) OwnPrefix() string { return p.Prefix + "_" + p.Cluster + "_" }

// IsReplyQueueName reports whether name has the form that ReplyQueueName gives, and nothing else has.
func (p *Provider) IsReplyQueueName(name string) bool {
	rest, found := strings.CutPrefix(name, p.ReplyQueuePrefix())
	return found && replyNameRest.MatchString(rest)
}

// replyNameRest is a UID, or what fit leaves of one with its hash.
var replyNameRest = regexp.MustCompile(`^([0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f-]*__[0-9a-f]{16})$`)

// RequestQueueName is the name of a RequestChannel's queue where its spec names none:
// <prefix>_<cluster>_<namespace>_<name>, with ".fifo" for a FIFO queue. No Kubernetes name contains an
// underscore, so two channels never share a name; what exceeds 80 characters is cut and ends in a hash.
func (p *Provider) RequestQueueName(namespace, name string, fifo bool) string {
	return fit(p.channelName(namespace, name), suffix("", fifo))
}

// DeadLetterQueueName is the name of the dead-letter queue that the operator creates for a RequestChannel:
// <prefix>_<cluster>_<namespace>_<name>_dlq. A FIFO queue's dead-letter queue is a FIFO queue too.
func (p *Provider) DeadLetterQueueName(namespace, name string, fifo bool) string {
	return fit(p.channelName(namespace, name), suffix(deadLetterSuffix, fifo))
}

func (p *Provider) channelName(namespace, name string) string {
	if namespace == replySegment {
		// A namespace called "r" would look like reply queues, and a request queue there could be passed off
		// as a return address. No Kubernetes name ends in a hyphen, so this collides with nothing.
		namespace += "-"
	}
	return p.Prefix + "_" + p.Cluster + "_" + namespace + "_" + name
}

func suffix(kind string, fifo bool) string {
	if fifo {
		return kind + fifoSuffix
	}
	return kind
}

// fit cuts base so that base and suffix together are a legal name. A cut name holds "__" before its hash, which
// no uncut name does.
func fit(base, suffix string) string {
	if len(base)+len(suffix) <= maxNameLength {
		return base + suffix
	}
	sum := sha256.Sum256([]byte(base))
	hash := "__" + hex.EncodeToString(sum[:8])
	return base[:maxNameLength-len(suffix)-len(hash)] + hash + suffix
}

// nameOf is the queue's name in its URL: the last path segment. It is empty for what is no queue URL.
func nameOf(url string) string {
	return url[strings.LastIndexByte(url, '/')+1:]
}

// SiblingARN is the ARN of the queue called name in the account and region of the queue that arn names. It is
// empty when arn is no queue's ARN.
func SiblingARN(arn, name string) string {
	parts := strings.Split(arn, ":")
	if len(parts) != 6 || parts[2] != "sqs" {
		return ""
	}
	parts[5] = name
	return strings.Join(parts, ":")
}

// ParseARN splits a queue's ARN into region, account and name; ok is false for what is no queue's ARN.
func ParseARN(arn string) (region, account, name string, ok bool) {
	parts := strings.Split(arn, ":")
	if len(parts) != 6 || parts[0] != "arn" || parts[2] != "sqs" {
		return "", "", "", false
	}
	return parts[3], parts[4], parts[5], true
}

// AllowsQueueName reports whether spec.queueName may be name in namespace: whether one of the provider's
// patterns matches it whole, * standing for any run of characters and ${namespace} for the namespace. Names in
// the form that the operator computes itself, under this provider's prefix or another's, are never given out this way.
func (p *Provider) AllowsQueueName(namespace, name string) bool {
	return !p.IsComputedName(name) && p.AllowsExistingName(namespace, name)
}

// IsComputedName reports whether name has the form that the operator computes itself, under whatever prefix.
func (p *Provider) IsComputedName(name string) bool {
	_, rest, found := strings.Cut(name, "_")
	return found && strings.HasPrefix(rest, p.Cluster+"_") // No prefix has an underscore.
}

// AllowsExistingName is AllowsQueueName for a queue that exists and that its owner consents to give: a request queue or a
// dead-letter queue that a channel of another name, or of another namespace, has left behind may be had, too.
func (p *Provider) AllowsExistingName(namespace, name string) bool {
	if _, rest, _ := strings.Cut(name, "_"); strings.HasPrefix(rest, p.Cluster+"_"+replySegment+"_") || rest == p.Cluster+"_identity" {
		return false // A reply queue's, or the marker's.
	}
	for _, pattern := range p.AllowedQueueNames {
		if matches(strings.ReplaceAll(pattern, "${namespace}", namespace), name) {
			return true
		}
	}
	return false
}

// matches reports whether the whole of name matches pattern, in which * stands for any run of characters.
func matches(pattern, name string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == name
	}
	first, last := parts[0], parts[len(parts)-1]
	if !strings.HasPrefix(name, first) {
		return false
	}
	name = name[len(first):]
	for _, part := range parts[1 : len(parts)-1] {
		_, after, found := strings.Cut(name, part)
		if !found {
			return false
		}
		name = after
	}
	return strings.HasSuffix(name, last)
}
