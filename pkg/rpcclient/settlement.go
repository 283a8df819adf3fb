package rpcclient

// Situation is what became of a request at the responder.
type Situation uint8

// The situations, in the order in which a request meets them.
const (
	// BadAddress: the return address was refused, or the message is a reply aimed at a request queue.
	BadAddress Situation = iota
	// Expired: the requester's deadline is over.
	Expired
	// Shed: the request waited too long in the queue for what the responder can do now.
	Shed
	// UnknownMethod: no handler has the name, or the message names none and there is no default.
	UnknownMethod
	// Undecodable: the envelope or the payload cannot be read, or a call ID came again with other content.
	Undecodable
	// Panicked: the handler panicked.
	Panicked
	// HandlerFailed: the handler returned an error.
	HandlerFailed
	// Succeeded: the handler returned an answer.
	Succeeded
	// ReplyTooLarge: the answer is over the limit of SQS or of its queue.
	ReplyTooLarge
	// ReplyNotSent: SQS did not accept the reply, or not the delete that comes before a refusal.
	ReplyNotSent
	// RequesterGone: the reply queue no longer exists.
	RequesterGone
	situationCount
)

var situationNames = [situationCount]string{
	"bad address", "expired", "shed", "unknown method", "undecodable", "panic", "handler error", "ok",
	"reply too large", "reply not sent", "requester gone",
}

// String is the situation's name in docs/protocol.md.
func (s Situation) String() string {
	if s >= situationCount {
		return "unknown"
	}
	return situationNames[s]
}

// Peer is what kind of requester sent a request, told by its attributes.
type Peer uint8

// The peers.
const (
	// PeerNative speaks this protocol.
	PeerNative Peer = iota
	// PeerJava sent a return address with a virtual queue and no envelope of ours.
	PeerJava
	// PeerPlain sent the URL of a whole queue.
	PeerPlain
	// PeerOneWay sent no return address.
	PeerOneWay
	peerCount
)

var peerNames = [peerCount]string{"native", "Java", "plain URL", "one-way"}

// String is the peer's name in docs/protocol.md.
func (p Peer) String() string {
	if p >= peerCount {
		return "unknown"
	}
	return peerNames[p]
}

// settlement is what a responder does with a request.
type settlement struct {
	reply  bool // send a reply: the answer, or the error
	delete bool // delete the message; otherwise leave it for redelivery or the dead-letter queue
	// rejected marks an error reply as refused before the handler, and otherwise Executed. Such a reply is sent
	// when the message is deleted; any other before.
	rejected bool
}

// settle is the settlement table of docs/protocol.md. deadLetter says whether the request queue has a
// dead-letter queue to take what is refused.
//
// Java and hand-written requesters take any reply for success. They get no error reply unless
// errorReplies is configured; their failed requests are left in the queue.
func settle(s Situation, p Peer, deadLetter, errorReplies bool) settlement {
	canReply := p != PeerOneWay
	canReplyErrors := p == PeerNative || (canReply && errorReplies)
	switch s {
	case Succeeded:
		return settlement{reply: canReply, delete: true}
	case BadAddress:
		return settlement{delete: !deadLetter}
	case Expired, RequesterGone:
		return settlement{delete: true}
	case ReplyNotSent:
		return settlement{}
	case Shed, UnknownMethod, Undecodable:
		return settlement{reply: canReplyErrors, delete: canReplyErrors, rejected: true}
	default: // Panicked, HandlerFailed, ReplyTooLarge
		return settlement{reply: canReplyErrors, delete: canReplyErrors}
	}
}
