// Package injected is the contract between the operator, which injects addresses into pods, and
// rpcenv, which reads them: the names of the environment variables, the JSON they carry, and the
// annotations on a heartbeat Lease. It uses the standard library alone, so both sides can import it.
package injected

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Environment variables that the pod webhook adds to containers.
const (
	// EnvReplyQueueURL holds the URL of the pod's own reply queue. Only the calling container gets it,
	// since a reply queue has one reader. Empty or absent: the URL comes with the first heartbeat.
	EnvReplyQueueURL = "REPLYQUEUE_REPLY_QUEUE_URL"
	// EnvIdentity holds the JSON form of Identity, for the same container; absent or empty: the reply queue is
	// this pod's alone, and goes with it.
	EnvIdentity = "REPLYQUEUE_IDENTITY"
	// EnvChannels holds the JSON form of Channels.
	EnvChannels = "REPLYQUEUE_CHANNELS"
	// EnvHeartbeat holds the JSON form of Heartbeat; absent or empty when the pod itself is the signal.
	EnvHeartbeat = "REPLYQUEUE_HEARTBEAT"
	// EnvPodName, EnvPodUID and EnvNamespace identify the pod (downward API).
	EnvPodName   = "REPLYQUEUE_POD_NAME"
	EnvPodUID    = "REPLYQUEUE_POD_UID"
	EnvNamespace = "REPLYQUEUE_NAMESPACE"
	// EnvRegion and EnvEndpoint are the provider's, when it names them. They are never AWS_*: those
	// would move the application's other AWS clients.
	EnvRegion   = "REPLYQUEUE_REGION"
	EnvEndpoint = "REPLYQUEUE_ENDPOINT"
	// EnvReturnAddresses holds the JSON form of ReturnAddresses: which reply queues a responder may answer.
	EnvReturnAddresses = "REPLYQUEUE_RETURN_ADDRESSES"
	// EnvReturnAddressesFile names a file that has what EnvReturnAddresses should hold now: variables stay as they were
	// when the container started, and what a responder may answer changes with every QueueProvider. Absent, or until the
	// file has had something, EnvReturnAddresses stands; a file that is emptied or removed changes nothing.
	EnvReturnAddressesFile = "REPLYQUEUE_RETURN_ADDRESSES_FILE"
	// EnvServiceAccountDir overrides the folder that holds the token and ca.crt for heartbeats. It is
	// never injected: it is for programs that run outside a pod.
	EnvServiceAccountDir = "REPLYQUEUE_SERVICE_ACCOUNT_DIR"
)

// Folders in which a container finds its token and ca.crt, in the order in which they are tried.
const (
	// ProjectedServiceAccountDir is where the webhook mounts a token into pods that have none.
	ProjectedServiceAccountDir = "/var/run/secrets/replyqueue.dev"
	// DefaultServiceAccountDir is where Kubernetes mounts a pod's service account.
	DefaultServiceAccountDir = "/var/run/secrets/kubernetes.io/serviceaccount"
)

// The file that EnvReturnAddressesFile names where the webhook has mounted it: the kubelet brings it up to date within
// a minute or two of each change of the pod's annotation.
const (
	ReturnAddressesDir  = "/var/run/replyqueue.dev"
	ReturnAddressesFile = "return-addresses"
)

// Annotations on a heartbeat Lease. The operator writes them, and every heartbeat's answer carries them.
const (
	// LeaseReplyQueueURL is the URL of the pod's current reply queue; absent while there is none.
	LeaseReplyQueueURL = "replyqueue.dev/reply-queue-url"
	// LeaseState is one of LeaseStateOpen, LeaseStateClosing, LeaseStateProvisioning.
	LeaseState = "replyqueue.dev/state"
	// LeaseIntervalSeconds is the heartbeat interval the operator advises, in seconds.
	LeaseIntervalSeconds = "replyqueue.dev/heartbeat-interval-seconds"
	// LeaseChannels is the JSON form of Channels: what a pod that started without its environment uses.
	LeaseChannels = "replyqueue.dev/channels"
	// LeaseReturnAddresses is the JSON form of ReturnAddresses, for the same pods.
	LeaseReturnAddresses = "replyqueue.dev/return-addresses"
	// LeaseRegion and LeaseEndpoint are what EnvRegion and EnvEndpoint would hold, for the same pods. Absent:
	// the provider does not name them.
	LeaseRegion   = "replyqueue.dev/region"
	LeaseEndpoint = "replyqueue.dev/endpoint"
	// LeaseIdentity is what EnvIdentity would hold, for the same pods.
	LeaseIdentity = "replyqueue.dev/identity"
)

