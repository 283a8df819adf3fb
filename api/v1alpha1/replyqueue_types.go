package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// HeartbeatMode says which signal shows that a reply queue has a reader.
// +kubebuilder:validation:Enum=Lease;Pod
type HeartbeatMode string

const (
	// HeartbeatLease: the application renews a Lease named by its pod's UID.
	HeartbeatLease HeartbeatMode = "Lease"
	// HeartbeatPod: the pod itself, as the kubelet and the node controller report it.
	HeartbeatPod HeartbeatMode = "Pod"
)

// ReplyQueueState is where a reply queue is in its life. It only moves forward.
// +kubebuilder:validation:Enum=Provisioning;Active;Draining;Closing;Failed
type ReplyQueueState string

const (
	// ReplyQueueProvisioning: the record is written, the queue in SQS is not there yet.
	ReplyQueueProvisioning ReplyQueueState = "Provisioning"
	// ReplyQueueActive: the queue exists and is handed to its pod.
	ReplyQueueActive ReplyQueueState = "Active"
	// ReplyQueueDraining: the pod is gone; the queue waits for late replies.
	ReplyQueueDraining ReplyQueueState = "Draining"
	// ReplyQueueClosing: the queue is closed for ever, and its deletion in SQS is under way.
	ReplyQueueClosing ReplyQueueState = "Closing"
	// ReplyQueueFailed: SQS refuses to create the queue; it is tried again slowly.
	ReplyQueueFailed ReplyQueueState = "Failed"
)

// CloseReason says why a reply queue was closed.
// +kubebuilder:validation:Enum=Idle;PodStopped;PodGone;NameAbsent;QueueMissing
type CloseReason string

const (
	// CloseIdle: the application sent no heartbeat for the idle retention while its pod lives.
	CloseIdle CloseReason = "Idle"
	// ClosePodStopped: the kubelet reported every container terminated, and the drain is over.
	ClosePodStopped CloseReason = "PodStopped"
	// ClosePodGone: the pod is gone without such a report, and the safe time is over.
	ClosePodGone CloseReason = "PodGone"
	// CloseNameAbsent: no pod of that name was seen for the idle retention (identity Stable).
	CloseNameAbsent CloseReason = "NameAbsent"
	// CloseQueueMissing: the queue was deleted in SQS by someone else. A pod that lives gets another record.
	CloseQueueMissing CloseReason = "QueueMissing"
)

// CountedOf says what is counted of a reply queue.
// +kubebuilder:validation:Enum=Silence;Absence
type CountedOf string

const (
	// CountedSilence: the pod is there, and its application sends no heartbeat.
	CountedSilence CountedOf = "Silence"
	// CountedAbsence: the pod is gone, and with identity Stable there is no other of its name.
	CountedAbsence CountedOf = "Absence"
)

// PodReference names one pod.
type PodReference struct {
	// name of the pod.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name,omitempty"`

	// uid of the pod. With identity Stable it is the pod for which the queue was created; status.podUID follows.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	UID string `json:"uid,omitempty"`
}

// HostReference names the ReplyHost that a record was made by.
type HostReference struct {
	// name of the ReplyHost, in the same namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Name string `json:"name,omitempty"`
}

// ReplyQueueSpec is everything the operator needs to create, and later to delete, one reply queue, fixed when
// the record is written. Retention, interval and drain are the ReplyHost's of that moment, used once it is gone.
type ReplyQueueSpec struct {
	// hostRef names the ReplyHost.
	// +required
	HostRef HostReference `json:"hostRef,omitzero"`

	// podRef names the pod.
	// +required
	PodRef PodReference `json:"podRef,omitzero"`

	// identity is the ReplyHost's.
	// +required
	Identity Identity `json:"identity,omitempty"`

	// heartbeat is the pod's mode.
	// +required
	Heartbeat HeartbeatMode `json:"heartbeat,omitempty"`

	// providerRef names the QueueProvider; "default" is the operator's own environment.
	// +required
	ProviderRef ProviderReference `json:"providerRef,omitzero"`

	// attributes are those the queue is created with, by their SQS names.
	// +optional
	// +kubebuilder:validation:MaxProperties=40
	Attributes map[string]string `json:"attributes,omitempty"`

	// tags are those the ReplyHost asked for.
	// +optional
	Tags Tags `json:"tags,omitempty"`

	// heartbeatIntervalSeconds is the ReplyHost's interval at that moment.
	// +required
	// +kubebuilder:validation:Minimum=1
	HeartbeatIntervalSeconds int32 `json:"heartbeatIntervalSeconds,omitempty"`

	// idleRetentionSeconds is the ReplyHost's at that moment.
	// +required
	// +kubebuilder:validation:Minimum=1
	IdleRetentionSeconds int32 `json:"idleRetentionSeconds,omitempty"`

	// drainSeconds is the ReplyHost's at that moment.
	// +required
	// +kubebuilder:validation:Minimum=0
	DrainSeconds *int32 `json:"drainSeconds,omitempty"`
}

