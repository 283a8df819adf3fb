package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Conditions follow kstatus: Ready is always there once a kind was reconciled; Reconciling and Stalled are there
// only while true.
const (
	// ConditionReady surfaces on every kind: True when what the spec asks for is there.
	ConditionReady = "Ready"
	// ConditionReconciling surfaces, as True, while the operator works towards the spec or waits to.
	ConditionReconciling = "Reconciling"
	// ConditionStalled surfaces, as True, when only a change by a human (to the spec, to IAM, to another object)
	// can help. Causes that heal outside the cluster are tried again slowly.
	ConditionStalled = "Stalled"

	// ConditionQueueReady surfaces on RequestChannels: True when the request queue exists as asked for.
	ConditionQueueReady = "QueueReady"
	// ConditionDeadLetterReady surfaces on RequestChannels that have a dead-letter queue.
	ConditionDeadLetterReady = "DeadLetterReady"
	// ConditionBindingReady surfaces on RequestChannels with spec.binding: True when the Secret is there as asked for.
	ConditionBindingReady = "BindingReady"
	// ConditionDrifted surfaces, as True, from the moment the queue was found to differ from the spec until it is
	// corrected.
	ConditionDrifted = "Drifted"
	// ConditionInUse surfaces, as True, on a ReplyHost, ReplyQueue or QueueProvider whose deletion waits for its
	// users to go.
	ConditionInUse = "InUse"
	// ConditionHeartbeatOutage surfaces, as True, on ReplyHosts while so many heartbeats are missing at once that
	// it looks like an outage of heartbeats rather than of pods. Nothing is closed for idleness meanwhile.
	ConditionHeartbeatOutage = "HeartbeatOutage"
	// ConditionIdentityConflict surfaces, as True, on QueueProviders whose queues may be another cluster's: this one is a
	// copy of it, or was restored from a backup. Nothing is deleted there until a human confirms whose they are, no request queue is
	// made or changed, and Ready is False.
	ConditionIdentityConflict = "IdentityConflict"
	// ConditionSweepHeld surfaces, as True, on QueueProviders where so many reply queues have no record at once that
	// they are not swept until a human allows it.
	ConditionSweepHeld = "SweepHeld"
	// ConditionForeignSweepHeld surfaces, as True, on QueueProviders where so many queues of the Java client are abandoned at
	// once that they are not swept until a human allows it.
	ConditionForeignSweepHeld = "ForeignSweepHeld"
	// ConditionQueuesMissing surfaces, as True, on QueueProviders where the queues of so many records are not found at once
	// that none is replaced until a human allows it.
	ConditionQueuesMissing = "QueuesMissing"
	// ConditionSweepIncomplete surfaces, as True, on QueueProviders with queues that sweeps have not been able to judge for
	// some time, and leave as they are.
	ConditionSweepIncomplete = "SweepIncomplete"
	// ConditionUnreachable surfaces, as True, on QueueProviders in use about which SQS has answered nothing for more than a minute:
	// AWS denies the operator, or SQS cannot be reached. Ready is False meanwhile, for the same reason.
	ConditionUnreachable = "Unreachable"
	// ConditionHeartbeatsUnguarded surfaces, as True, on ReplyHosts while the admission policy is missing, or weakened, which
	// stops one pod from renewing another's Lease, or the namespace is missing that heartbeats are sent to, or the permission to
	// send them. Nothing is closed for idleness meanwhile.
	ConditionHeartbeatsUnguarded = "HeartbeatsUnguarded"
)

// Reasons of ConditionReady when True.
const (
	// ReasonAvailable surfaces when everything asked for is there.
	ReasonAvailable = "Available"
	// ReasonObserved surfaces when a queue with managementPolicy Observe was found.
	ReasonObserved = "Observed"
	// ReasonSuspended surfaces while spec.suspend is true.
	ReasonSuspended = "Suspended"
	// ReasonOffered surfaces while a queue's tag replyqueue.dev/adoptable-by offers it to another cluster, so that it is not changed:
	// on Stalled too, where it is not as asked for, or is to be deleted.
	ReasonOffered = "Offered"
)

// Reasons of ConditionReconciling, and of ConditionReady when False for the same cause.
const (
	// ReasonProgressing surfaces while a change is being carried out.
	ReasonProgressing = "Progressing"
	// ReasonQueueDeletedRecently surfaces while SQS refuses a name for 60 seconds after its deletion.
	ReasonQueueDeletedRecently = "QueueDeletedRecently"
	// ReasonThrottled surfaces while AWS throttles our requests.
	ReasonThrottled = "Throttled"
	// ReasonSQSUnavailable surfaces while SQS cannot be reached or answers with server errors; on QueueProviders also on Stalled, after
	// ten minutes of it.
	ReasonSQSUnavailable = "SQSUnavailable"
	// ReasonWaitingForDeadLetter surfaces while the RequestChannel named as dead-letter queue is not ready.
	ReasonWaitingForDeadLetter = "WaitingForDeadLetter"
	// ReasonWaitingForProvider surfaces while the QueueProvider named does not exist yet.
	ReasonWaitingForProvider = "WaitingForProvider"
	// ReasonQueueNotEmpty surfaces while a deletion with DeleteIfEmpty waits for messages to go.
	ReasonQueueNotEmpty = "QueueNotEmpty"
	// ReasonDeleting surfaces while an object and its queues are being deleted.
	ReasonDeleting = "Deleting"
	// ReasonIdentityConflict surfaces while a deletion waits because the queues may be another cluster's; also on the
	// condition IdentityConflict.
	ReasonIdentityConflict = "IdentityConflict"
	// ReasonIdentityUnproven surfaces while a deletion, or a change, waits for the proof that the queues are this cluster's.
	ReasonIdentityUnproven = "IdentityUnproven"
	// ReasonDraining surfaces on ReplyQueues whose pod is gone, until the drain is over.
	ReasonDraining = "Draining"
)