// Values of the annotation LeaseState.
const (
	// LeaseStateOpen: the queue named by LeaseReplyQueueURL exists and is this pod's.
	LeaseStateOpen = "open"
	// LeaseStateClosing: the last queue is closed for ever. A heartbeat asks for a new one.
	LeaseStateClosing = "closing"
	// LeaseStateProvisioning: a queue is being created; its URL comes with a later heartbeat.
	LeaseStateProvisioning = "provisioning"
)

// Role says what a pod does with a channel.
type Role string

// The roles. A pod that both calls and serves a channel has RoleBoth.
const (
	RoleCall  Role = "call"
	RoleServe Role = "serve"
	RoleBoth  Role = "both"
)

// Calls reports whether the role sends requests.
func (r Role) Calls() bool { return r == RoleCall || r == RoleBoth }

// Serves reports whether the role answers requests.
func (r Role) Serves() bool { return r == RoleServe || r == RoleBoth }

// Channel is what a pod is told of one RequestChannel.
type Channel struct {
	// URL of the request queue.
	URL string `json:"url"`
	// Role of this pod.
	Role Role `json:"role"`
	// TimeoutSeconds is the channel's spec.call.timeoutSeconds; 0: unset.
	TimeoutSeconds int32 `json:"timeoutSeconds,omitempty"`
	// MaxAttempts is the channel's spec.call.maxAttempts; 0: unset.
	MaxAttempts int32 `json:"maxAttempts,omitempty"`
	// FIFO is true when the request queue is a FIFO queue.
	FIFO bool `json:"fifo,omitempty"`
	// VisibilityTimeoutSeconds is the queue's, when the channel sets it; 0: AWS's default of 30.
	VisibilityTimeoutSeconds int32 `json:"visibilityTimeoutSeconds,omitempty"`
	// MaximumMessageBytes is the queue's limit, 1,024 to 1,048,576, when the channel sets it; 0: AWS's default of
	// 1,048,576.
	MaximumMessageBytes int32 `json:"maximumMessageBytes,omitempty"`
	// DeadLetter is true when refused messages have somewhere to go.
	DeadLetter bool `json:"deadLetter,omitempty"`
	// MaxReceiveCount is how often a message may be received before it goes there, 1 to 1000, as the channel said when the
	// pod was told; 0: not known.
	MaxReceiveCount int32 `json:"maxReceiveCount,omitempty"`
}

// Channels maps the name by which the pod knows a channel ("login", "pricing.shop") to the channel.
type Channels map[string]Channel

// Heartbeat tells the client which Lease to renew and how often.
type Heartbeat struct {
	// Namespace and Name of the Lease; the name is the pod's UID.
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// IntervalSeconds between two heartbeats, 1 or more.
	IntervalSeconds int32 `json:"intervalSeconds"`
}

// Interval is IntervalSeconds as a duration.
func (h Heartbeat) Interval() time.Duration { return time.Duration(h.IntervalSeconds) * time.Second }

// ReturnAddresses says which reply queues a responder may answer. Without Prefixes these are all whose names have
// the operator's form, <prefix>_<cluster>_r_<UID>, of any cluster.
type ReturnAddresses struct {
	// AccountID and Region of the queues, and the endpoint on which replies are sent.
	AccountID string `json:"accountID,omitempty"`
	Region    string `json:"region,omitempty"`
	Endpoint  string `json:"endpoint,omitempty"`
	// Prefixes a queue's name must start with, e.g. "rq_0a1b2c3d_r_".
	Prefixes []string `json:"prefixes,omitempty"`
}

