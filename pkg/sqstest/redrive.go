package sqstest

// checkRedrive looks at what a redrive policy needs of other queues: that the dead-letter queue exists, is of the same
// kind, account and region, and allows it. Only policies that are being set are looked at.
func (s *Server) checkRedrive(key queueKey, set *settings, given map[string]string) *apiError {
	if given[attrRedrive] == "" || set.redrive == nil {
		return nil
	}
	value := given[attrRedrive]
	target, _ := parseARN(set.redrive.target)
	dead := s.registry.get(target)
	switch {
	case dead == nil:
		return errParameter(attrRedrive, value, "Dead letter target does not exist.")
	case target.region != key.region || target.account != key.account:
		return errParameter(attrRedrive, value, "Dead letter target must be in the account and region of the queue.")
	}
	if _, err := dead.lock(); err != nil {
		return errParameter(attrRedrive, value, "Dead letter target does not exist.")
	}
	defer dead.unlock()
	switch {
	case dead.settings.fifo != set.fifo:
		return errParameter(attrRedrive, value, "Dead-letter queue must be same type of queue as the source.")
	case !dead.settings.allow.allows(key.arn()):
		return errParameter(attrRedrive, value, "Queue "+target.name+" does not allow this queue to use it as a dead-letter queue.")
	}
	return nil
}

type listDeadLetterSourceQueuesIn struct {
	onQueue
	NextToken  string
	MaxResults *int
}

type listDeadLetterSourceQueuesOut struct {
	QueueURLs []string `json:"queueUrls"`
	NextToken string   `json:",omitempty"`
}

func listDeadLetterSourceQueues(c *call, in listDeadLetterSourceQueuesIn) (any, *apiError) {
	limit, after, err := page(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	dead, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	out := listDeadLetterSourceQueuesOut{QueueURLs: []string{}}
	names := c.s.registry.sourcesOf(dead)
	for i, name := range names {
		if after != "" && name <= after {
			continue
		}
		if len(out.QueueURLs) == limit {
			if in.MaxResults != nil {
				out.NextToken = pageToken(names[i-1])
			}
			break
		}
		out.QueueURLs = append(out.QueueURLs, queueURL(c.base, queueKey{dead.key.region, dead.key.account, name}))
	}
	return out, nil
}
