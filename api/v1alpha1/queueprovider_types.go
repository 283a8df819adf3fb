package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// ProviderNamespaces says which namespaces may use a QueueProvider.
// +kubebuilder:validation:XValidation:rule="self.from != 'Same'",message="a QueueProvider has no namespace: from is All or Selector"
// +kubebuilder:validation:XValidation:rule="(self.from == 'Selector') == has(self.selector)",message="selector is required with from: Selector, and refused with any other"
// +kubebuilder:validation:XValidation:rule="!has(self.selector) || !has(self.selector.matchExpressions) || self.selector.matchExpressions.all(e, e.operator in ['In', 'NotIn', 'Exists', 'DoesNotExist'] && (e.operator in ['In', 'NotIn']) == (has(e.values) && size(e.values) > 0))",message="an operator of a selector is In or NotIn, with values, or Exists or DoesNotExist, without"
type ProviderNamespaces struct {
	// from is Selector (namespaces whose labels match selector) or All.
	// +required
	From NamespacesFrom `json:"from,omitempty"`

	// selector chooses namespaces by their labels. Required with from: Selector.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// QueueProviderSpec says where queues are made, and who may ask for them.
// +kubebuilder:validation:XValidation:rule="has(self.region) == has(oldSelf.region) && has(self.namePrefix) == has(oldSelf.namePrefix) && has(self.endpoint) == has(oldSelf.endpoint) && has(self.roleARN) == has(oldSelf.roleARN)",message="region, endpoint, roleARN and namePrefix cannot be added or removed: existing queues would be lost sight of. Create another QueueProvider"
type QueueProviderSpec struct {
	// region is the AWS region. Immutable. Unset: the operator's own.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-z0-9-]+$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="region is immutable: create another QueueProvider"
	Region string `json:"region,omitempty"`

	// endpoint is the URL of the SQS API, where it is not AWS's own for the region (a VPC endpoint, or another
	// server that speaks SQS). Pods are told of it. Immutable. Unset: AWS's.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="endpoint is immutable, since queues made at the old one would be lost sight of: create another QueueProvider"
	// +kubebuilder:validation:XValidation:rule="isURL(self) && (url(self).getScheme() == 'https' || url(self).getScheme() == 'http')",message="endpoint must be an http or https URL"
	Endpoint string `json:"endpoint,omitempty"`

	// roleARN is an IAM role that the operator assumes for this provider. Immutable, since another role may mean another
	// account. Unset: its own credentials.
	// +optional
	// +kubebuilder:validation:MinLength=20
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:Pattern=`^arn:[a-z0-9-]+:iam::[0-9]{12}:role/.+$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="roleARN is immutable, since queues made under the old one would be lost sight of: create another QueueProvider"
	RoleARN string `json:"roleARN,omitempty"`

	// namePrefix is the first part of every queue name made here. Responders that ran in this account and region before this
	// QueueProvider was written refuse callers with a reply queue of another prefix than they know, until they are replaced.
	// Immutable. Unset: the operator's prefix.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=16
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9-]+$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="namePrefix is immutable: create another QueueProvider"
	NamePrefix string `json:"namePrefix,omitempty"`

	// defaultTags are put on every queue made here, under the tags that a channel or host asks for: at most 40, with keys of 1
	// to 128 and values of at most 256 characters, of letters and digits of any script, spaces and _ . : / = + - @. Keys are
	// case-sensitive, and refused where they start, in whatever case, with aws:, replyqueue.dev/, kubernetes-, __AmazonSQS or
	// __IdleQueue. AWS advises at most 50 on a queue, those of channels and hosts and the operator's own included. Unset: none.
	// +optional
	// +nullable
	DefaultTags Tags `json:"defaultTags,omitempty"` //nolint:kubeapilinter // Server-side apply leaves null where an object is applied empty.

	// allowedQueueNames are the patterns within which spec.queueName of a RequestChannel may choose: letters,
	// digits, hyphens and underscores, * for any run of them, and ${namespace} for the channel's namespace. An underscore
	// must stand between ${namespace} and a *, which may be on one side of it only: ${namespace}_* is good, and ${namespace}-*
	// is refused, since by a-* namespace a would reach what belongs to namespace a-b. Unset: none, and spec.queueName is
	// refused.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=50
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=160
	// +kubebuilder:validation:items:Pattern=`^([A-Za-z0-9_*-]|\$\{namespace\})+(\.fifo)?$`
	// +kubebuilder:validation:XValidation:rule="self.all(p, !p.matches('[*][^_]*[$][{]namespace[}]|[$][{]namespace[}][^_]*[*]|[*].*[$][{]namespace[}].*[*]'))",message="between ${namespace} and a * there must be an underscore, which no namespace's name has, and a * may be on one side of it only: by ${namespace}-*, namespace a would reach what belongs to namespace a-b"
	AllowedQueueNames []string `json:"allowedQueueNames,omitempty"`

	// allowPolicies lets RequestChannels set spec.policy while true. A queue's policy can open it to other
	// accounts. A policy that was set while it was true stays on its queue, and the channel says so, until spec.policy is
	// taken out of it. Unset: false.
	// +optional
	AllowPolicies *bool `json:"allowPolicies,omitempty"` //nolint:kubeapilinter // A permission: given or not.

	// sweepForeignPrefixes are prefixes of the names of queues that other programs make with the Amazon SQS Temporary
	// Queue Client for Java, e.g. __RequesterClientQueues__. Such a queue is deleted by that client's own rule: it bears
	// both of its tags, its heartbeat is older than its retention, and it holds no message. Unset: none.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=10
	// +kubebuilder:validation:items:MinLength=4
	// +kubebuilder:validation:items:MaxLength=60
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9_-]+$`
	SweepForeignPrefixes []string `json:"sweepForeignPrefixes,omitempty"`

	// namespaces says which namespaces may use this provider.
	// +required
	Namespaces ProviderNamespaces `json:"namespaces,omitzero"`
}

// QueueProviderStatus says whether the provider can be used.
// +kubebuilder:validation:MinProperties=1
type QueueProviderStatus struct {
	// conditions are Ready (False while AWS denies the operator, or has not answered, for more than a minute, which is asked as
	// long as anything uses the provider), and while true Reconciling or Stalled, InUse, Unreachable, IdentityConflict,
	// SweepHeld, ForeignSweepHeld, QueuesMissing and SweepIncomplete.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// observedGeneration is the generation of the spec that this status describes; -1: the operator has not seen it yet.
	// +optional
	// +kubebuilder:validation:Minimum=-1
	ObservedGeneration *int64 `json:"observedGeneration,omitempty"`

	// region in use.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	Region string `json:"region,omitempty"`

	// users is the number of RequestChannels and ReplyHosts that name this provider.
	// +optional
	// +kubebuilder:validation:Minimum=0
	Users *int32 `json:"users,omitempty"`
}

// QueueProvider is a place where queues are made (account, region, endpoint) and the terms on which namespaces
// may use it. The platform team writes it.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=qp,categories=replyqueue
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Region",type=string,JSONPath=`.status.region`
// +kubebuilder:printcolumn:name="Users",type=integer,JSONPath=`.status.users`
// +kubebuilder:printcolumn:name="Endpoint",type=string,JSONPath=`.spec.endpoint`,priority=1
// +kubebuilder:printcolumn:name="Message",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].message`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type QueueProvider struct {
	metav1.TypeMeta `json:",inline"`

	// metadata is standard object metadata.
	// +optional
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// spec says where queues are made, and who may ask for them.
	// +required
	Spec QueueProviderSpec `json:"spec,omitzero"`

	// status says whether the provider can be used.
	// +optional
	// +kubebuilder:default:={"observedGeneration":-1}
	Status QueueProviderStatus `json:"status,omitzero"` //nolint:kubeapilinter // It says that nobody has seen the object, and is no setting.
}

// QueueProviderList is a list of QueueProviders.
// +kubebuilder:object:root=true
type QueueProviderList struct {
	metav1.TypeMeta `json:",inline"`
	// metadata is standard list metadata.
	// +optional
	metav1.ListMeta `json:"metadata,omitempty"`
	// items are the QueueProviders.
	Items []QueueProvider `json:"items"`
}
