package rpcclient

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// request is one received request as far as it is understood.
type request struct {
	peer     Peer
	native   bool // carries an envelope of ours
	packs    bool // the requester takes packed replies
	method   string
	handler  *handler
	payload  []byte
	to       returnAddress
	budget   time.Duration
	deadline time.Time // by this machine's clock
	due      int64     // likewise by its sender's, in Unix milliseconds; 0: not known
	given    time.Time // likewise: when SQS gave it out, as far as that can be told
	info     RequestInfo
	serving  serving // what the handler's context carries

	// answers is the latest attempt that the reply is for, where that is not the request's own.
	answers int

	// Of a request that is refused: its messages are deleted; another responder may have been given one before, or a call
	// that the refusal reaches may have a message that no responder has had yet.
	deleted, uncertain bool

	// late: the handler ended after the deadline of the message that it was run for.
	late bool

	// Of a streaming handler: the run's identifier and the frames sent so far.
	run  string
	sent int

	// situation and refusal are set when the request is not to be handled.
	situation Situation
	refusal   error

	copy  messageCopy
	key   string // identifies the call for the reply cache; empty: duplicates cannot be told
	hash  uint64
	entry *cacheEntry
	claim *claim       // what the reply store granted; nil: it was not asked
	held  *heldRequest // keeps it hidden until it is settled; nil: nothing does
	from  *received
}

// RequestInfo is what a handler can learn of its request.
type RequestInfo struct {
	// Channel is the channel's name, QueueURL its request queue.
	Channel, QueueURL string
	// Method is the name asked for; the default method's for requests that name none.
	Method string
	// Registered is true when Method has a handler of its own. Otherwise it is text of the requester's
	// choosing, served by the default handler: not for metrics' labels or spans' names.
	Registered bool
	// Codec of the payload.
	Codec string
	// Stream is true when the handler answers with a stream.
	Stream bool
	// Peer is what kind of requester asked.
	Peer Peer
	// CallID is the hash that the requester's errors show; empty for requests without an identifier.
	CallID string
	// Attempt is the requester's attempt, from 1; 0 when it does not say.
	Attempt int
	// ReceiveCount is how often SQS has handed this message out, from 1.
	ReceiveCount int
	// Age is how long the message had waited when the handler was started.
	Age time.Duration

	id       string
	metadata Metadata
}

// Metadata returns a copy of what the requester sent with CallMetadata, and its trace context.
func (i RequestInfo) Metadata() Metadata { return maps.Clone(i.metadata) }

// InfoFromContext returns the request a handler's context belongs to.
func InfoFromContext(ctx context.Context) (RequestInfo, bool) {
	s, ok := ctx.Value(servingKey{}).(*serving)
	if !ok {
		return RequestInfo{}, false
	}
	info := *s.info
	if info.id != "" {
		info.CallID = hashCallID(info.id)
	}
	return info, true
}

var (
	errDeadline       = errors.New("the requester's deadline is over")
	errSenderClock    = errors.New("the requester's deadline is long over by its own clock: the request was moved back from a dead-letter queue, or that clock is minutes behind")
	errStrayReply     = errors.New("a reply was sent to a request queue")
	errNoMethod       = errors.New("the request names no method and there is no default")
	errQueueAge       = errors.New("the request waited too long in the queue")
	errWantsOne       = errors.New("the method answers with a stream, and the requester takes one reply")
	errOtherContent   = errors.New("the call ID came before with another method or body")
	errRequesterGone  = errors.New("the reply queue does not exist")
	errCallIDMismatch = errors.New("the envelope's call ID is not the return address's")
)

// envelopeRefusal is the answer to a request whose envelope is ours and cannot be read.
func envelopeRefusal(err error) *Error {
	if e := (*Error)(nil); errors.As(err, &e) {
		return e
	}
	return Errorf(InvalidArgument, "request envelope: %w", err)
}

