package sqstest

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// The actions on queues: create, find, list, delete, attributes, tags, purge.

// onQueue is the part of an input that names its queue.
type onQueue struct {
	QueueURL string `json:"QueueUrl"`
}

func (q onQueue) subject(c *call) (queueKey, bool) { return c.parseQueue(q.QueueURL) }
func (onQueue) size() int                          { return 1 }

type queueURLOut struct {
	QueueURL string `json:"QueueUrl"`
}

type createQueueIn struct {
	QueueName  *string
	Attributes map[string]string
	Tags       map[string]string `json:"tags"`
}

func (in createQueueIn) subject(c *call) (queueKey, bool) {
	return queueKey{c.region, c.account, deref(in.QueueName)}, in.QueueName != nil
}
func (createQueueIn) size() int { return 1 }

func createQueue(c *call, in createQueueIn) (any, *apiError) {
	if in.QueueName == nil {
		return nil, errMissing("QueueName")
	}
	name := *in.QueueName
	fifo := strings.EqualFold(in.Attributes[attrFifo], "true")
	if err := checkQueueName(name, fifo); err != nil {
		return nil, err
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	wanted, err := defaultSettings(fifo).apply(in.Attributes)
	if err != nil {
		return nil, err
	}
	key := queueKey{c.region, c.account, name}
	if err := c.s.checkRedrive(key, &wanted, in.Attributes); err != nil {
		return nil, err
	}
	q, created, err := c.s.registry.create(c.s, key, wanted, maps.Clone(in.Tags), c.s.millis())
	if err != nil {
		return nil, err
	}
	if !created {
		if err := q.sameAs(&wanted, in); err != nil {
			return nil, err
		}
	}
	return queueURLOut{queueURL(c.base, key)}, nil
}

// sameAs refuses a second creation of a queue that asks for something else. Attributes and tags that are not given are
// not compared.
func (q *queue) sameAs(wanted *settings, in createQueueIn) *apiError {
	if _, err := q.lock(); err != nil {
		return err
	}
	defer q.unlock()
	if name := q.settings.firstDifference(wanted, in.Attributes); name != "" {
		return errNameExists("attribute " + name)
	}
	if len(in.Tags) > 0 && !maps.Equal(in.Tags, q.tags) {
		return errNameExists("tags")
	}
	return nil
}

// isQueueName reports whether a queue of either kind can have that name.
func isQueueName(name string) bool {
	base := strings.TrimSuffix(name, ".fifo")
	for i := range len(base) {
		if c := base[i]; !isAlphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return base != "" && len(name) <= maxQueueName
}

func checkQueueName(name string, fifo bool) *apiError {
	isFifo, valid := strings.HasSuffix(name, ".fifo"), isQueueName(name)
	switch {
	case fifo && (!valid || !isFifo):
		return errInvalidParameter("The name of a FIFO queue can only include alphanumeric characters, hyphens, or underscores, must end with .fifo suffix and be 1 to %d in length.", maxQueueName)
	case !fifo && (!valid || isFifo):
		return errInvalidParameter("Can only include alphanumeric characters, hyphens, or underscores. 1 to %d in length", maxQueueName)
	}
	return nil
}

type getQueueURLIn struct {
	QueueName *string
	Owner     string `json:"QueueOwnerAWSAccountId"`
}

func (in getQueueURLIn) subject(c *call) (queueKey, bool) {
	key := queueKey{c.region, c.account, deref(in.QueueName)}
	if in.Owner != "" {
		key.account = in.Owner
	}
	return key, in.QueueName != nil
}
func (getQueueURLIn) size() int { return 1 }

func getQueueURL(c *call, in getQueueURLIn) (any, *apiError) {
	if in.QueueName == nil {
		return nil, errMissing("QueueName")
	}
	key, _ := in.subject(c)
	if _, err := c.findKey(key); err != nil {
		return nil, err
	}
	return queueURLOut{queueURL(c.base, key)}, nil
}

type listQueuesIn struct {
	Prefix     string `json:"QueueNamePrefix"`
	NextToken  string
	MaxResults *int
}

func (listQueuesIn) subject(*call) (queueKey, bool) { return queueKey{}, false }
func (listQueuesIn) size() int                      { return 1 }

type listQueuesOut struct {
	QueueURLs []string `json:"QueueUrls,omitempty"`
	NextToken string   `json:",omitempty"`
}

func listQueues(c *call, in listQueuesIn) (any, *apiError) {
	limit, after, err := page(in.MaxResults, in.NextToken)
	if err != nil {
		return nil, err
	}
	var out listQueuesOut
	names, more := c.page(queueKey{c.region, c.account, in.Prefix}, after, limit)
	for _, name := range names {
		out.QueueURLs = append(out.QueueURLs, queueURL(c.base, queueKey{c.region, c.account, name}))
	}
	// "You must set MaxResults to receive a value for NextToken" (ListQueues, API reference).
	if more && in.MaxResults != nil {
		out.NextToken = pageToken(names[len(names)-1])
	}
	return out, nil
}

// page is one page of names, behind the times where the fault plan wants that.
func (c *call) page(from queueKey, after string, limit int) (names []string, more bool) {
	now, r := c.s.millis(), &c.s.registry
	names, more = r.page(from, after, limit, now, 0)
	lag := c.s.faults.listLag(c, func(lag int64) bool {
		behind, _ := r.page(from, after, limit, now, lag)
		return !slices.Equal(behind, names)
	})
	if lag > 0 {
		return r.page(from, after, limit, now, lag)
	}
	return names, more
}

// page is the two parameters that lists of queues are paged by.
func page(maxResults *int, token string) (limit int, after string, err *apiError) {
	limit = maxListResults
	if maxResults != nil {
		limit = *maxResults
		if limit < 1 || limit > maxListResults {
			return 0, "", errParameter("MaxResults", limit, "MaxResults must be an integer between 1 and 1000.")
		}
	}
	if token == "" {
		return limit, "", nil
	}
	after, ok := parsePageToken(token)
	if !ok {
		return 0, "", errInvalidParameter("Invalid or expired next token.")
	}
	return limit, after, nil
}

type deleteQueueIn struct{ onQueue }

func deleteQueue(c *call, in deleteQueueIn) (any, *apiError) {
	q, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	return nil, c.s.deleteQueue(q)
}

func (s *Server) deleteQueue(q *queue) *apiError {
	if !s.registry.delete(q, s.millis()) {
		return errNoQueue()
	}
	q.close()
	s.tasks.forget(q)
	return nil
}

type getQueueAttributesIn struct {
	onQueue
	Names []string `json:"AttributeNames"`
}

type attributesOut struct {
	Attributes map[string]string `json:",omitempty"`
}

func getQueueAttributes(c *call, in getQueueAttributesIn) (any, *apiError) {
	for _, name := range in.Names {
		if name != "All" && !isOneOf(name, settableAttributes) && !isOneOf(name, readOnlyAttributes) {
			return nil, errAttributeName("Unknown Attribute %s.", name)
		}
	}
	q, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	now, err := c.lockToRead(q)
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	set, seen := q.settings, q.counts()
	changed := func(lag int64) bool { return q.modified != q.created && now < q.modified+lag }
	if lag := c.s.faults.stale(c, func(lag int64) bool { return changed(lag) || q.countsAt(now-lag) != seen }); lag > 0 {
		if changed(lag) {
			set = q.previous
		}
		seen = q.countsAt(now - lag)
	}
	all := q.allAttributes(set, seen)
	if slices.Contains(in.Names, "All") {
		return attributesOut{all}, nil
	}
	out := map[string]string{}
	for _, name := range in.Names {
		if v, ok := all[name]; ok {
			out[name] = v
		}
	}
	return attributesOut{out}, nil
}

// allAttributes is everything GetQueueAttributes can say. The queue must be locked.
func (q *queue) allAttributes(set settings, seen counts) map[string]string {
	all := map[string]string{
		attrArn:        q.arn,
		attrVisible:    strconv.Itoa(seen.visible),
		attrNotVisible: strconv.Itoa(seen.inFlight),
		attrDelayed:    strconv.Itoa(seen.delayed),
		attrCreated:    strconv.FormatInt(q.created/1000, 10),
		attrModified:   strconv.FormatInt(q.modified/1000, 10),
	}
	for _, name := range settableAttributes {
		if v, ok := set.get(name); ok {
			all[name] = v
		}
	}
	return all
}

type setQueueAttributesIn struct {
	onQueue
	Attributes map[string]string
}

func setQueueAttributes(c *call, in setQueueAttributesIn) (any, *apiError) {
	q, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	if len(in.Attributes) == 0 {
		return nil, errMissing("Attribute.Name")
	}
	if _, err := q.lock(); err != nil {
		return nil, err
	}
	wanted, err := q.settings.apply(in.Attributes)
	q.unlock()
	if err != nil {
		return nil, err
	}
	if err := c.s.checkRedrive(q.key, &wanted, in.Attributes); err != nil {
		return nil, err
	}
	now, err := q.lock()
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	// Once more, on what the settings are by now: somebody else may have set others meanwhile.
	wanted, err = q.settings.apply(in.Attributes)
	if err != nil {
		return nil, err
	}
	q.change(wanted, now)
	return nil, nil
}

// change gives the queue new settings. The queue must be locked.
func (q *queue) change(set settings, now int64) {
	q.previous, q.modified = q.settings, now
	q.settings = set
	q.touch()
	if q.previous.redrive != set.redrive {
		q.server.registry.relink(q)
	}
	if q.fifo != nil && q.previous.delay != set.delay {
		// "For FIFO queues the per-queue delay setting is retroactive" (delay queues, developer guide).
		q.redelay(int64(set.delay)*1000, now)
	}
	q.settle(now)
}

// redelay counts the delay of every message that nobody has received yet anew.
func (q *queue) redelay(delay, now int64) {
	for _, m := range q.messages {
		if m.receives > 0 || m.state == stateInFlight {
			continue
		}
		switch until := m.enqueued + delay; {
		case until > now:
			q.hide(m, stateDelayed, until)
		case m.state == stateDelayed:
			q.show(m)
		}
	}
}

type purgeQueueIn struct{ onQueue }

func purgeQueue(c *call, in purgeQueueIn) (any, *apiError) {
	q, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	now, err := q.lock()
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	if q.purged != 0 && now < q.purged+nameLock {
		return nil, errPurgeInProgress(q.key.name)
	}
	q.purged = now
	q.clear()
	q.touch()
	return nil, nil
}

// Limits of tags ("tagging", AWS general reference). SQS advises against more than 50 tags and takes them.
const (
	maxTagKey   = 128
	maxTagValue = 256
)

func checkTags(tags map[string]string) *apiError {
	for _, k := range slices.Sorted(maps.Keys(tags)) { // in order, so that of several errors always the same one is reported
		v := tags[k]
		switch {
		case k == "" || len([]rune(k)) > maxTagKey:
			return errInvalidParameter("Tag keys must be between 1 and %d characters in length.", maxTagKey)
		case strings.HasPrefix(strings.ToLower(k), "aws:"):
			return errInvalidParameter("Tag keys cannot start with 'aws:'.")
		case len([]rune(v)) > maxTagValue:
			return errInvalidParameter("Tag values must be between 0 and %d characters in length.", maxTagValue)
		}
	}
	return nil
}

type tagQueueIn struct {
	onQueue
	Tags map[string]string
}

func tagQueue(c *call, in tagQueueIn) (any, *apiError) {
	if len(in.Tags) == 0 {
		return nil, errMissing("Tags")
	}
	if err := checkTags(in.Tags); err != nil {
		return nil, err
	}
	return c.withTags(in.QueueURL, func(tags map[string]string) { maps.Copy(tags, in.Tags) })
}

type untagQueueIn struct {
	onQueue
	TagKeys []string
}

func untagQueue(c *call, in untagQueueIn) (any, *apiError) {
	if in.TagKeys == nil {
		return nil, errMissing("TagKeys")
	}
	return c.withTags(in.QueueURL, func(tags map[string]string) {
		for _, k := range in.TagKeys {
			delete(tags, k)
		}
	})
}

func (c *call) withTags(url string, change func(map[string]string)) (any, *apiError) {
	q, err := c.find(url)
	if err != nil {
		return nil, err
	}
	now, err := q.lock()
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	// A new map: the old one may be in somebody's hands.
	tags := map[string]string{}
	maps.Copy(tags, q.tags)
	change(tags)
	q.previousTags, q.tagged = q.tags, now
	q.tags = tags
	q.touch()
	return nil, nil
}

type listQueueTagsIn struct{ onQueue }

func listQueueTags(c *call, in listQueueTagsIn) (any, *apiError) {
	q, err := c.find(in.QueueURL)
	if err != nil {
		return nil, err
	}
	now, err := c.lockToRead(q)
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	tags := q.tags
	if c.s.faults.stale(c, func(lag int64) bool { return q.tagged != 0 && now < q.tagged+lag }) > 0 {
		tags = q.previousTags
	}
	return struct {
		Tags map[string]string `json:",omitempty"`
	}{tags}, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}
