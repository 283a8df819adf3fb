package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// DeletionPolicy says what becomes of a queue when its RequestChannel is deleted.
// +kubebuilder:validation:Enum=Delete;Retain;DeleteIfEmpty
type DeletionPolicy string

const (
	// DeletionPolicyDelete deletes the queue with its messages.
	DeletionPolicyDelete DeletionPolicy = "Delete"
	// DeletionPolicyRetain leaves the queue, without our ownership tags.
	DeletionPolicyRetain DeletionPolicy = "Retain"
	// DeletionPolicyDeleteIfEmpty waits until the queue has held no message for three minutes by SQS's approximate counts,
	// then deletes it. It waits for as long as somebody goes on sending; where its namespace is being
	// deleted, for as long as its queues keep messages, and then leaves them as Retain does.
	DeletionPolicyDeleteIfEmpty DeletionPolicy = "DeleteIfEmpty"
)

// AdoptionPolicy says whether a queue that exists already may be taken over.
// +kubebuilder:validation:Enum=Never;IfConsented
type AdoptionPolicy string

const (
	// AdoptionPolicyNever: a queue of that name that is not ours stalls the channel.
	AdoptionPolicyNever AdoptionPolicy = "Never"
	// AdoptionPolicyIfConsented: a queue whose tag replyqueue.dev/adoptable-by names this cluster and namespace
	// is taken over.
	AdoptionPolicyIfConsented AdoptionPolicy = "IfConsented"
)

// ManagementPolicy says whether the operator may write to the queue.
// +kubebuilder:validation:Enum=Manage;Observe
type ManagementPolicy string

const (
	// ManagementPolicyManage creates, corrects and deletes the queue.
	ManagementPolicyManage ManagementPolicy = "Manage"
	// ManagementPolicyObserve only reads a queue whose owner consented.
	ManagementPolicyObserve ManagementPolicy = "Observe"
)

// DeduplicationScope says within what SQS looks for duplicates.
// +kubebuilder:validation:Enum=Queue;MessageGroup
type DeduplicationScope string

const (
	// DeduplicationScopeQueue deduplicates across the queue.
	DeduplicationScopeQueue DeduplicationScope = "Queue"
	// DeduplicationScopeMessageGroup deduplicates within a message group.
	DeduplicationScopeMessageGroup DeduplicationScope = "MessageGroup"
)

// FIFOThroughputLimit says to what the throughput quota of a FIFO queue applies.
// +kubebuilder:validation:Enum=PerQueue;PerMessageGroupID
type FIFOThroughputLimit string

const (
	// FIFOThroughputPerQueue: the quota is the queue's.
	FIFOThroughputPerQueue FIFOThroughputLimit = "PerQueue"
	// FIFOThroughputPerMessageGroupID: the quota is each group's (high throughput).
	FIFOThroughputPerMessageGroupID FIFOThroughputLimit = "PerMessageGroupID"
)

// ContentBasedDeduplication says whether SQS derives a missing deduplication ID from the body.
// +kubebuilder:validation:Enum=Enabled;Disabled
type ContentBasedDeduplication string

const (
	// ContentBasedDeduplicationEnabled derives the ID from the body.
	ContentBasedDeduplicationEnabled ContentBasedDeduplication = "Enabled"
	// ContentBasedDeduplicationDisabled refuses a message without an ID.
	ContentBasedDeduplicationDisabled ContentBasedDeduplication = "Disabled"
)

