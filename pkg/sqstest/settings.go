package sqstest

import (
	"bytes"
	"encoding/json"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	scopeQueue    = "queue"
	scopeGroup    = "messageGroup"
	limitPerQueue = "perQueue"
	limitPerGroup = "perMessageGroupId"
)

// settings are a queue's attributes that can be set, parsed. Times are in seconds, sizes in bytes.
type settings struct {
	delay, maxSize, retention, wait, visibility int

	fifo         bool
	contentDedup bool
	dedupScope   string
	throughput   string

	kmsKey   string
	kmsReuse int
	sse      bool

	policy  string
	redrive *redrivePolicy
	allow   *redriveAllowPolicy
}

// defaultSettings are AWS's (CreateQueue, API reference).
func defaultSettings(fifo bool) settings {
	s := settings{maxSize: maxMessageBytes, retention: 345_600, visibility: 30, kmsReuse: 300, sse: true}
	if fifo {
		s.fifo, s.dedupScope, s.throughput = true, scopeQueue, limitPerQueue
	}
	return s
}

// Attributes that cannot be set.
const (
	attrArn        = "QueueArn"
	attrVisible    = "ApproximateNumberOfMessages"
	attrNotVisible = "ApproximateNumberOfMessagesNotVisible"
	attrDelayed    = "ApproximateNumberOfMessagesDelayed"
	attrCreated    = "CreatedTimestamp"
	attrModified   = "LastModifiedTimestamp"
)

// Attributes that can.
const (
	attrDelay        = "DelaySeconds"
	attrMaxSize      = "MaximumMessageSize"
	attrRetention    = "MessageRetentionPeriod"
	attrWait         = "ReceiveMessageWaitTimeSeconds"
	attrVisibility   = "VisibilityTimeout"
	attrFifo         = "FifoQueue"
	attrContentDedup = "ContentBasedDeduplication"
	attrDedupScope   = "DeduplicationScope"
	attrThroughput   = "FifoThroughputLimit"
	attrKmsKey       = "KmsMasterKeyId"
	attrKmsReuse     = "KmsDataKeyReusePeriodSeconds"
	attrSSE          = "SqsManagedSseEnabled"
	attrPolicy       = "Policy"
	attrRedrive      = "RedrivePolicy"
	attrAllow        = "RedriveAllowPolicy"
)

var readOnlyAttributes = []string{attrArn, attrVisible, attrNotVisible, attrDelayed, attrCreated, attrModified}

var settableAttributes = []string{
	attrDelay, attrMaxSize, attrRetention, attrWait, attrVisibility, attrFifo, attrContentDedup, attrDedupScope, attrThroughput,
	attrKmsKey, attrKmsReuse, attrSSE, attrPolicy, attrRedrive, attrAllow,
}

// apply is the settings after the given attributes were set on them. Whether a dead-letter queue exists, and may be
// used, is not looked at here: see Server.checkRedrive.
func (s settings) apply(given map[string]string) (settings, *apiError) {
	// In a fixed order, so that of several errors always the same one is reported.
	known := 0
	for _, name := range settableAttributes {
		value, ok := given[name]
		if !ok {
			continue
		}
		known++
		if err := s.set(name, value); err != nil {
			return s, err
		}
	}
	if known < len(given) {
		for _, name := range slices.Sorted(maps.Keys(given)) {
			if !isOneOf(name, settableAttributes) {
				return s, errAttributeName("Unknown Attribute %s.", name)
			}
		}
	}
	if given[attrKmsKey] != "" && strings.EqualFold(given[attrSSE], "true") {
		return s, errAttributeName("You can use one type of server-side encryption (SSE) at one time. You can either enable KMS SSE or SQS SSE.")
	}
	if s.throughput == limitPerGroup && s.dedupScope != scopeGroup {
		return s, errAttributeValue(attrThroughput, "The perMessageGroupId value is allowed only when the value for DeduplicationScope is messageGroup.")
	}
	return s, nil
}

