package queue

import (
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/replyqueue/replyqueue/api/v1alpha1"
)

// defaultDeadLetterRetention is what a dead-letter queue keeps its messages for, in seconds, where nothing is said:
// SQS's longest, fourteen days. A dead letter that expires before it is looked at is lost.
const defaultDeadLetterRetention = 1209600

// RequestQueue is what the queue of a RequestChannel should be. deadLetterARN is the queue that requests received
// too often go to; it is empty while that queue is not known, and then nothing is said of it. Nothing is said either of a
// permission for channels (TakesDeadLetters), whose ARNs are known once the queue's own is.
func (p *Provider) RequestQueue(channel *v1alpha1.RequestChannel, deadLetterARN string) Desired {
	spec := &channel.Spec
	attributes := maps.Clone(spec.ExtraAttributes)
	if attributes == nil {
		attributes = map[string]string{}
	}
	if q := spec.Queue; q != nil {
		setNumber(attributes, VisibilityTimeout, q.VisibilityTimeoutSeconds)
		setNumber(attributes, MessageRetentionPeriod, q.MessageRetentionSeconds)
		setNumber(attributes, MaximumMessageSize, q.MaximumMessageBytes)
		setNumber(attributes, ReceiveMessageWaitTime, q.ReceiveWaitSeconds)
		setNumber(attributes, DelaySeconds, q.DelaySeconds)
	}
	maps.Copy(attributes, encryptionAttributes(spec.Encryption))
	maps.Copy(attributes, fifoAttributes(spec.FIFO))
	if spec.Policy != "" {
		attributes[Policy] = spec.Policy
	}
	if from := spec.DeadLettersFrom; from != nil && from.Permission != v1alpha1.DeadLetterPermissionChannels {
		attributes[RedriveAllowPolicy] = TakesDeadLetters(from.Permission, nil)
	}
	if spec.DeadLetter != nil && deadLetterARN != "" {
		attributes[RedrivePolicy] = encode(struct {
			Target  string `json:"deadLetterTargetArn"`
			Receive int32  `json:"maxReceiveCount"`
		}{deadLetterARN, spec.DeadLetter.MaxReceiveCount})
	}
	return Desired{
		Name:       p.ChannelQueueName(channel),
		Owner:      p.owner(channel, v1alpha1.TagKindRequest),
		Cluster:    p.Cluster,
		Fixed:      fixed(spec.FIFO),
		Attributes: attributes,
		Tags:       p.WithDefaultTags(spec.Tags.Strings()),
	}
}

// DeadLetterQueue is what the dead-letter queue that the operator creates for a RequestChannel should be. sourceARN
// is the channel's queue: the only one that may send its dead letters here. It is encrypted as the request queue is.
func (p *Provider) DeadLetterQueue(channel *v1alpha1.RequestChannel, sourceARN string) Desired {
	spec := &channel.Spec
	attributes := map[string]string{
		MessageRetentionPeriod: decimal(defaultDeadLetterRetention),
		RedriveAllowPolicy:     TakesDeadLetters(v1alpha1.DeadLetterPermissionChannels, []string{sourceARN}),
	}
	if spec.DeadLetter != nil && spec.DeadLetter.Queue != nil {
		setNumber(attributes, MessageRetentionPeriod, spec.DeadLetter.Queue.MessageRetentionSeconds)
	}
	encrypted := encryptionAttributes(spec.Encryption)
	if encrypted == nil {
		encrypted = map[string]string{SQSManagedSSE: defaults[SQSManagedSSE]}
	}
	maps.Copy(attributes, encrypted)
	return Desired{
		Name:       p.DeadLetterQueueName(channel.Namespace, channel.Name, spec.FIFO != nil),
		Owner:      p.owner(channel, v1alpha1.TagKindDeadLetter),
		Cluster:    p.Cluster,
		Fixed:      fixed(spec.FIFO),
		Attributes: attributes,
		Tags:       p.WithDefaultTags(spec.Tags.Strings()),
	}
}

// TakesDeadLetters is the RedriveAllowPolicy of a queue for a permission; sources are the ARNs of the queues that
// DeadLetterPermissionChannels is for. SQS knows no empty list of them: none may, then.
func TakesDeadLetters(permission v1alpha1.DeadLetterPermission, sources []string) string {
	policy := struct {
		Permission string   `json:"redrivePermission"`
		Sources    []string `json:"sourceQueueArns,omitempty"`
	}{Permission: "denyAll"}
	switch {
	case permission == v1alpha1.DeadLetterPermissionAll:
		policy.Permission = "allowAll"
	case permission == v1alpha1.DeadLetterPermissionChannels && len(sources) > 0:
		policy.Permission, policy.Sources = "byQueue", sources
	}
	return encode(policy)
}

// LetsIn reports whether a queue with those attributes takes dead letters from the one with that ARN.
func LetsIn(attributes map[string]string, source string) bool {
	if attributes[RedriveAllowPolicy] == "" {
		return true // SQS's default.
	}
	var policy struct {
		Permission string   `json:"redrivePermission"`
		Sources    []string `json:"sourceQueueArns"`
	}
	if json.Unmarshal([]byte(attributes[RedriveAllowPolicy]), &policy) != nil {
		return false
	}
	return policy.Permission == "allowAll" || (policy.Permission == "byQueue" && slices.Contains(policy.Sources, source))
}

// DeadLetterTarget is the ARN that a queue's attributes name for its dead letters; empty where they name none.
func DeadLetterTarget(attributes map[string]string) string {
	var policy struct {
		Target string `json:"deadLetterTargetArn"`
	}
	if json.Unmarshal([]byte(attributes[RedrivePolicy]), &policy) != nil {
		return ""
	}
	return policy.Target
}