// Closing says why and when a reply queue was closed. It is never taken back.
type Closing struct {
	// reason is Idle, PodStopped, PodGone, NameAbsent or QueueMissing.
	// +required
	Reason CloseReason `json:"reason,omitempty"`

	// message says it in words.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Message string `json:"message,omitempty"`

	// time is when it was decided.
	// +required
	Time metav1.Time `json:"time,omitzero"`
}

// Counted is for how long a reply queue had no reader, as far as that was noted. Each leader adds what it counts by its own
// clock while its view of the cluster has no gap; no clocks are compared.
type Counted struct {
	// of is Silence or Absence.
	// +required
	Of CountedOf `json:"of,omitempty"`

	// reader stands for the pod that read the queue, its container and its last heartbeat. What was counted of another
	// reader is void.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Reader string `json:"reader,omitempty"`

	// seconds that were counted.
	// +required
	// +kubebuilder:validation:Minimum=0
	Seconds *int32 `json:"seconds,omitempty"`
}

// ReplyQueueStatus is where the reply queue is in its life.
// +kubebuilder:validation:MinProperties=1
// +kubebuilder:validation:XValidation:rule="!has(oldSelf.closing) || (has(self.closing) && self.closing == oldSelf.closing)",message="closing is irreversible: a closed reply queue is never opened again"
type ReplyQueueStatus struct {
	// conditions are Ready, and Reconciling or Stalled while true, and InUse.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that this status describes.
	// +optional
	// +kubebuilder:validation:Minimum=0
	ObservedGeneration *int64 `json:"observedGeneration,omitempty"`

	// state is Provisioning, Active, Draining, Closing or Failed.
	// +optional
	State ReplyQueueState `json:"state,omitempty"`

	// queueURL is where replies are sent. What is deleted is computed from this record's UID, never read from here.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	QueueURL string `json:"queueURL,omitempty"`

	// podUID is the pod that reads the queue now; with identity Stable it follows the name's pods.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	PodUID string `json:"podUID,omitempty"`

	// counted is for how long the queue had no reader, noted now and then where it is kept for longer than an operator may
	// live, so that the next leader goes on from there.
	// +optional
	Counted *Counted `json:"counted,omitempty"`

	// closingIDHash is set before the pod's Lease is marked closing: the SHA-256 of an ID that is written to the Lease with
	// that mark, and nowhere before. A mark without that ID is not the operator's, and closes nothing.
	// +optional
	// +kubebuilder:validation:MinLength=64
	// +kubebuilder:validation:MaxLength=64
	ClosingIDHash string `json:"closingIDHash,omitempty"`

	// closing is set once, before the queue is deleted in SQS.
	// +optional
	Closing *Closing `json:"closing,omitempty"`
}

// ReplyQueue is the record of exactly one reply queue in SQS. The operator alone writes it, before the queue is
// created, so that no crash can leak one. To be rid of a reply queue, delete its pod or its ReplyHost.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=rq,categories=replyqueue
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.hostRef.name`
// +kubebuilder:printcolumn:name="Pod",type=string,JSONPath=`.spec.podRef.name`
// +kubebuilder:printcolumn:name="Closed",type=string,JSONPath=`.status.closing.reason`
// +kubebuilder:printcolumn:name="Heartbeat",type=string,JSONPath=`.spec.heartbeat`,priority=1
// +kubebuilder:printcolumn:name="Queue URL",type=string,JSONPath=`.status.queueURL`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ReplyQueue struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec is what the queue was made from. Immutable.
	// +required
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="a ReplyQueue is a record and immutable"
	Spec ReplyQueueSpec `json:"spec,omitzero"`

	// status is where the queue is in its life.
	// +optional
	Status ReplyQueueStatus `json:"status,omitzero"`
}

// ReplyQueueList is a list of ReplyQueues.
// +kubebuilder:object:root=true
type ReplyQueueList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items are the ReplyQueues.
	Items []ReplyQueue `json:"items"`
}
