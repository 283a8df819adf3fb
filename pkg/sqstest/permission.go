package sqstest

import (
	"encoding/json"
	"slices"
)

// AddPermission and RemovePermission edit the statements of the queue's policy document. The document is kept and shown;
// who may do what is decided by Server.SetAccess alone.

const (
	maxLabel = 80
	// "An Amazon SQS policy can have a maximum of seven actions per statement" (AddPermission, API reference).
	maxStatementActions = 7
	// "AddPermission returns this error if the maximum number of permissions for the queue is reached" (OverLimit, API
	// reference), which is 20 statements (policy quotas, developer guide).
	maxStatements = 20
)

// sharable are the actions that AddPermission can grant ("you can't grant cross-account access to the others": AddPermission, API reference).
var sharable = []string{
	"*", "ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "GetQueueUrl", "ListDeadLetterSourceQueues",
	"PurgeQueue", "ReceiveMessage", "SendMessage",
}

// policyDocument is as much of a policy as has to be understood to edit it.
type policyDocument struct {
	Version   string     `json:"Version"`
	ID        string     `json:"Id,omitempty"`
	Statement statements `json:"Statement"`
}

// statements are a list, or just one.
type statements []json.RawMessage

func (s *statements) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '{' {
		*s = statements{slices.Clone(b)}
		return nil
	}
	return json.Unmarshal(b, (*[]json.RawMessage)(s))
}

type statement struct {
	Sid       string         `json:"Sid"`
	Effect    string         `json:"Effect"`
	Principal map[string]any `json:"Principal"`
	Action    any            `json:"Action"`
	Resource  string         `json:"Resource"`
}

type addPermissionIn struct {
	onQueue
	Label    string
	Accounts []string `json:"AWSAccountIds"`
	Actions  []string
}

func addPermission(c *call, in addPermissionIn) (any, *apiError) {
	switch {
	case in.Label == "":
		return nil, errMissing("Label")
	case len(in.Label) > maxLabel || !isBatchID(in.Label):
		return nil, errParameter("Label", in.Label, "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length.")
	case len(in.Accounts) == 0:
		return nil, errMissing("AWSAccountIds")
	case len(in.Actions) == 0:
		return nil, errMissing("Actions")
	case len(in.Actions) > maxStatementActions:
		return nil, errOverLimit("%d Actions were found, maximum allowed is %d.", len(in.Actions), maxStatementActions)
	}
	s := statement{Sid: in.Label, Effect: "Allow"}
	for _, a := range in.Actions {
		if !isOneOf(a, sharable) {
			return nil, errParameter("ActionName", "SQS:"+a, "Please refer to the appropriate WSDL for a list of valid actions.")
		}
	}
	s.Action = oneOrMore(in.Actions, "SQS:", "")
	for _, a := range in.Accounts {
		if !IsAccount(a) {
			return nil, errParameter("PrincipalId", a, "Unable to verify.")
		}
	}
	s.Principal = map[string]any{"AWS": oneOrMore(in.Accounts, "arn:aws:iam::", ":root")}
	return c.editPolicy(in.QueueURL, func(q *queue, p *policyDocument) *apiError {
		if i := p.index(in.Label); i >= 0 {
			return errParameter("Label", in.Label, "Already exists.")
		}
		if len(p.Statement) >= maxStatements {
			return errOverLimit("%d Statements were found, maximum allowed is %d.", len(p.Statement)+1, maxStatements)
		}
		s.Resource = q.arn
		b, err := json.Marshal(s)
		if err != nil {
			panic(err) // strings always marshal
		}
		p.Statement = append(p.Statement, b)
		return nil
	})
}

// oneOrMore is a single string, or a list of several, as policies have it.
func oneOrMore(values []string, prefix, suffix string) any {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = prefix + v + suffix
	}
	if len(out) == 1 {
		return out[0]
	}
	return out
}

type removePermissionIn struct {
	onQueue
	Label string
}

func removePermission(c *call, in removePermissionIn) (any, *apiError) {
	if in.Label == "" {
		return nil, errMissing("Label")
	}
	return c.editPolicy(in.QueueURL, func(_ *queue, p *policyDocument) *apiError {
		i := p.index(in.Label)
		if i < 0 {
			return errParameter("Label", in.Label, "can't find label.")
		}
		p.Statement = slices.Delete(p.Statement, i, i+1)
		return nil
	})
}

func (p *policyDocument) index(sid string) int {
	return slices.IndexFunc(p.Statement, func(raw json.RawMessage) bool {
		var s struct{ Sid string }
		return json.Unmarshal(raw, &s) == nil && s.Sid == sid
	})
}

func (c *call) editPolicy(url string, edit func(*queue, *policyDocument) *apiError) (any, *apiError) {
	q, err := c.find(url)
	if err != nil {
		return nil, err
	}
	now, err := q.lock()
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	p := policyDocument{Version: "2008-10-17", ID: q.arn + "/SQSDefaultPolicy"}
	if q.settings.policy != "" && json.Unmarshal([]byte(q.settings.policy), &p) != nil {
		return nil, errAttributeValue(attrPolicy, "The policy's statements are not a list.")
	}
	if err := edit(q, &p); err != nil {
		return nil, err
	}
	set := q.settings
	set.policy = ""
	if len(p.Statement) > 0 {
		b, err := json.Marshal(p)
		if err != nil {
			panic(err) // statements are JSON already
		}
		set.policy = string(b)
	}
	q.change(set, now)
	return nil, nil
}
