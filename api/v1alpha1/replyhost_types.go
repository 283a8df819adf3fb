package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Identity says what a reply queue belongs to.
// +kubebuilder:validation:Enum=Pod;Stable
type Identity string

const (
	// IdentityPod: one queue for each pod UID, gone with the pod.
	IdentityPod Identity = "Pod"
	// IdentityStable: one queue for each name of a StatefulSet's pod; it survives the pod's replacement.
	IdentityStable Identity = "Stable"
)

// What a ReplyHost means where it says nothing.
const (
	// DefaultHeartbeatIntervalSeconds is how often an application renews its Lease.
	DefaultHeartbeatIntervalSeconds = 60
	// DefaultIdleRetentionSeconds is how long a queue outlives the last heartbeat.
	DefaultIdleRetentionSeconds = 600
	// DefaultDrainSeconds is how long a queue outlives its stopped pod, so that late replies find it.
	DefaultDrainSeconds = 30
	// DefaultReplyRetentionSeconds is how long a reply waits for its reader: a reply that nobody read in
	// five minutes has no reader.
	DefaultReplyRetentionSeconds = 300
)

// ReplyQueueAttributes are the attributes of reply queues. Reply queues are always standard queues.
type ReplyQueueAttributes struct {
	// visibilityTimeoutSeconds hides a received reply for this long, 0 to 43200. rpcclient names its own.
	// Unset: AWS's default, 30.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=43200
	VisibilityTimeoutSeconds *int32 `json:"visibilityTimeoutSeconds,omitempty"`

	// messageRetentionSeconds is how long SQS keeps a reply nobody read, 60 to 1209600. Unset: 300 with identity
	// Pod, and idleRetentionSeconds with identity Stable.
	// +optional
	// +kubebuilder:validation:Minimum=60
	// +kubebuilder:validation:Maximum=1209600
	MessageRetentionSeconds *int32 `json:"messageRetentionSeconds,omitempty"`

	// maximumMessageBytes is the largest reply accepted, with its attributes, 1024 to 1048576. Unset: AWS's
	// default, 1048576.
	// +optional
	// +kubebuilder:validation:Minimum=1024
	// +kubebuilder:validation:Maximum=1048576
	MaximumMessageBytes *int32 `json:"maximumMessageBytes,omitempty"`

	// receiveWaitSeconds is how long a receive that names no wait waits for a reply, 0 to 20. rpcclient names its
	// own. Unset: AWS's default, 0.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=20
	ReceiveWaitSeconds *int32 `json:"receiveWaitSeconds,omitempty"`
}

// HeartbeatPolicy says how an application shows that it still reads its reply queue.
// +kubebuilder:validation:MinProperties=1
type HeartbeatPolicy struct {
	// intervalSeconds is the time between two heartbeats, 1 to 3600. Pods that already run learn a change with
	// their next heartbeat. Unset: 60.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=3600
	IntervalSeconds *int32 `json:"intervalSeconds,omitempty"`
}

