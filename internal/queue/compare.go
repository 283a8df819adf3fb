package queue

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// defaults are the values of a new queue's attributes (SetQueueAttributes, API reference). A missing attribute
// means its default, and an empty one means none.
var defaults = map[string]string{
	VisibilityTimeout:         "30",
	MessageRetentionPeriod:    "345600",
	MaximumMessageSize:        "1048576",
	ReceiveMessageWaitTime:    "0",
	DelaySeconds:              "0",
	ContentBasedDeduplication: "false",
	DeduplicationScope:        "queue",
	FIFOThroughputLimit:       "perQueue",
	KMSMasterKeyID:            "",
	KMSDataKeyReusePeriod:     "300",
	SQSManagedSSE:             "true",
	Policy:                    "",
	RedrivePolicy:             "",
	RedriveAllowPolicy:        "",
}

// HasDefault reports whether AWS's default of an attribute is known here, so that unsetting it can restore it.
func HasDefault(attribute string) bool {
	_, known := defaults[attribute]
	return known
}

// equal reports whether two values of an attribute mean the same.
func equal(name, a, b string) bool {
	if a == b {
		return true
	}
	switch name {
	case Policy:
		return sameJSON(a, b, canonicalPolicy)
	case RedrivePolicy, RedriveAllowPolicy:
		return sameJSON(a, b, canonicalRedrive)
	case KMSMasterKeyID:
		return false
	}
	if !HasDefault(name) && isObject(a) && isObject(b) {
		// SQS writes its structured attributes anew, and every list in those that are known is a set.
		return sameJSON(a, b, canonicalRedrive)
	}
	return plain(name, a) == plain(name, b)
}

// plain fills in the default, and writes numbers and booleans in one way.
func plain(name, value string) string {
	if value == "" {
		value = defaults[name]
	}
	if n, err := strconv.ParseInt(value, 10, 64); err == nil {
		return strconv.FormatInt(n, 10)
	}
	if lower := strings.ToLower(value); lower == "true" || lower == "false" {
		return lower
	}
	return value
}

// SamePolicy reports whether two access policies mean the same to SQS: the order of lists, a single value in place
// of a list, the case of actions, and the forms of a principal do not matter.
func SamePolicy(a, b string) bool { return equal(Policy, a, b) }

func sameJSON(a, b string, canonical func(any) any) bool {
	if a == "" || b == "" {
		return a == b
	}
	var left, right any
	if json.Unmarshal([]byte(a), &left) != nil || json.Unmarshal([]byte(b), &right) != nil {
		return false
	}
	return text(canonical(left)) == text(canonical(right))
}

func isObject(value string) bool { return strings.HasPrefix(strings.TrimSpace(value), "{") }

// text is a value as JSON. Go sorts the keys of objects.
func text(value any) string {
	b, err := json.Marshal(value)
	if err != nil {
		panic(err) // Every value came out of json.Unmarshal.
	}
	return string(b)
}

// canonicalRedrive writes every number and boolean as text, since SQS takes and gives either, and sorts lists.
func canonicalRedrive(value any) any {
	switch v := value.(type) {
	case map[string]any:
		all := make(map[string]any, len(v))
		for key, value := range v {
			all[key] = canonicalRedrive(value)
		}
		return all
	case []any:
		return sorted(v, canonicalRedrive)
	case string:
		return v
	default:
		return text(v)
	}
}

// canonicalPolicy brings an IAM policy document into one form.
func canonicalPolicy(value any) any {
	document, ok := value.(map[string]any)
	if !ok {
		return value
	}
	all := make(map[string]any, len(document)+1)
	all["Version"] = "2008-10-17" // what a document without a version is taken for (IAM user guide)
	for key, value := range document {
		if key == "Statement" {
			value = sorted(list(value), canonicalStatement)
		}
		all[key] = value
	}
	return all
}

func canonicalStatement(value any) any {
	statement, ok := value.(map[string]any)
	if !ok {
		return value
	}
	all := make(map[string]any, len(statement))
	for key, value := range statement {
		switch key {
		case "Action", "NotAction":
			value = sorted(list(value), lowered)
		case "Resource", "NotResource":
			value = sorted(list(value), unchanged)
		case "Principal", "NotPrincipal":
			value = canonicalPrincipal(value)
		case "Condition":
			value = canonicalCondition(value)
		}
		all[key] = value
	}
	return all
}

func canonicalPrincipal(value any) any {
	if value == "*" {
		value = map[string]any{"AWS": "*"}
	}
	principals, ok := value.(map[string]any)
	if !ok {
		return value
	}
	all := make(map[string]any, len(principals))
	for kind, value := range principals {
		all[kind] = sorted(list(value), canonicalAccount)
	}
	return all
}

// canonicalAccount turns the ARN of an account's root, as AWS stores it, into the account's number.
func canonicalAccount(value any) any {
	if s, ok := value.(string); ok {
		parts := strings.Split(s, ":")
		if len(parts) == 6 && parts[2] == "iam" && parts[5] == "root" {
			return parts[4]
		}
	}
	return value
}

func canonicalCondition(value any) any {
	operators, ok := value.(map[string]any)
	if !ok {
		return value
	}
	all := make(map[string]any, len(operators))
	for operator, value := range operators {
		keys, ok := value.(map[string]any)
		if !ok {
			all[operator] = value
			continue
		}
		lists := make(map[string]any, len(keys))
		for key, value := range keys {
			key = conditionKey(key)
			lists[key] = sorted(list(value), canonicalRedrive)
		}
		all[operator] = lists
	}
	return all
}

// conditionKey brings a condition's key into one case, but not what follows its slash: in aws:ResourceTag/Team that is the
// name of a tag.
func conditionKey(key string) string {
	key, rest, found := strings.Cut(key, "/")
	if found {
		rest = "/" + rest
	}
	return strings.ToLower(key) + rest
}

func list(value any) []any {
	if l, ok := value.([]any); ok {
		return l
	}
	return []any{value}
}

// sorted brings every element into its form, and sorts them without duplicates.
func sorted(values []any, canonical func(any) any) []any {
	all := make([]any, len(values))
	for i, value := range values {
		all[i] = canonical(value)
	}
	slices.SortFunc(all, func(a, b any) int { return strings.Compare(text(a), text(b)) })
	return slices.CompactFunc(all, func(a, b any) bool { return text(a) == text(b) })
}

func lowered(value any) any {
	if s, ok := value.(string); ok {
		return strings.ToLower(s)
	}
	return value
}

func unchanged(value any) any { return value }

// Restorable names the attributes that a queue of our own gets AWS's default for when its spec does not set them
// and nothing is remembered of it. A policy is not among them: whoever wrote one meant it.
func Restorable() []string {
	var all []string
	for name := range defaults {
		if name != Policy && name != RedriveAllowPolicy {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return all
}

// OffDefault names those of the restorable attributes of which a queue shows another value than AWS's default.
func OffDefault(attributes map[string]string) []string {
	return slices.DeleteFunc(Restorable(), func(name string) bool { return equal(name, attributes[name], defaults[name]) })
}