// FIFO makes the request queue a FIFO queue.
// +kubebuilder:validation:XValidation:rule="!(has(self.throughputLimit) && self.throughputLimit == 'PerMessageGroupID') || (has(self.deduplicationScope) && self.deduplicationScope == 'MessageGroup')",message="throughputLimit PerMessageGroupID (high throughput) needs deduplicationScope MessageGroup"
// +structType=atomic
type FIFO struct {
	// contentBasedDeduplication derives a missing deduplication ID from the body. rpcclient always sends an ID.
	// Unset: Disabled.
	// +optional
	ContentBasedDeduplication ContentBasedDeduplication `json:"contentBasedDeduplication,omitempty"`

	// deduplicationScope is Queue or MessageGroup. Unset: Queue.
	// +optional
	DeduplicationScope DeduplicationScope `json:"deduplicationScope,omitempty"`

	// throughputLimit is PerQueue or PerMessageGroupID (high throughput). Unset: PerQueue.
	// +optional
	ThroughputLimit FIFOThroughputLimit `json:"throughputLimit,omitempty"`
}

// QueueAttributes are the attributes of a request queue. The queue is created with AWS's default for what is unset, and
// unsetting restores it. What is unset is nobody's to correct: what someone else sets there stays.
type QueueAttributes struct {
	// visibilityTimeoutSeconds hides a received message for this long, 0 to 43200. Responders extend it while
	// they work. Unset: AWS's default, 30.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=43200
	VisibilityTimeoutSeconds *int32 `json:"visibilityTimeoutSeconds,omitempty"`

	// messageRetentionSeconds is how long SQS keeps a message nobody deleted, 60 to 1209600. Unset: AWS's
	// default, 345600 (four days).
	// +optional
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=1209600
	MessageRetentionSeconds *int32 `json:"messageRetentionSeconds,omitempty"`

	// maximumMessageBytes is the largest message accepted, with its attributes, 1024 to 1048576. Unset: AWS's
	// default, 1048576.
	// +optional
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=1048576
	MaximumMessageBytes *int32 `json:"maximumMessageBytes,omitempty"`

	// receiveWaitSeconds is how long a receive that names no wait waits for a message, 0 to 20. rpcclient names
	// its own. Unset: AWS's default, 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=20
	ReceiveWaitSeconds *int32 `json:"receiveWaitSeconds,omitempty"`

	// delaySeconds postpones the delivery of every message, 0 to 900. Unset: AWS's default, 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=900
	DelaySeconds *int32 `json:"delaySeconds,omitempty"`
}

// DeadLetterQueue is a dead-letter queue that the operator creates.
// +structType=atomic
type DeadLetterQueue struct {
	// messageRetentionSeconds is how long the dead-letter queue keeps a message, 60 to 1209600. SQS counts from
	// the first send, so it should exceed the request queue's. Unset: 1209600 (fourteen days), ours rather than
	// AWS's, because a dead letter that expires before it is looked at is lost.
	// +optional
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=1209600
	MessageRetentionSeconds *int32 `json:"messageRetentionSeconds,omitempty"`
}

// ChannelReference names a RequestChannel in the same namespace.
type ChannelReference struct {
	// name of the RequestChannel.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`
	Name string `json:"name,omitempty"`
}

// DeadLetter says where requests go that were received too often.
// +kubebuilder:validation:XValidation:rule="[has(self.queue), has(self.channelRef), has(self.arn)].filter(x, x).size() == 1",message="exactly one of queue, channelRef and arn must be set"
type DeadLetter struct {
	// maxReceiveCount is how often a request may be received before it is moved, 1 to 1000. Responders that run keep to the
	// number that they were told when they started: restart them after lowering it, or requests that wait at busy ones may be
	// moved though no handler failed at them.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxReceiveCount int32 `json:"maxReceiveCount,omitempty"`

	// queue has the operator create a dead-letter queue beside the request queue; {} takes the defaults.
	// +optional
	Queue *DeadLetterQueue `json:"queue,omitempty"`

	// channelRef uses the request queue of another RequestChannel in this namespace.
	// +optional
	ChannelRef *ChannelReference `json:"channelRef,omitempty"`

	// arn uses a queue the operator does not own, and never modifies. Its owner tagged it in AWS
	// replyqueue.dev/shared-with=<cluster>/<namespace>, or the QueueProvider allows its name.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^arn:[a-z0-9-]+:sqs:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_-]{1,80}(\.fifo)?$`
	ARN string `json:"arn,omitempty"`
}