func (s *settings) set(name, value string) *apiError {
	switch name {
	case attrDelay:
		return setNumber(&s.delay, name, value, 0, maxDelay)
	case attrMaxSize:
		return setNumber(&s.maxSize, name, value, 1024, maxMessageBytes)
	case attrRetention:
		return setNumber(&s.retention, name, value, 60, 1_209_600)
	case attrWait:
		return setNumber(&s.wait, name, value, 0, maxWait)
	case attrVisibility:
		return setNumber(&s.visibility, name, value, 0, maxVisibility)
	case attrKmsReuse:
		return setNumber(&s.kmsReuse, name, value, 60, 86_400)
	case attrKmsKey:
		s.kmsKey = value
		if value != "" {
			s.sse = false
		}
		return nil
	case attrSSE:
		if err := setBool(&s.sse, name, value); err != nil {
			return err
		}
		if s.sse {
			s.kmsKey = ""
		}
		return nil
	case attrPolicy:
		return s.setPolicy(value)
	case attrRedrive:
		return s.setRedrive(value)
	case attrAllow:
		return s.setRedriveAllow(value)
	}
	return s.setFIFO(name, value)
}

// setFIFO sets the attributes that only FIFO queues have.
func (s *settings) setFIFO(name, value string) *apiError {
	if !s.fifo {
		if name == attrDedupScope || name == attrThroughput {
			return errAttributeName("You can specify the %s only when FifoQueue is set to true.", name)
		}
		return errAttributeName("Unknown Attribute %s.", name)
	}
	switch name {
	case attrFifo:
		fifo := true
		if err := setBool(&fifo, name, value); err != nil || fifo {
			return err
		}
		return errAttributeValue(attrFifo, "Modifying queue type is not supported.")
	case attrContentDedup:
		return setBool(&s.contentDedup, name, value)
	case attrDedupScope:
		return setOneOf(&s.dedupScope, name, value, scopeQueue, scopeGroup)
	default:
		return setOneOf(&s.throughput, name, value, limitPerQueue, limitPerGroup)
	}
}

// get is an attribute's value as GetQueueAttributes reports it; false when the queue has none.
func (s *settings) get(name string) (string, bool) {
	switch name {
	case attrDelay:
		return strconv.Itoa(s.delay), true
	case attrMaxSize:
		return strconv.Itoa(s.maxSize), true
	case attrRetention:
		return strconv.Itoa(s.retention), true
	case attrWait:
		return strconv.Itoa(s.wait), true
	case attrVisibility:
		return strconv.Itoa(s.visibility), true
	case attrSSE:
		return strconv.FormatBool(s.sse), true
	case attrKmsKey:
		return s.kmsKey, s.kmsKey != ""
	case attrKmsReuse:
		return strconv.Itoa(s.kmsReuse), s.kmsKey != ""
	case attrPolicy:
		return s.policy, s.policy != ""
	case attrRedrive:
		return s.redrive.text(), s.redrive != nil
	case attrAllow:
		return s.allow.text(), s.allow != nil
	}
	if !s.fifo {
		return "", false
	}
	switch name {
	case attrFifo:
		return "true", true
	case attrContentDedup:
		return strconv.FormatBool(s.contentDedup), true
	case attrDedupScope:
		return s.dedupScope, true
	case attrThroughput:
		return s.throughput, true
	}
	return "", false
}

// firstDifference is the first of the given attributes that is not what the queue has, or "": what CreateQueue compares
// when the name exists. Attributes that were not given are not compared.
func (s *settings) firstDifference(wanted *settings, given map[string]string) string {
	for _, name := range settableAttributes {
		if _, ok := given[name]; !ok {
			continue
		}
		have, _ := s.get(name)
		want, _ := wanted.get(name)
		if have != want {
			return name
		}
	}
	return ""
}

func (s *settings) setPolicy(value string) *apiError {
	if value == "" {
		s.policy = ""
		return nil
	}
	var document map[string]any
	if json.Unmarshal([]byte(value), &document) != nil || document == nil { // null is no document
		return errAttributeValue(attrPolicy, "")
	}
	s.policy = compactJSON(value)
	return nil
}

// redrivePolicy sends messages to a dead-letter queue.
type redrivePolicy struct {
	target      string
	maxReceives int
}

func (p *redrivePolicy) text() string {
	if p == nil {
		return ""
	}
	return `{"deadLetterTargetArn":"` + p.target + `","maxReceiveCount":` + strconv.Itoa(p.maxReceives) + `}`
}

