package main

import (
	"encoding/json"
	"net/http"
	"slices"
)

// doom strikes a send of requests that is doomed, or becomes so: of what was sent before its answer was lost, and is
// throttled ever after, nobody can say that it was not sent; of what was throttled each time, everybody can. It reports
// whether the request was answered.
func (g *gate) doom(w http.ResponseWriter, r *http.Request, q *sqsRequest) bool {
	g.mu.Lock()
	doomed := make([]bool, len(q.keys))
	some := false
	for i, keys := range q.keys {
		doomed[i] = slices.ContainsFunc(keys, func(k string) bool { return g.doomed[k] })
		some = some || doomed[i]
	}
	rate := doomRate
	if slices.Contains(q.reply, "") {
		rate = doomRateOneWay
	}
	at, whole := g.rng.Float64(), g.rng.IntN(2) == 0
	first := !some && g.faulty && at < 2*rate
	if first {
		for _, k := range q.allKeys() {
			g.doomed[k] = true
		}
	}
	g.mu.Unlock()
	switch {
	case first && at < rate:
		g.do(r, q)
		g.hit(q, doubted)
		drop(w)
	case first:
		g.hit(q, starved)
		refuse(w, http.StatusForbidden, "RequestThrottled")
	case some && whole && !slices.Contains(doomed, false):
		refuse(w, http.StatusForbidden, "RequestThrottled")
	case some:
		g.throttleEntries(w, r, q, doomed)
	}
	return first || some
}

// throttleEntries lets a batch through without those of its entries that are doomed, which are throttled.
func (g *gate) throttleEntries(w http.ResponseWriter, r *http.Request, q *sqsRequest, doomed []bool) {
	var in map[string]json.RawMessage
	var entries []json.RawMessage
	if json.Unmarshal(q.raw, &in) != nil || json.Unmarshal(in["Entries"], &entries) != nil {
		refuse(w, http.StatusForbidden, "RequestThrottled")
		return
	}
	type failure struct {
		ID          string `json:"Id"`
		Code        string
		Message     string
		SenderFault bool
	}
	out := struct{ Successful, Failed []any }{[]any{}, []any{}}
	var rest []json.RawMessage
	for i, e := range entries {
		if !doomed[i] {
			rest = append(rest, e)
			continue
		}
		var name struct {
			ID string `json:"Id"`
		}
		_ = json.Unmarshal(e, &name)
		out.Failed = append(out.Failed, failure{name.ID, "RequestThrottled", "soak", true})
	}
	if len(rest) > 0 {
		in["Entries"], _ = json.Marshal(rest)
		part := *q // with the keys of all entries, whose places are their names
		part.raw, _ = json.Marshal(in)
		answer := g.do(r, &part)
		if answer.status != http.StatusOK {
			answer.copyTo(w)
			return
		}
		var said struct{ Successful, Failed []json.RawMessage }
		_ = json.Unmarshal(answer.body.Bytes(), &said)
		for _, e := range said.Successful {
			out.Successful = append(out.Successful, e)
		}
		for _, e := range said.Failed {
			out.Failed = append(out.Failed, e)
		}
	}
	w.Header().Set("Content-Type", "application/x-amz-json-1.0")
	_ = json.NewEncoder(w).Encode(out)
}