// DeadLetterPermission says which queues may have a queue as their dead-letter queue.
// +kubebuilder:validation:Enum=All;None;Channels
type DeadLetterPermission string

const (
	// DeadLetterPermissionAll: any queue of the account and region.
	DeadLetterPermissionAll DeadLetterPermission = "All"
	// DeadLetterPermissionNone: no queue.
	DeadLetterPermissionNone DeadLetterPermission = "None"
	// DeadLetterPermissionChannels: the queues of some RequestChannels of this namespace.
	DeadLetterPermissionChannels DeadLetterPermission = "Channels"
)

// DeadLettersFrom says which queues may have a channel's queue as their dead-letter queue.
// +kubebuilder:validation:XValidation:rule="(self.permission == 'Channels') == has(self.channels)",message="channels is required with permission: Channels, and refused with any other"
type DeadLettersFrom struct {
	// permission is All (any queue of the account and region), None, or Channels (the queues of those named in channels).
	// +required
	Permission DeadLetterPermission `json:"permission,omitempty"`

	// channels are 1 to 10 RequestChannels of this namespace, each with the same QueueProvider and of the same type, FIFO or
	// standard. They need not exist yet. One whose queue is another's, or whose queueName its QueueProvider does not allow, is left out.
	// Required with permission: Channels.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=10
	Channels []ChannelReference `json:"channels,omitempty"`
}

