package sqstest

import (
	"encoding/json"
	"fmt"
	"strings"
)

// AccessByPolicy reads a policy document of IAM, as it is attached to a role, into the rules for SetAccess that hold whoever signs with
// accessKey to it (a pattern, see AccessRule). Programs that are tested under it ask for no more than their role will allow. Resources
// are "*" or ARNs of queues, of which the name alone counts. As in IAM, ListQueues has no resource: it is allowed on "*"
// alone. It fails on what the server does not evaluate, conditions and NotAction, say, rather than allow more or less than
// the document does.
func AccessByPolicy(accessKey string, document []byte) ([]AccessRule, error) {
	var policy struct {
		Version, Id string
		Statement   listOrOne[struct {
			Sid, Effect      string
			Action, Resource listOrOne[string]
		}]
	}
	decoder := json.NewDecoder(strings.NewReader(string(document)))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&policy); err != nil {
		return nil, fmt.Errorf("sqstest: IAM policy: %w", err)
	}
	var rules []AccessRule
	for i, s := range policy.Statement {
		if s.Effect != "Allow" && s.Effect != "Deny" {
			return nil, fmt.Errorf("sqstest: IAM policy: statement %d: Effect %q is neither Allow nor Deny", i, s.Effect)
		}
		for _, action := range s.Action {
			name, ofSQS := strings.CutPrefix(action, "sqs:")
			if !ofSQS && action != "*" {
				continue // Another service's.
			}
			for _, resource := range s.Resource {
				rule := AccessRule{Deny: s.Effect == "Deny", AccessKey: accessKey, Action: name}
				if resource != "*" {
					arn := strings.SplitN(resource, ":", 6)
					if len(arn) < 6 || arn[2] != "sqs" {
						continue // No queue of any name.
					}
					rule.Queue = arn[5]
					if rule.Action == "ListQueues" {
						continue // IAM never matches it with a queue.
					}
				}
				if err := rule.check(); err != nil {
					return nil, fmt.Errorf("sqstest: IAM policy: statement %d: %w", i, err)
				}
				rules = append(rules, rule)
			}
		}
	}
	return rules, nil
}

// listOrOne is a list of which IAM may write a single member without brackets.
type listOrOne[T any] []T

// UnmarshalJSON implements json.Unmarshaler.
func (l *listOrOne[T]) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return strictly(b, (*[]T)(l))
	}
	*l = make(listOrOne[T], 1)
	return strictly(b, &(*l)[0])
}

// strictly decodes without letting through what is not known: a decoder's strictness ends at an UnmarshalJSON.
func strictly(b []byte, into any) error {
	decoder := json.NewDecoder(strings.NewReader(string(b)))
	decoder.DisallowUnknownFields()
	return decoder.Decode(into)
}