// ReplyHostSpec is a rule for the reply queues of the pods that name the ReplyHost.
// +kubebuilder:validation:XValidation:rule="(has(self.identity) ? self.identity : 'Pod') == (has(oldSelf.identity) ? oldSelf.identity : 'Pod')",message="identity is immutable: create another ReplyHost"
// +kubebuilder:validation:XValidation:rule="has(self.providerRef) == has(oldSelf.providerRef)",message="providerRef cannot be added or removed: create another ReplyHost"
// +kubebuilder:validation:XValidation:rule="(has(self.idleRetentionSeconds) ? self.idleRetentionSeconds : 600) >= 5 * (has(self.heartbeat) && has(self.heartbeat.intervalSeconds) ? self.heartbeat.intervalSeconds : 60)",message="idleRetentionSeconds (600 when unset) must be at least five times heartbeat.intervalSeconds (60 when unset), so that one lost heartbeat closes nothing"
// +kubebuilder:validation:XValidation:rule="!(has(self.identity) && self.identity == 'Stable') || !has(self.queue) || !has(self.queue.messageRetentionSeconds) || self.queue.messageRetentionSeconds >= (has(self.idleRetentionSeconds) ? self.idleRetentionSeconds : 600)",message="with identity Stable, queue.messageRetentionSeconds must be at least idleRetentionSeconds (600 when unset): replies must live as long as the queue waits for its reader"
type ReplyHostSpec struct {
	// identity is Pod (one queue for each pod, gone with it) or Stable (one queue for each pod name of a
	// StatefulSet, which survives the pod's replacement). Immutable. Unset: Pod.
	// +optional
	Identity Identity `json:"identity,omitempty"`

	// queue holds the attributes of the reply queues. A change applies to queues created afterwards. Unset: AWS's
	// defaults, with a message retention of 300 seconds.
	// +optional
	// +nullable
	Queue *ReplyQueueAttributes `json:"queue,omitempty"` //nolint:kubeapilinter // Server-side apply leaves null where an object is applied empty.

	// encryption is the server-side encryption of the reply queues. Unset: AWS's default, keys that SQS owns.
	// +optional
	Encryption *Encryption `json:"encryption,omitempty"`

	// tags are put on the reply queues beside the operator's own and over the provider's default tags: at most 40, with keys
	// of 1 to 128 and values of at most 256 characters, of letters and digits of any script, spaces and _ . : / = + - @. Keys
	// are case-sensitive, and refused where they start, in whatever case, with aws:, replyqueue.dev/, kubernetes-,
	// __AmazonSQS or __IdleQueue. AWS advises at most 50 on a queue, the operator's own included. Unset: none.
	// +optional
	// +nullable
	Tags Tags `json:"tags,omitempty"` //nolint:kubeapilinter // Server-side apply leaves null where an object is applied empty.

	// providerRef names the QueueProvider (account, region, endpoint). The channels that its pods call or serve must be in the same
	// account and region and at the same endpoint; else they wait. Immutable. Unset: the operator's own environment.
	// +optional
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="providerRef is immutable: create another ReplyHost"
	ProviderRef *ProviderReference `json:"providerRef,omitempty"`

	// heartbeat says how often applications renew their Lease. Unset: every 60 seconds.
	// +optional
	Heartbeat *HeartbeatPolicy `json:"heartbeat,omitempty"`

	// idleRetentionSeconds is how long a reply queue is kept after the last heartbeat (identity Pod), or after
	// the pod's name was last seen (identity Stable), 5 to 1209600, and at least five heartbeats. Unset: 600.
	// +optional
	// +kubebuilder:validation:Minimum=5
	// +kubebuilder:validation:Maximum=1209600
	IdleRetentionSeconds *int32 `json:"idleRetentionSeconds,omitempty"`

	// drainSeconds is how long a reply queue is kept after its pod's containers stopped, so that late replies
	// are counted as delivered by their senders, 0 to 3600. Unset: 30.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=3600
	DrainSeconds *int32 `json:"drainSeconds,omitempty"`

	// maxQueues guards against a runaway workload, 1 to 100000: pods beyond it stay gated, with an event.
	// Unset: no limit.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100000
	MaxQueues *int32 `json:"maxQueues,omitempty"`
}

// ReplyQueueCounts counts a ReplyHost's reply queues by state.
type ReplyQueueCounts struct {
	// total is the number of records.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Total *int32 `json:"total,omitempty"`
	// active is how many are in use.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Active *int32 `json:"active,omitempty"`
	// idle is how many were closed because their application fell silent while its pod lives.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Idle *int32 `json:"idle,omitempty"`
	// draining is how many outlive a pod that is gone, or are being deleted.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Draining *int32 `json:"draining,omitempty"`
	// failed is how many could not be created.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Failed *int32 `json:"failed,omitempty"`
}

// ReplyHostStatus sums up a ReplyHost's reply queues.
// +kubebuilder:validation:MinProperties=1
type ReplyHostStatus struct {
	// conditions are Ready, and Reconciling or Stalled while true, and InUse, HeartbeatOutage,
	// HeartbeatsUnguarded.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that this status describes; -1: the operator has not seen it yet.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration *int64 `json:"observedGeneration,omitempty"`

	// queues counts the reply queues by state.
	// +optional
	Queues *ReplyQueueCounts `json:"queues,omitempty"`
}

// ReplyHost gives each pod that names it a private reply queue, and says when that queue goes.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=rph,categories=replyqueue
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Identity",type=string,JSONPath=`.spec.identity`,priority=1
// +kubebuilder:printcolumn:name="Total",type=integer,JSONPath=`.status.queues.total`
// +kubebuilder:printcolumn:name="Active",type=integer,JSONPath=`.status.queues.active`
// +kubebuilder:printcolumn:name="Idle",type=integer,JSONPath=`.status.queues.idle`
// +kubebuilder:printcolumn:name="Draining",type=integer,JSONPath=`.status.queues.draining`
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="size(self.metadata.name) <= 63 && self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",message="the name must be a DNS label: at most 63 lower-case letters, digits and hyphens (no dots)"
type ReplyHost struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is the rule for the reply queues; {} takes the defaults.
	// +optional
	// +kubebuilder:default:={}
	Spec ReplyHostSpec `json:"spec"` //nolint:kubeapilinter // Server-side apply leaves null where a spec is applied empty.

	// status sums up the reply queues.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status ReplyHostStatus `json:"status,omitzero"` //nolint:kubeapilinter // It says that nobody has seen the object, and is no setting.
}

// ReplyHostList is a list of ReplyHosts.
// +kubebuilder:object:root=true
type ReplyHostList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items are the ReplyHosts.
	Items []ReplyHost `json:"items"`
}