// ChannelQueueName is the name of a RequestChannel's queue: the one its spec gives, else the computed one. Whether
// the spec may give it is AllowsQueueName's to say.
func (p *Provider) ChannelQueueName(channel *v1alpha1.RequestChannel) string {
	if channel.Spec.QueueName != "" {
		return channel.Spec.QueueName
	}
	return p.RequestQueueName(channel.Namespace, channel.Name, channel.Spec.FIFO != nil)
}

func (p *Provider) owner(channel *v1alpha1.RequestChannel, kind string) Owner {
	return Owner{Cluster: p.ClusterUID, Kind: kind, Namespace: channel.Namespace, Name: channel.Name}
}

// Consents reports whether a queue's tags let a namespace of this cluster adopt it. The cluster may be given by its name or by its UID.
func (p *Provider) Consents(tags map[string]string, namespace string) bool {
	return p.names(tags[v1alpha1.TagAdoptableBy], namespace)
}

// Lends reports whether a queue's tags let a namespace of this cluster observe it, and send dead letters there.
func (p *Provider) Lends(tags map[string]string, namespace string) bool {
	if p.Consents(tags, namespace) {
		return true
	}
	return slices.ContainsFunc(strings.Fields(tags[v1alpha1.TagSharedWith]), func(with string) bool { return p.names(with, namespace) })
}

func (p *Provider) names(to, namespace string) bool {
	return to == p.Cluster+"/"+namespace || to == p.ClusterUID+"/"+namespace
}

// OfferedTo is whom a queue's tags let adopt it, where that is in another cluster: its operator may take the queue over at any moment, and SQS
// shows that a minute late. Empty: nobody there. Of this cluster nobody can, for as long as the object is there that has the queue.
func (p *Provider) OfferedTo(tags map[string]string) string {
	return offeredTo(tags, p.Cluster, p.ClusterUID)
}

// offerable matches what a cluster is called, by its name or its UID, with a namespace there. Nothing else in that tag lets anybody have the queue.
var offerable = regexp.MustCompile(`^[A-Za-z0-9-]+/[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// offeredTo is OfferedTo from a cluster with that name and that UID.
func offeredTo(tags map[string]string, own ...string) string {
	to := tags[v1alpha1.TagAdoptableBy]
	cluster, _, _ := strings.Cut(to, "/")
	if !offerable.MatchString(to) || slices.Contains(own, cluster) {
		return ""
	}
	return to
}

func fixed(fifo *v1alpha1.FIFO) map[string]string {
	if fifo == nil {
		return nil
	}
	return map[string]string{FIFOQueue: "true"}
}

func fifoAttributes(fifo *v1alpha1.FIFO) map[string]string {
	attributes := map[string]string{}
	if fifo == nil {
		return attributes
	}
	switch fifo.ContentBasedDeduplication {
	case v1alpha1.ContentBasedDeduplicationEnabled:
		attributes[ContentBasedDeduplication] = "true"
	case v1alpha1.ContentBasedDeduplicationDisabled:
		attributes[ContentBasedDeduplication] = "false"
	}
	switch fifo.DeduplicationScope {
	case v1alpha1.DeduplicationScopeQueue:
		attributes[DeduplicationScope] = "queue"
	case v1alpha1.DeduplicationScopeMessageGroup:
		attributes[DeduplicationScope] = "messageGroup"
	}
	switch fifo.ThroughputLimit {
	case v1alpha1.FIFOThroughputPerQueue:
		attributes[FIFOThroughputLimit] = "perQueue"
	case v1alpha1.FIFOThroughputPerMessageGroupID:
		attributes[FIFOThroughputLimit] = "perMessageGroupId"
	}
	return attributes
}

func encode(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err) // The types above always encode.
	}
	return string(b)
}

// FieldOf names the field of a RequestChannel's spec that sets an SQS attribute, for messages to people.
func FieldOf(attribute string) string {
	if field, known := fields[attribute]; known {
		return field
	}
	return "spec.extraAttributes[" + attribute + "]"
}

var fields = map[string]string{
	VisibilityTimeout:         "spec.queue.visibilityTimeoutSeconds",
	MessageRetentionPeriod:    "spec.queue.messageRetentionSeconds",
	MaximumMessageSize:        "spec.queue.maximumMessageBytes",
	ReceiveMessageWaitTime:    "spec.queue.receiveWaitSeconds",
	DelaySeconds:              "spec.queue.delaySeconds",
	FIFOQueue:                 "spec.fifo",
	ContentBasedDeduplication: "spec.fifo.contentBasedDeduplication",
	DeduplicationScope:        "spec.fifo.deduplicationScope",
	FIFOThroughputLimit:       "spec.fifo.throughputLimit",
	KMSMasterKeyID:            "spec.encryption.kmsKeyID",
	KMSDataKeyReusePeriod:     "spec.encryption.dataKeyReuseSeconds",
	SQSManagedSSE:             "spec.encryption.type",
	Policy:                    "spec.policy",
	RedrivePolicy:             "spec.deadLetter",
	RedriveAllowPolicy:        "spec.deadLettersFrom",
}

// AttributeIn returns the attribute that AWS's words name, of those that have a field and of extra; empty when they name
// none. Of several it is the longest, since "Policy" is in "RedrivePolicy".
func AttributeIn(words string, extra map[string]string) string {
	found := ""
	for _, attribute := range slices.Concat(slices.Collect(maps.Keys(fields)), slices.Collect(maps.Keys(extra))) {
		if len(attribute) > len(found) && strings.Contains(words, attribute) {
			found = attribute
		}
	}
	return found
}