func (s *settings) setRedrive(value string) *apiError {
	if value == "" {
		s.redrive = nil
		return nil
	}
	var p struct {
		Target *string     `json:"deadLetterTargetArn"`
		Max    json.Number `json:"maxReceiveCount"` // a number, or a string that holds one
	}
	switch err := json.Unmarshal([]byte(value), &p); {
	case err != nil:
		return errParameter(attrRedrive, value, "Redrive policy is not a valid JSON map.")
	case p.Target == nil || *p.Target == "":
		return errParameter(attrRedrive, value, "Redrive policy does not contain mandatory attribute: deadLetterTargetArn.")
	case p.Max == "":
		return errParameter(attrRedrive, value, "Redrive policy does not contain mandatory attribute: maxReceiveCount.")
	}
	maximum, err := strconv.Atoi(p.Max.String())
	if err != nil || maximum < 1 || maximum > 1000 {
		return errParameter(attrRedrive, value, "Invalid value for maxReceiveCount: "+p.Max.String()+", valid values are from 1 to 1000 both inclusive.")
	}
	if _, ok := parseARN(*p.Target); !ok {
		return errParameter(attrRedrive, value, "Invalid value for deadLetterTargetArn.")
	}
	s.redrive = &redrivePolicy{*p.Target, maximum}
	return nil
}

// redriveAllowPolicy says which queues may use this one as their dead-letter queue.
type redriveAllowPolicy struct {
	permission string
	sources    []string
}

const (
	allowAll     = "allowAll"
	denyAll      = "denyAll"
	allowByQueue = "byQueue"
)

func (p *redriveAllowPolicy) text() string {
	if p == nil {
		return ""
	}
	b, err := json.Marshal(struct {
		Permission string   `json:"redrivePermission"`
		Sources    []string `json:"sourceQueueArns,omitempty"`
	}{p.permission, p.sources})
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

func (p *redriveAllowPolicy) allows(sourceARN string) bool {
	switch {
	case p == nil || p.permission == allowAll:
		return true
	case p.permission == allowByQueue:
		return isOneOf(sourceARN, p.sources)
	}
	return false
}

func (s *settings) setRedriveAllow(value string) *apiError {
	if value == "" {
		s.allow = nil
		return nil
	}
	var p struct {
		Permission string   `json:"redrivePermission"`
		Sources    []string `json:"sourceQueueArns"`
	}
	bad := func(reason string) *apiError { return errParameter(attrAllow, value, reason) }
	switch err := json.Unmarshal([]byte(value), &p); {
	case err != nil:
		return bad("Redrive allow policy is not a valid JSON map.")
	case !isOneOf(p.Permission, []string{allowAll, denyAll, allowByQueue}):
		return bad("Invalid value for redrivePermission: must be one of allowAll, denyAll, byQueue.")
	case p.Permission == allowByQueue && (len(p.Sources) == 0 || len(p.Sources) > 10):
		return bad("sourceQueueArns must hold 1 to 10 ARNs when redrivePermission is byQueue.")
	case p.Permission != allowByQueue && len(p.Sources) > 0:
		return bad("sourceQueueArns can be given only when redrivePermission is byQueue.")
	}
	for _, arn := range p.Sources {
		if _, ok := parseARN(arn); !ok {
			return bad("Invalid value for sourceQueueArns.")
		}
	}
	s.allow = &redriveAllowPolicy{p.Permission, p.Sources}
	return nil
}

var arnForm = regexp.MustCompile(`^arn:aws[a-z-]*:sqs:([a-z0-9-]+):([0-9]{12}):([A-Za-z0-9_-]{1,80}(?:\.fifo)?)$`)

func parseARN(arn string) (queueKey, bool) {
	m := arnForm.FindStringSubmatch(arn)
	if m == nil {
		return queueKey{}, false
	}
	return queueKey{region: m[1], account: m[2], name: m[3]}, true
}

func setNumber(field *int, name, value string, low, high int) *apiError {
	n, err := strconv.Atoi(value)
	if err != nil || n < low || n > high {
		return errAttributeValue(name, "")
	}
	*field = n
	return nil
}

func setBool(field *bool, name, value string) *apiError {
	switch strings.ToLower(value) {
	case "true":
		*field = true
	case "false":
		*field = false
	default:
		return errAttributeValue(name, "")
	}
	return nil
}

func setOneOf(field *string, name, value string, choices ...string) *apiError {
	if !isOneOf(value, choices) {
		return errAttributeValue(name, "")
	}
	*field = value
	return nil
}

func isOneOf(value string, choices []string) bool {
	for _, c := range choices {
		if c == value {
			return true
		}
	}
	return false
}

func compactJSON(s string) string {
	var b bytes.Buffer
	if json.Compact(&b, []byte(s)) != nil {
		return s
	}
	return b.String()
}