// Reasons of ConditionStalled, and of ConditionReady when False for the same cause.
const (
	// ReasonStatusRefused surfaces when the API server refuses what the operator found out as a status.
	ReasonStatusRefused = "StatusRefused"
	// ReasonNotOwned surfaces when a queue of that name exists and is not ours.
	ReasonNotOwned = "NotOwned"
	// ReasonConflict surfaces when an older RequestChannel claims the same queue.
	ReasonConflict = "Conflict"
	// ReasonQueueElsewhere surfaces when the operator's account or region is no longer the one that the queue is in.
	ReasonQueueElsewhere = "QueueElsewhere"
	// ReasonQueueNameNotAllowed surfaces when spec.queueName is outside the provider's patterns.
	ReasonQueueNameNotAllowed = "QueueNameNotAllowed"
	// ReasonPolicyNotAllowed surfaces when spec.policy is set and the provider does not allow policies.
	ReasonPolicyNotAllowed = "PolicyNotAllowed"
	// ReasonProviderNotAllowed surfaces when the provider may not be used from this namespace.
	ReasonProviderNotAllowed = "ProviderNotAllowed"
	// ReasonDeadLetterNotAllowed surfaces when the dead-letter queue named may not be used from this namespace.
	ReasonDeadLetterNotAllowed = "DeadLetterNotAllowed"
	// ReasonSecretNotOwned surfaces when the Secret that spec.binding names exists and is not the channel's.
	ReasonSecretNotOwned = "SecretNotOwned"
	// ReasonSecretRefused surfaces when the API server refuses the Secret of spec.binding: by a quota, an admission policy, or
	// because it was made immutable.
	ReasonSecretRefused = "SecretRefused"
	// ReasonAccessDenied surfaces when AWS denies a request; the message holds AWS's words.
	ReasonAccessDenied = "AccessDenied"
	// ReasonKMSError surfaces when AWS KMS refuses the key; the message holds AWS's words.
	ReasonKMSError = "KMSError"
	// ReasonInvalid surfaces when AWS refuses a value; the message names the field and holds AWS's words.
	ReasonInvalid = "Invalid"
	// ReasonProviderInvalid surfaces on a QueueProvider that no client can be made from.
	ReasonProviderInvalid = "ProviderInvalid"
	// ReasonObservedQueueMissing surfaces when managementPolicy is Observe and there is no such queue.
	ReasonObservedQueueMissing = "ObservedQueueMissing"
)

// Reasons of the other conditions.
const (
	// ReasonPodsUseIt surfaces on InUse: pods still use the ReplyHost or the ReplyQueue.
	ReasonPodsUseIt = "PodsUseIt"
	// ReasonObjectsUseIt surfaces on InUse: RequestChannels or ReplyHosts still name the QueueProvider.
	ReasonObjectsUseIt = "ObjectsUseIt"
	// ReasonMassSilence surfaces on HeartbeatOutage.
	ReasonMassSilence = "MassSilence"
	// ReasonPolicyMissing surfaces on HeartbeatsUnguarded, when the policy or its binding is not there, or refuses less than
	// what is shipped.
	ReasonPolicyMissing = "PolicyMissing"
	// ReasonTooManyOrphans surfaces on SweepHeld and on ForeignSweepHeld.
	ReasonTooManyOrphans = "TooManyOrphans"
	// ReasonTooManyMissing surfaces on QueuesMissing.
	ReasonTooManyMissing = "TooManyMissing"
	// ReasonQueuesNotJudged surfaces on SweepIncomplete.
	ReasonQueuesNotJudged = "QueuesNotJudged"
	// ReasonNamespaceMissing surfaces on HeartbeatsUnguarded, when the namespace that heartbeats are sent to is not there.
	ReasonNamespaceMissing = "NamespaceMissing"
	// ReasonPermissionMissing surfaces on HeartbeatsUnguarded, when service accounts may not patch Leases in that namespace.
	ReasonPermissionMissing = "PermissionMissing"
	// ReasonDeletedOutOfBand surfaces on Drifted: the queue was deleted by someone else, and is created again.
	ReasonDeletedOutOfBand = "DeletedOutOfBand"
	// ReasonAttributesDiffer surfaces on Drifted: attributes or tags were changed by someone else.
	ReasonAttributesDiffer = "AttributesDiffer"
)

// GetConditions returns the conditions of the object.
func (c *RequestChannel) GetConditions() []metav1.Condition { return c.Status.Conditions }

// SetConditions replaces the conditions of the object.
func (c *RequestChannel) SetConditions(conditions []metav1.Condition) {
	c.Status.Conditions = conditions
}

// GetConditions returns the conditions of the object.
func (h *ReplyHost) GetConditions() []metav1.Condition { return h.Status.Conditions }

// SetConditions replaces the conditions of the object.
func (h *ReplyHost) SetConditions(conditions []metav1.Condition) { h.Status.Conditions = conditions }

// GetConditions returns the conditions of the object.
func (q *ReplyQueue) GetConditions() []metav1.Condition { return q.Status.Conditions }

// SetConditions replaces the conditions of the object.
func (q *ReplyQueue) SetConditions(conditions []metav1.Condition) { q.Status.Conditions = conditions }

// GetConditions returns the conditions of the object.
func (p *QueueProvider) GetConditions() []metav1.Condition { return p.Status.Conditions }

// SetConditions replaces the conditions of the object.
func (p *QueueProvider) SetConditions(conditions []metav1.Condition) {
	p.Status.Conditions = conditions
}