// AllowedCallers says from which namespaces pods may call a channel.
// +kubebuilder:validation:XValidation:rule="(self.from == 'Selector') == has(self.selector)",message="selector is required with from: Selector, and refused with any other"
// +kubebuilder:validation:XValidation:rule="!has(self.selector) || !has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'] && (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",message="an operator of a selector is In or NotIn, with values, or Exists or DoesNotExist, without"
type AllowedCallers struct {
	// from is Same (this namespace), Selector (namespaces whose labels match selector) or All.
	// +required
	From NamespacesFrom `json:"from,omitempty"`

	// selector chooses namespaces by their labels. Required with from: Selector.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// CallDefaults are what callers of a channel should use. They reach callers by injection.
// +kubebuilder:validation:MinProperties=1
type CallDefaults struct {
	// timeoutSeconds is the deadline of a call that names none, 1 to 43200. Unset: 30.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=43200
	TimeoutSeconds *int32 `json:"timeoutSeconds,omitempty"`

	// maxAttempts is how often a call may be sent where a retry is safe, 1 to 10. Unset: the client's default.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=10
	MaxAttempts *int32 `json:"maxAttempts,omitempty"`
}

// Binding asks for a Secret as a Provisioned Service of servicebinding.io offers it.
type Binding struct {
	// secretName is the Secret to write, in this namespace, of type servicebinding.io/sqs and with the entries type (sqs),
	// provider (aws), uri (the queue's URL), region and arn. It holds no credentials. A Secret of that name that exists and
	// is not this channel's stalls the channel, and is left as it is.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	SecretName string `json:"secretName,omitempty"`
}

// RequestChannelSpec says what the request queue should be.
// +kubebuilder:validation:XValidation:rule="has(self.fifo) == has(oldSelf.fifo)",message="fifo cannot be added or removed: SQS cannot change a queue's type. Create another RequestChannel"
// +kubebuilder:validation:XValidation:rule="has(self.queueName) == has(oldSelf.queueName)",message="queueName cannot be added or removed: create another RequestChannel"
// +kubebuilder:validation:XValidation:rule="has(self.providerRef) == has(oldSelf.providerRef)",message="providerRef cannot be added or removed: create another RequestChannel"
// +kubebuilder:validation:XValidation:rule="!has(self.queueName) || self.queueName.endsWith('.fifo') == has(self.fifo)",message="queueName ends in .fifo exactly when fifo is set"
// +kubebuilder:validation:XValidation:rule="!has(self.deadLetter) || !has(self.deadLetter.arn) || self.deadLetter.arn.endsWith('.fifo') == has(self.fifo)",message="the dead-letter queue of a FIFO queue is a FIFO queue, and of a standard queue a standard queue"
// +kubebuilder:validation:XValidation:rule="!has(self.managementPolicy) || self.managementPolicy != 'Observe' || !has(self.deletionPolicy) || self.deletionPolicy == 'Retain'",message="an observed queue is never deleted: leave deletionPolicy unset, or set it to Retain"
type RequestChannelSpec struct {
	// queueName is the name of the queue in SQS, within the patterns its QueueProvider allows. Immutable.
	// Unset: <prefix>_<cluster>_<namespace>_<name>, cut to SQS's 80 characters with a hash.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=80
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9_-]+(\.fifo)?$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="queueName is immutable: create another RequestChannel"
	QueueName string `json:"queueName,omitempty"`

	// fifo makes it a FIFO queue; {} takes AWS's defaults. It cannot be added or removed later. Unset: a
	// standard queue.
	// +optional
	FIFO *FIFO `json:"fifo,omitempty"`

	// queue holds the queue's attributes. Unset: AWS's defaults.
	// +optional
	// +nullable
	Queue *QueueAttributes `json:"queue,omitempty"` //nolint:kubeapilinter // Server-side apply leaves null where an object is applied empty.

	// encryption is the queue's server-side encryption. Unset: the queue is created with AWS's default, keys that SQS owns,
	// and unsetting restores it; what someone else sets on the queue while this is unset stays.
	// +optional
	Encryption *Encryption `json:"encryption,omitempty"`

	// deadLetter says where requests go that were received too often. Unset: they are retried until they expire. When it
	// is taken out, requests are no longer moved; a dead-letter queue made for this channel stays, with what is in it,
	// until the channel is deleted.
	// +optional
	DeadLetter *DeadLetter `json:"deadLetter,omitempty"`

	// deadLettersFrom says which queues may have this channel's queue as their dead-letter queue (SQS's RedriveAllowPolicy).
	// It is not about the dead-letter queue made by spec.deadLetter.queue, which takes from this channel alone.
	// Unset: AWS's default, any queue of the account and region, and unsetting restores that; what someone else sets on the
	// queue while this is unset stays.
	// +optional
	DeadLettersFrom *DeadLettersFrom `json:"deadLettersFrom,omitempty"`

	// policy is the queue's access policy as JSON, where its QueueProvider allows policies. It is compared by
	// meaning, not by text. Unset: none is set, and unsetting removes the one that was, so that only the account's own
	// identities with permission reach the queue; one that someone else puts on the queue while this is unset stays.
	// +optional
	// +kubebuilder:validation:MinLength=2
	// +kubebuilder:validation:MaxLength=8192
	Policy string `json:"policy,omitempty"`

	// tags are put on the queue, and on its dead-letter queue, beside the operator's own and over the provider's default
	// tags: at most 40, with keys of 1 to 128 and values of at most 256 characters, of letters and digits of any script,
	// spaces and _ . : / = + - @. Keys are case-sensitive, and refused where they start, in whatever case, with aws:,
	// replyqueue.dev/, kubernetes-, __AmazonSQS or __IdleQueue. Taking one out removes it; tags that others put there are
	// left alone. AWS advises at most 50 on a queue, of which up to six are the operator's own. Unset: none.
	// +optional
	// +nullable
	Tags Tags `json:"tags,omitempty"` //nolint:kubeapilinter // Server-side apply leaves null where an object is applied empty.

	// extraAttributes are SQS attributes that have no field here yet, by their SQS names. Unsetting one restores what the
	// queue had before it was set here; one that was given when the queue was created stays as it is, and an event says
	// so, since SQS tells nobody what its default would have been.
	// +optional
	// +nullable
	// +kubebuilder:validation:MaxProperties=20
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(k) <= 100 && k.matches('^[A-Za-z][A-Za-z0-9]*$'))",message="an attribute's name is letters and digits, at most 100"
	// +kubebuilder:validation:XValidation:rule="self.all(k, size(self[k]) <= 1024)",message="an attribute's value is at most 1024 characters long"
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('ApproximateNumberOfMessages') && !k.startsWith('Redrive') && !k.contains('Policy') && !k.contains('Policies') && !(k in ['All', 'CreatedTimestamp', 'LastModifiedTimestamp', 'VisibilityTimeout', 'MessageRetentionPeriod', 'MaximumMessageSize', 'ReceiveMessageWaitTimeSeconds', 'DelaySeconds', 'FifoQueue', 'ContentBasedDeduplication', 'DeduplicationScope', 'FifoThroughputLimit', 'KmsMasterKeyId', 'KmsDataKeyReusePeriodSeconds', 'SqsManagedSseEnabled', 'QueueArn']))",message="this attribute has a field of its own in the spec, says who may use the queue or where messages go, or cannot be set"
	ExtraAttributes map[string]string `json:"extraAttributes,omitempty"` //nolint:kubeapilinter // Server-side apply leaves null where an object is applied empty.

	// allowedCallers says from which namespaces pods may call this channel. Unset: this namespace.
	// +optional
	AllowedCallers *AllowedCallers `json:"allowedCallers,omitempty"`

	// call holds what callers should use. Unset: the client's defaults.
	// +optional
	Call *CallDefaults `json:"call,omitempty"`

	// providerRef names the QueueProvider (account, region, endpoint). All channels that a pod calls or serves, and its ReplyHost, must
	// be in one account and region and at one endpoint; else the pod waits. Immutable. Unset: the operator's own environment.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="providerRef is immutable: create another RequestChannel"
	ProviderRef *ProviderReference `json:"providerRef,omitempty"`

	// deletionPolicy says what becomes of the queue when this object is deleted: Delete (with its messages), Retain (left
	// without ownership tags, free to be adopted) or DeleteIfEmpty (the deletion waits until the queue and its dead-letter
	// queue are empty, and says how many messages there are). Unset: Delete what was created, Retain what was adopted, and with
	// an adopted queue the dead-letter queue that was created beside it, which it goes on naming.
	// +optional
	DeletionPolicy DeletionPolicy `json:"deletionPolicy,omitempty"`

	// adoptionPolicy says whether an existing queue may be taken over: Never, or IfConsented, if its owner tagged it in AWS
	// replyqueue.dev/adoptable-by=<cluster>/<namespace>. While that names another cluster, the operator of the one that has the
	// queue neither changes nor deletes it. Unset: Never.
	// +optional
	AdoptionPolicy AdoptionPolicy `json:"adoptionPolicy,omitempty"`

	// managementPolicy is Manage, or Observe to only read, and never write to or delete, a queue whose owner tagged it in
	// AWS replyqueue.dev/shared-with=<cluster>/<namespace>, of which there may be several with spaces between them, or
	// replyqueue.dev/adoptable-by. Unset: Manage.
	// +optional
	ManagementPolicy ManagementPolicy `json:"managementPolicy,omitempty"`

	// suspend stops the operator from comparing and writing the queue while true: what someone changes on it stays. Nor does it look
	// whether a queue of the channel's own is another's by now; whoever takes one over has to know whether its channel is suspended.
	// Deletion still runs, and the Secret of binding is still written and removed. Unset: false.
	// +optional
	Suspend *bool `json:"suspend,omitempty"` //nolint:kubeapilinter // The field is a boolean wherever GitOps users meet it.

	// binding asks for a Secret with the queue's coordinates, for workloads that are not injected: the channel is then a
	// Provisioned Service of servicebinding.io, and a ServiceBinding can name it. The Secret goes with the channel,
	// when this is unset, also while suspend is true, and while the channel's queue is another's or is not there. Unset: none.
	// +optional
	Binding *Binding `json:"binding,omitempty"`
}

