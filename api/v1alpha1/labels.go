package v1alpha1

import (
	"crypto/sha256"
	"encoding/hex"
)

// What a pod says. The label opts it in; the annotations say what it does.
const (
	// LabelInject on a pod opts it in. Its value is one of InjectTrue and InjectBestEffort.
	LabelInject = "replyqueue.dev/inject"
	// InjectTrue: the pod is held by a scheduling gate until its queues exist.
	InjectTrue = "true"
	// InjectBestEffort: the pod starts at once and learns its queues by its heartbeat.
	InjectBestEffort = "best-effort"

	// AnnotationCalls lists the RequestChannels the pod sends to: "name" or "name.namespace", comma-separated.
	AnnotationCalls = "replyqueue.dev/calls"
	// AnnotationServes lists the RequestChannels the pod answers, in its own namespace, comma-separated.
	AnnotationServes = "replyqueue.dev/serves"
	// AnnotationReplyHost names the ReplyHost, in the pod's namespace, that gives the pod its own reply queue.
	AnnotationReplyHost = "replyqueue.dev/reply-host"
	// AnnotationHeartbeat is "lease" or "pod"; unset: lease where a service-account token is mounted.
	AnnotationHeartbeat = "replyqueue.dev/heartbeat"
	// AnnotationCallerContainer names the container that reads the reply queue; unset: the container that
	// kubectl.kubernetes.io/default-container names, else the first. The webhook writes down which it was.
	AnnotationCallerContainer = "replyqueue.dev/caller-container"
)

// What the webhook and the operator write on a pod. They are outputs: a template that presets them is
// stripped, the operator never reads them as input, and a shipped policy refuses other writers.
const (
	// AnnotationInjected marks a pod that the webhook has seen. Its value is the resolved heartbeat mode,
	// "lease" or "pod".
	AnnotationInjected = "replyqueue.dev/injected"
	// AnnotationReplyQueueURL is the URL of the pod's current reply queue.
	AnnotationReplyQueueURL = "replyqueue.dev/reply-queue-url"
	// AnnotationChannels is the JSON form of injected.Channels.
	AnnotationChannels = "replyqueue.dev/channels"
	// AnnotationReturnAddresses is the JSON form of injected.ReturnAddresses.
	AnnotationReturnAddresses = "replyqueue.dev/return-addresses"
	// AnnotationRegion and AnnotationEndpoint are the provider's, when it names them.
	AnnotationRegion   = "replyqueue.dev/region"
	AnnotationEndpoint = "replyqueue.dev/endpoint"
	// AnnotationIdentity is the JSON form of injected.Identity; absent with identity Pod.
	AnnotationIdentity = "replyqueue.dev/identity"
	// AnnotationWaitingFor says what a gated pod waits for; removed when it no longer waits.
	AnnotationWaitingFor = "replyqueue.dev/waiting-for"
	// AnnotationChannelURLPrefix precedes a channel's name in the annotation that carries its URL.
	AnnotationChannelURLPrefix = "url.replyqueue.dev/"

	// SchedulingGate holds an opted-in pod until its queues exist.
	SchedulingGate = "replyqueue.dev/queues"
)

// Values of AnnotationHeartbeat and AnnotationInjected.
const (
	// HeartbeatAnnotationLease: the application renews a Lease.
	HeartbeatAnnotationLease = "lease"
	// HeartbeatAnnotationPod: the pod's own status is the only signal.
	HeartbeatAnnotationPod = "pod"
)

// What people write on the kinds to ask for something once.
const (
	// AnnotationReconcileAt asks for a reconcile now: any new value is handled once and then shown in
	// status.lastHandledReconcileAt.
	AnnotationReconcileAt = "replyqueue.dev/reconcile-at"
	// AnnotationForceDelete with the value "true" lets a deletion finish although the queue in SQS cannot be
	// deleted (credentials gone, account closed). The queue is left behind.
	AnnotationForceDelete = "replyqueue.dev/force-delete"
)

// What cluster administrators write on the ConfigMap that pins the operator's identity, in the operator's namespace.
const (
	// AnnotationConfirmIdentity says that this cluster, and no copy of it, owns the queues whose marker bears the nonce
	// given (several: comma-separated), or, as "<provider>=abandoned", whose marker is gone. The operator removes it when
	// it has claimed the marker.
	AnnotationConfirmIdentity = "replyqueue.dev/confirm-identity"
	// AnnotationAllowSweep lets one sweep delete more reply queues than its brake lets it: "<provider>=<number>",
	// several comma-separated. It is used up by the next sweep that it lets through.
	AnnotationAllowSweep = "replyqueue.dev/allow-sweep"
	// AnnotationAdoptFrom is the UID of the kube-system namespace of a cluster whose request queues and dead-letter
	// queues this one takes over. Its operator, should it still run, deletes nothing from then on.
	AnnotationAdoptFrom = "replyqueue.dev/adopt-from"
	// AnnotationSweepFrom is the UID of the kube-system namespace of a cluster that is gone with all its pods, so that
	// its reply queues are orphans and swept.
	AnnotationSweepFrom = "replyqueue.dev/sweep-from"
)

