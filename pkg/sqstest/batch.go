package sqstest

import "net/http"

// The four batch actions. A batch is refused as a whole when it cannot be read as ten entries with their own IDs;
// otherwise each entry succeeds or fails by itself, in an answer with status 200.

type batchFailure struct {
	ID          string
	SenderFault bool
	Code        string
	Message     string
}

type batchResult[T batchEntry] struct {
	Successful []T
	Failed     []batchFailure
}

type batchSuccess struct{ ID string }

func (r *batchResult[T]) fail(id string, e *apiError) {
	r.Failed = append(r.Failed, batchFailure{id, e.sender, e.query, e.message})
}

// checkBatch is about the form of a batch: the number of entries, and their IDs.
func checkBatch[E interface{ entryID() string }](entryType string, entries []E) *apiError {
	switch {
	case len(entries) == 0:
		return errBatch("EmptyBatchRequest", "There should be at least one %s in the request.", entryType)
	case len(entries) > maxBatchEntries:
		return errBatch("TooManyEntriesInBatchRequest", "Maximum number of entries per request are %d. You have sent %d.", maxBatchEntries, len(entries))
	}
	ids := make(map[string]bool, len(entries))
	for _, e := range entries {
		id := e.entryID()
		if !isBatchID(id) {
			return errBatch("InvalidBatchEntryId", "A batch entry id can only contain alphanumeric characters, hyphens and underscores. It can be at most 80 letters long.")
		}
		if ids[id] {
			return errBatch("BatchEntryIdsNotDistinct", "Id %s repeated.", id)
		}
		ids[id] = true
	}
	return nil
}

func isBatchID(id string) bool {
	if id == "" || len(id) > maxBatchID {
		return false
	}
	for i := range len(id) {
		if c := id[i]; !isAlphanumeric(c) && c != '-' && c != '_' {
			return false
		}
	}
	return true
}

type sendBatchEntry struct {
	ID string `json:"Id"`
	sendEntry
}

func (e sendBatchEntry) entryID() string { return e.ID }

type sendMessageBatchIn struct {
	onQueue
	Entries []sendBatchEntry
}

func (in sendMessageBatchIn) size() int { return len(in.Entries) }

// bytes is what the limit of a batch is about: all its messages.
func (in sendMessageBatchIn) bytes() int {
	total := 0
	for i := range in.Entries {
		total += in.Entries[i].bytes()
	}
	return total
}

type sendBatchSuccess struct {
	ID string
	sendResult
}

func sendMessageBatch(c *call, in sendMessageBatchIn) (any, *apiError) {
	if err := checkBatch("SendMessageBatchRequestEntry", in.Entries); err != nil {
		return nil, err
	}
	if total := in.bytes(); total > maxMessageBytes {
		return nil, errBatch("BatchRequestTooLong", "Batch requests cannot be longer than %d bytes. You have sent %d bytes.", maxMessageBytes, total)
	}
	var out batchResult[sendBatchSuccess]
	q, err := c.find(in.QueueURL)
	if err != nil {
		gone, ok := c.s.faults.swallows(c, in.QueueURL)
		if !ok {
			return nil, err
		}
		if gone != nil && gone.fifo != nil {
			if err := gone.checkFIFOBatch(in.Entries); err != nil {
				return nil, err
			}
		}
		for i := range in.Entries {
			e := &in.Entries[i]
			sent, err := gone.pretend(c, &e.sendEntry)
			if err != nil {
				out.fail(e.ID, err)
				continue
			}
			c.payload += e.bytes()
			out.Successful = append(out.Successful, sendBatchSuccess{e.ID, sent})
		}
		return out, nil
	}
	now, err := q.lock()
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	if q.fifo != nil {
		if err := q.checkFIFOBatch(in.Entries); err != nil {
			return nil, err
		}
	}
	for i := range in.Entries {
		e := &in.Entries[i]
		if err := c.s.faults.entry(c); err != nil {
			out.fail(e.ID, err)
			continue
		}
		m, delay, err := q.prepare(c, &e.sendEntry)
		if err != nil {
			out.fail(e.ID, err)
			continue
		}
		c.payload += m.size()
		out.Successful = append(out.Successful, sendBatchSuccess{e.ID, q.send(m, now, delay)})
	}
	return out, nil
}

// checkFIFOBatch refuses a whole batch for what a FIFO queue needs of every entry (recorded answers: both are
// InvalidParameterValue here, though a single send without a group is MissingParameter).
func (q *queue) checkFIFOBatch(entries []sendBatchEntry) *apiError {
	for i := range entries {
		e := &entries[i]
		if e.Group == nil {
			return errInvalidParameter("The request must contain the parameter MessageGroupId.")
		}
		if e.Dedup == nil && !q.settings.contentDedup {
			return q.checkFIFOEntry(&e.sendEntry)
		}
	}
	return nil
}

type deleteBatchEntry struct {
	ID     string `json:"Id"`
	Handle string `json:"ReceiptHandle"`
}

func (e deleteBatchEntry) entryID() string { return e.ID }

type deleteMessageBatchIn struct {
	onQueue
	Entries []deleteBatchEntry
}

func (in deleteMessageBatchIn) size() int { return len(in.Entries) }

func deleteMessageBatch(c *call, in deleteMessageBatchIn) (any, *apiError) {
	if err := checkBatch("DeleteMessageBatchRequestEntry", in.Entries); err != nil {
		return nil, err
	}
	return eachEntry(c, in.QueueURL, in.Entries, func(q *queue, e deleteBatchEntry, _ int64) *apiError {
		return q.delete(e.Handle)
	})
}

type visibilityBatchEntry struct {
	ID      string `json:"Id"`
	Handle  string `json:"ReceiptHandle"`
	Timeout *int   `json:"VisibilityTimeout"`
}

func (e visibilityBatchEntry) entryID() string { return e.ID }

type changeMessageVisibilityBatchIn struct {
	onQueue
	Entries []visibilityBatchEntry
}

func (in changeMessageVisibilityBatchIn) size() int { return len(in.Entries) }

func changeMessageVisibilityBatch(c *call, in changeMessageVisibilityBatchIn) (any, *apiError) {
	if err := checkBatch("ChangeMessageVisibilityBatchRequestEntry", in.Entries); err != nil {
		return nil, err
	}
	return eachEntry(c, in.QueueURL, in.Entries, func(q *queue, e visibilityBatchEntry, now int64) *apiError {
		return q.changeVisibility(e.Handle, e.Timeout, now)
	})
}

// eachEntry does the same to every entry of a batch of handles.
func eachEntry[E interface{ entryID() string }](c *call, url string, entries []E, do func(*queue, E, int64) *apiError) (any, *apiError) {
	q, err := c.find(url)
	if err != nil {
		return nil, err
	}
	now, err := q.lock()
	if err != nil {
		return nil, err
	}
	defer q.unlock()
	var out batchResult[batchSuccess]
	for _, e := range entries {
		err := c.s.faults.entry(c)
		if err == nil {
			err = do(q, e, now)
		}
		if err != nil {
			out.fail(e.entryID(), err)
			continue
		}
		out.Successful = append(out.Successful, batchSuccess{e.entryID()})
	}
	return out, nil
}

// errInternal is the service's own failure.
func errInternal() *apiError {
	return &apiError{
		shape: "InternalFailure", query: "InternalError", status: http.StatusInternalServerError,
		message: "We encountered an internal error. Please try again.",
	}
}