// ResponderCounts counts the pods that serve a channel.
type ResponderCounts struct {
	// total is the number of pods that name the channel in replyqueue.dev/serves and opted in by the label
	// replyqueue.dev/inject. Whoever serves it by other means, as by the Secret of spec.binding, is not counted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Total *int32 `json:"total,omitempty"`

	// ready is how many of them are Ready.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Ready *int32 `json:"ready,omitempty"`
}

// BindingStatus names the Secret of a Provisioned Service.
type BindingStatus struct {
	// name of the Secret, in this namespace.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`
}

// OriginalAttribute is what an attribute of a queue was before it was set.
type OriginalAttribute struct {
	// name of the attribute, as SQS calls it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=100
	Name string `json:"name,omitempty"`

	// value that it had.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8192
	Value string `json:"value,omitempty"`
}

// ShownAttribute is an attribute that SQS shows otherwise than it was set.
type ShownAttribute struct {
	// name of the attribute, as SQS calls it.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=100
	Name string `json:"name,omitempty"`

	// value that it was set to.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Value string `json:"value,omitempty"`

	// shown is how SQS shows it. Unset: not at all.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=8192
	Shown string `json:"shown,omitempty"`
}

// OfferedQueue is a queue that its tag replyqueue.dev/adoptable-by offers to another cluster.
type OfferedQueue struct {
	// name of the queue.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=80
	Name string `json:"name,omitempty"`

	// to is whom the tag names: <cluster>/<namespace>.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	To string `json:"to,omitempty"`

	// withdrawnTime is when the queue was first seen without that tag, or with other ownership tags than this channel's. It is left alone
	// for two minutes more, until SQS surely shows whether it was taken over.
	// +optional
	WithdrawnTime *metav1.Time `json:"withdrawnTime,omitempty"`
}