// admit decides whether a message is a request to handle. It changes nothing.
func (s *channelServer) admit(m *types.Message, d delivery, now time.Time) *request {
	r := s.r
	q := &request{given: d.local, copy: messageCopy{
		id: deref(m.MessageId), handle: deref(m.ReceiptHandle), count: d.count, given: d.given(),
	}}
	refuse := func(situation Situation, err error) *request {
		q.situation, q.refusal = situation, err
		return q
	}

	text := attribute(m, attributeEnvelope)
	if _, ok := m.MessageAttributes[attributeVirtualQueue]; ok {
		q.peer = PeerOneWay
		return refuse(BadAddress, errStrayReply)
	}
	env, envErr := requestEnvelope{}, errNotOurs
	if text != "" {
		if env, envErr = parseRequestEnvelope(text); errors.Is(envErr, errNotOurs) {
			if _, err := parseReplyEnvelope(text); !errors.Is(err, errNotOurs) || packVersion(text) != 0 {
				q.peer = PeerOneWay
				return refuse(BadAddress, errStrayReply)
			}
		}
	}
	q.native = !errors.Is(envErr, errNotOurs)

	received := attribute(m, attributeReplyTo)
	if received == "" {
		q.peer = PeerOneWay
	} else {
		var err error
		if q.to, err = s.addresses.check(received); err != nil {
			q.peer = PeerJava
			return refuse(BadAddress, err)
		}
		switch {
		case q.to.virtual == "":
			q.peer = PeerPlain
		case !q.native:
			q.peer = PeerJava
		}
	}
	if q.native {
		if envErr == nil && q.peer == PeerNative && env.CallID != q.to.virtual {
			return refuse(BadAddress, errCallIDMismatch)
		}
		q.info.id, q.info.Attempt, q.info.metadata = env.CallID, env.Attempt, env.Metadata
		q.method, q.budget = env.Method, time.Duration(env.BudgetMS)*time.Millisecond
		if envErr != nil && (q.budget <= 0 || q.budget > maxBudget) {
			q.budget = DefaultTimeout // for the refusal to be sent
		}
		if env.SentMS > 0 {
			q.due = env.SentMS + env.BudgetMS
		}
		q.packs = q.peer == PeerNative && slices.Contains(env.Accept, featurePack)
		if q.info.id != "" {
			q.key = s.channel.URL + "\x00" + q.to.queueURL + "#" + q.info.id
			if q.to.virtual == q.info.id {
				// The same text, but not a part of what the SDK made of the whole receive: the reply cache would keep all of it.
				q.to.virtual = q.key[len(q.key)-len(q.info.id):]
			}
		}
	} else {
		// What follows the # is a queue to such a requester, which may take any number of replies there.
		if m.MessageId != nil {
			q.key = s.channel.URL + "\x00" + *m.MessageId
		}
		q.info.id = q.to.virtual
		q.method, q.budget = r.cfg.defaultMethod, r.cfg.defaultBudget
	}
	q.info.Channel, q.info.QueueURL = s.channel.Name, s.channel.URL
	q.info.metadata = joinTrace(q.info.metadata, attribute(m, TraceParent))
	q.info.Method, q.info.Peer, q.info.ReceiveCount = q.method, q.peer, d.count
	_, q.info.Registered = r.handlers[q.method]
	sqsNow := d.sqsTime(&r.clock, now)
	q.info.Age = d.ageAt(sqsNow)
	q.deadline, q.given = now.Add(q.budget-q.info.Age), d.givenOut(q.info.Age, now)

	switch {
	case q.native && envErr != nil:
		return refuse(Undecodable, envelopeRefusal(envErr))
	case q.native && q.info.Age >= q.budget:
		return refuse(Expired, errDeadline)
	case q.native && staleBySender(env.SentMS, q.budget, sqsNow):
		return refuse(Expired, fmt.Errorf("%w: SQS took it %s ago, and by its sender's clock it was sent %s ago", errSenderClock,
			q.info.Age.Round(time.Millisecond), sqsNow.Sub(time.UnixMilli(env.SentMS)).Round(time.Second)))
	case r.cfg.maxQueueAge > 0 && q.info.Age > r.cfg.maxQueueAge && q.peer == PeerNative: // another cannot be told to come later
		return refuse(Shed, &Error{Code: Unavailable, Message: errQueueAge.Error(), RetryAfter: r.cfg.maxQueueAge, cause: errQueueAge})
	case q.native && env.Version > protocolVersion:
		return refuse(Undecodable, Errorf(Unimplemented, "protocol version %d; this responder speaks %d", env.Version, protocolVersion))
	case q.peer == PeerNative && r.gone.confirmed(q.to.queueURL, now):
		return refuse(RequesterGone, errRequesterGone)
	}
	h, ok := r.handlers[q.method]
	if !ok {
		h, ok = r.handlers[""] // the default handler
	}
	codec := firstNonEmpty(env.Codec, JSON.Name())
	switch {
	case !ok && q.method == "":
		return refuse(UnknownMethod, Errorf(Unimplemented, "%w", errNoMethod))
	case !ok:
		return refuse(UnknownMethod, Errorf(Unimplemented, "no method %q here", q.method))
	case h.stream && q.peer != PeerOneWay && !(q.native && env.understands(featureStream)):
		return refuse(UnknownMethod, Errorf(Unimplemented, "%w", errWantsOne))
	case !q.native:
		codec = firstNonEmpty(h.codec, codec)
	case !h.anyCodec && codec != h.codec:
		return refuse(Undecodable, Errorf(InvalidArgument, "the request is in %s, method %q takes %s", codec, q.method, h.codec))
	}
	q.info.Codec, q.info.Stream = codec, h.stream
	if !q.native {
		// A request without a deadline gets the configured time from when it is taken up.
		q.deadline = now.Add(q.budget)
	}
	payload, err := decodeBody(deref(m.Body), env.Encoding)
	if err != nil {
		return refuse(Undecodable, Errorf(InvalidArgument, "%w", err))
	}
	q.handler, q.payload, q.serving.info = h, payload, &q.info
	if h.stream {
		q.run = newRun()
	}
	return q
}

func firstNonEmpty(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// hashRequest condenses what must be equal in two messages of one call.
func (r *Responder) hashRequest(q *request) uint64 {
	var h maphash.Hash
	h.SetSeed(r.seed)
	_, _ = h.WriteString(q.method)
	_ = h.WriteByte(0)
	_, _ = h.Write(q.payload)
	return h.Sum64()
}