// Labels that the operator writes.
const (
	// LabelPodUID on a ReplyQueue and a heartbeat Lease is the UID of the pod they belong to.
	LabelPodUID = "replyqueue.dev/pod-uid"
	// LabelReplyHost on a ReplyQueue is the name of its ReplyHost.
	LabelReplyHost = "replyqueue.dev/reply-host"
	// LabelPodNamespace and LabelManaged mark the heartbeat Leases that the operator wrote.
	LabelPodNamespace = "replyqueue.dev/pod-namespace"
	// LabelManagedBy has the value ManagedByOperator on what the operator creates.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedByOperator is the value of LabelManagedBy.
	ManagedByOperator = "replyqueue"
)

// Finalizers, one for each kind that owns something outside the API server.
const (
	// FinalizerRequestChannel holds a RequestChannel until its queues are deleted or given up.
	FinalizerRequestChannel = "replyqueue.dev/request-channel"
	// FinalizerReplyHost holds a ReplyHost while records of its queues exist.
	FinalizerReplyHost = "replyqueue.dev/reply-host"
	// FinalizerReplyQueue holds a record until its SQS queue is deleted.
	FinalizerReplyQueue = "replyqueue.dev/reply-queue"
	// FinalizerQueueProvider holds a QueueProvider while channels or hosts use it.
	FinalizerQueueProvider = "replyqueue.dev/queue-provider"
)

// Tags on SQS queues. They carry ownership, so users cannot set keys with these prefixes.
const (
	// TagCluster is the UID of the kube-system namespace of the cluster that owns the queue.
	TagCluster = "replyqueue.dev/cluster"
	// TagKind is one of TagKindRequest, TagKindDeadLetter, TagKindReply, TagKindIdentity.
	TagKind = "replyqueue.dev/kind"
	// TagNamespace and TagName identify the RequestChannel or ReplyQueue that owns the queue.
	TagNamespace = "replyqueue.dev/namespace"
	TagName      = "replyqueue.dev/name"
	// TagAdoptableBy, written by a human in AWS, lets "<cluster>/<namespace>" adopt the queue, and all that TagSharedWith does. While it names
	// another cluster than the one that has the queue, that one leaves it as it is.
	TagAdoptableBy = "replyqueue.dev/adoptable-by"
	// TagSharedWith, written by a human in AWS, lists each "<cluster>/<namespace>" that may observe the queue, and send its dead letters there,
	// with spaces between them. The queue stays whose it is, and is changed as before.
	TagSharedWith = "replyqueue.dev/shared-with"
	// TagAdopted, written by the operator with the ownership tags, says that the queue was taken over rather than created:
	// it is not deleted with its RequestChannel, whatever becomes of the status and of the consent.
	TagAdopted = "replyqueue.dev/adopted"
	// TagCreation, given with the creation of a request queue or its dead-letter queue, is a text made up for that one request: a queue that bears it was made
	// by it, and is new. Nothing reads it later.
	TagCreation = "replyqueue.dev/creation"

	// TagNoncePrefix precedes a provider's name in the tag of the marker queue that holds its nonce (internal/fence).
	TagNoncePrefix = "nonce.replyqueue.dev/"

	// TagPodNamespace, TagPodName and TagPodUID on reply queues match the session tags of EKS Pod Identity,
	// so that one IAM role confines each pod to its own queue.
	TagPodNamespace = "kubernetes-namespace"
	TagPodName      = "kubernetes-pod-name"
	TagPodUID       = "kubernetes-pod-uid"

	// TagIdentity is IdentityStable on a reply queue that belongs to a pod's name, and to each pod that bears it, in turn. On
	// others it is not.
	TagIdentity = "replyqueue.dev/identity"
)

// Values of TagKind.
const (
	TagKindRequest    = "request"
	TagKindDeadLetter = "dead-letter"
	TagKindReply      = "reply"
	TagKindIdentity   = "identity"
)

const (
	// HeartbeatNamespace holds one Lease for each pod with a Lease heartbeat, as kube-node-lease does for nodes.
	HeartbeatNamespace = "replyqueue-heartbeats"
	// DefaultProviderName stands for the operator's own environment where no QueueProvider is named.
	DefaultProviderName = "default"
)

// ChannelURLAnnotation is the pod annotation that carries one channel's URL. reference is a name, or
// name.namespace, as the pod's annotations give it. An annotation's name part holds 63 characters, so a longer
// reference is cut and ends in a hash.
func ChannelURLAnnotation(reference string) string {
	const most, kept = 63, 46
	if len(reference) > most {
		sum := sha256.Sum256([]byte(reference))
		reference = reference[:kept] + "-" + hex.EncodeToString(sum[:8])
	}
	return AnnotationChannelURLPrefix + reference
}