// RequestChannelStatus says what the request queue is.
// +kubebuilder:validation:MinProperties=1
type RequestChannelStatus struct {
	// conditions are Ready, and Reconciling or Stalled while true, and QueueReady, DeadLetterReady, BindingReady, Drifted.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that this status describes; -1: the operator has not seen it yet.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration *int64 `json:"observedGeneration,omitempty"`

	// queueURL is where requests are sent.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	QueueURL string `json:"queueURL,omitempty"`

	// queueARN is the queue's ARN.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	QueueARN string `json:"queueARN,omitempty"`

	// accountID is the AWS account that holds the queue: the one in its URL.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32
	AccountID string `json:"accountID,omitempty"`

	// region is the AWS region that holds the queue: the one of its QueueProvider. A server that is not AWS's may name another in
	// the ARN.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Region string `json:"region,omitempty"`

	// deadLetterQueueURL is the URL of the dead-letter queue that the operator created for this channel. It stays, with what
	// is in it, when spec.deadLetter no longer asks for it.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	DeadLetterQueueURL string `json:"deadLetterQueueURL,omitempty"`

	// deadLetterQueueARN is the ARN of that queue. It is written before the queue is created, and deadLetterQueueURL when it
	// exists.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	DeadLetterQueueARN string `json:"deadLetterQueueARN,omitempty"`

	// deadLetterTargetARN is the ARN of the queue that requests received too often are moved to now: the one above, another
	// channel's, or the one that spec.deadLetter.arn names. Unset: they are not moved.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	DeadLetterTargetARN string `json:"deadLetterTargetARN,omitempty"`

	// adopted is true when the queue existed before this channel took it over.
	// +optional
	Adopted *bool `json:"adopted,omitempty"` //nolint:kubeapilinter // A fact with two values, never to grow a third.

	// appliedAttributes are the names of the attributes that were last set, so that unsetting one restores
	// AWS's default. While a change of the spec is carried out, they are the old ones and the new ones.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=80
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=100
	AppliedAttributes []string `json:"appliedAttributes,omitempty"`

	// originalAttributes are what attributes without a field of their own were before spec.extraAttributes set them, so
	// that unsetting one restores it.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=20
	OriginalAttributes []OriginalAttribute `json:"originalAttributes,omitempty"`

	// shownAttributes are those of spec.extraAttributes that SQS shows in another form than the one they were set in. Shown so, they
	// are as asked for.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=20
	ShownAttributes []ShownAttribute `json:"shownAttributes,omitempty"`

	// appliedTags are the keys of the tags that were last set, so that removing one from the spec removes it
	// from the queue while foreign tags stay. While a change of the spec or of the provider's default tags is carried
	// out, they are the old ones and the new ones.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=160
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=128
	AppliedTags []string `json:"appliedTags,omitempty"`

	// appliedTerms is a digest of what the queues were last brought to: the spec together with the terms of the provider,
	// its default tags among them. It tells a change of those from a change that someone else made.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	AppliedTerms string `json:"appliedTerms,omitempty"`

	// offered are the queues of this channel that are offered to another cluster, or were a moment ago. They are neither changed nor
	// deleted.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=2
	Offered []OfferedQueue `json:"offered,omitempty"`

	// responders counts the pods that serve this channel.
	// +optional
	Responders *ResponderCounts `json:"responders,omitempty"`

	// lastWriteTime is when an attribute or a tag of the queue, or of its dead-letter queue, was last written. No drift verdict falls on
	// it until SQS has propagated it.
	// +optional
	LastWriteTime *metav1.Time `json:"lastWriteTime,omitempty"`

	// lastDriftTime is when the queue, or its dead-letter queue, was last found to differ from the spec.
	// +optional
	LastDriftTime *metav1.Time `json:"lastDriftTime,omitempty"`

	// lastHandledReconcileAt is the last value of the annotation replyqueue.dev/reconcile-at that was handled.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	LastHandledReconcileAt string `json:"lastHandledReconcileAt,omitempty"`

	// binding names the Secret with the queue's coordinates, while there is one.
	// +optional
	Binding *BindingStatus `json:"binding,omitempty"`
}