// Identity says for whom a reply queue is kept, where that is not the pod alone.
type Identity struct {
	// Kind is IdentityStable. A client treats one that it does not know as absent.
	Kind string `json:"kind"`
	// RetentionSeconds is how long the queue waits for its next reader after the last was seen, 1 or more.
	RetentionSeconds int32 `json:"retentionSeconds"`
}

// IdentityStable: the reply queue belongs to the pod's name, and a pod that replaces another reads its
// predecessor's replies.
const IdentityStable = "Stable"

// Retention is RetentionSeconds as a duration.
func (i Identity) Retention() time.Duration { return time.Duration(i.RetentionSeconds) * time.Second }

// ChannelURLVariable is the name of the variable that holds one channel's URL:
// REPLYQUEUE_CHANNEL_<NAME>_URL with the name in upper case and every other character than A-Z and
// 0-9 as an underscore ("pricing.shop" gives REPLYQUEUE_CHANNEL_PRICING_SHOP_URL).
func ChannelURLVariable(channel string) string {
	var b strings.Builder
	b.WriteString("REPLYQUEUE_CHANNEL_")
	for _, r := range strings.ToUpper(channel) {
		if (r >= 'A' && r <= 'Z') || (r >= '0' && r <= '9') {
			b.WriteRune(r)
		} else {
			b.WriteByte('_')
		}
	}
	b.WriteString("_URL")
	return b.String()
}

// Encode returns v (Channels, Heartbeat, Identity or ReturnAddresses) in the form the variables and annotations
// carry. Equal values encode to equal text.
func Encode(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("injected: %T cannot fail to encode: %v", v, err))
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// ErrAbsent is returned by the Parse functions for an empty text.
var ErrAbsent = errors.New("not injected")

// ParseChannels reads the JSON form of Channels. Unknown fields are ignored, so that an older client
// works with a newer operator.
func ParseChannels(text string) (Channels, error) {
	var c Channels
	if err := parse(text, &c); err != nil {
		return nil, fmt.Errorf("channels: %w", err)
	}
	for name, ch := range c {
		if ch.URL == "" {
			return nil, fmt.Errorf("channels: %q has no url", name)
		}
		if !ch.Role.Calls() && !ch.Role.Serves() {
			return nil, fmt.Errorf("channels: %q has role %q; known are call, serve and both", name, ch.Role)
		}
	}
	return c, nil
}

// ParseHeartbeat reads the JSON form of Heartbeat.
func ParseHeartbeat(text string) (Heartbeat, error) {
	var h Heartbeat
	if err := parse(text, &h); err != nil {
		return Heartbeat{}, fmt.Errorf("heartbeat: %w", err)
	}
	if h.Namespace == "" || h.Name == "" || h.IntervalSeconds < 1 {
		return Heartbeat{}, fmt.Errorf("heartbeat: namespace, name and an interval of at least 1 s are required, got %s", text)
	}
	return h, nil
}

// ParseIdentity reads the JSON form of Identity.
func ParseIdentity(text string) (Identity, error) {
	var i Identity
	if err := parse(text, &i); err != nil {
		return Identity{}, fmt.Errorf("identity: %w", err)
	}
	if i.Kind == "" || i.RetentionSeconds < 1 {
		return Identity{}, fmt.Errorf("identity: a kind and a retention of at least 1 s are required, got %s", text)
	}
	return i, nil
}

// ParseReturnAddresses reads the JSON form of ReturnAddresses.
func ParseReturnAddresses(text string) (ReturnAddresses, error) {
	var r ReturnAddresses
	if err := parse(text, &r); err != nil {
		return ReturnAddresses{}, fmt.Errorf("return addresses: %w", err)
	}
	return r, nil
}

func parse(text string, into any) error {
	if strings.TrimSpace(text) == "" {
		return ErrAbsent
	}
	return json.Unmarshal([]byte(text), into)
}