// RequestChannel is one request queue in SQS, its dead-letter queue and its policy. Requesters send to it,
// responders answer from it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=rch,categories=replyqueue
// +kubebuilder:metadata:labels="servicebinding.io/provisioned-service=true"
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Responders",type=integer,JSONPath=`.status.responders.ready`
// +kubebuilder:printcolumn:name="Queue URL",type=string,JSONPath=`.status.queueURL`,priority=1
// +kubebuilder:printcolumn:name="Provider",type=string,JSONPath=`.spec.providerRef.name`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name must be a DNS label: at most 63 lower-case letters, digits and hyphens (no dots)"
// +kubebuilder:validation:XValidation:rule="!has(self.spec.deadLettersFrom) || !has(self.spec.deadLettersFrom.channels) || !self.spec.deadLettersFrom.channels.exists(c, c.name == self.metadata.name)",message="a channel cannot be its own dead-letter queue: name others in spec.deadLettersFrom"
type RequestChannel struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says what the request queue should be; {} is a standard queue with AWS's defaults.
	// +optional
	// +kubebuilder:default:={}
	Spec RequestChannelSpec `json:"spec"` //nolint:kubeapilinter // Server-side apply leaves null where a spec is applied empty.

	// status says what it is.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status RequestChannelStatus `json:"status,omitzero"` //nolint:kubeapilinter // It says that nobody has seen the object, and is no setting.
}

// RequestChannelList is a list of RequestChannels.
// +kubebuilder:object:root=true
type RequestChannelList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items are the RequestChannels.
	Items []RequestChannel `json:"items"`
}
