package sqstest

import (
	"bytes"
	_ "embed" // status.html
	"encoding/json"
	"fmt"
	"html/template"
	"io"
	"maps"
	"net/http"
	"slices"
	"time"
)

// QueueInfo is a queue as it stands.
type QueueInfo struct {
	Name    string `json:"name"`
	URL     string `json:"url"`
	ARN     string `json:"arn"`
	Account string `json:"account"`
	Region  string `json:"region"`
	// Attributes is what GetQueueAttributes answers to "All".
	Attributes map[string]string `json:"attributes"`
	Tags       map[string]string `json:"tags"`
	// Visible messages can be received now, InFlight ones were and are hidden, Delayed ones were not yet.
	Visible  int `json:"visible"`
	InFlight int `json:"inFlight"`
	Delayed  int `json:"delayed"`
	// Pollers is the number of long polls that wait.
	Pollers int `json:"pollers"`
	// OldestAge is the time since the oldest message was sent, 0 without messages.
	OldestAge time.Duration `json:"oldestAgeNanoseconds"`
	Created   time.Time     `json:"created"`
}

// Queues is all queues, of every account and region, by region, account and name. Looking costs no request. URLs are
// those of the endpoint that the server listens on, or that Client uses.
func (s *Server) Queues() []QueueInfo { return s.queues(s.endpoint()) }

// Queue is the queue of that name, in the default account and region first. It is false when there is none.
func (s *Server) Queue(name string) (QueueInfo, bool) {
	q := s.registry.get(queueKey{s.region, s.account, name})
	if q == nil {
		for _, other := range s.registry.all() {
			if other.key.name == name {
				q = other
				break
			}
		}
	}
	if q == nil {
		return QueueInfo{}, false
	}
	return q.info(s.endpoint())
}

func (s *Server) queues(base string) []QueueInfo {
	all := s.registry.all()
	out := make([]QueueInfo, 0, len(all))
	for _, q := range all {
		if info, ok := q.info(base); ok {
			out = append(out, info)
		}
	}
	return out
}

func (q *queue) info(base string) (QueueInfo, bool) {
	now, err := q.lock()
	if err != nil {
		return QueueInfo{}, false
	}
	defer q.unlock()
	info := QueueInfo{
		Name: q.key.name, URL: queueURL(base, q.key), ARN: q.arn, Account: q.key.account, Region: q.key.region,
		Attributes: q.allAttributes(q.settings, q.counts()), Tags: map[string]string{},
		Visible: q.visibleCount(), InFlight: q.inFlight, Delayed: q.delayed, Pollers: q.waiters.len,
		Created: time.UnixMilli(q.created).UTC(),
	}
	maps.Copy(info.Tags, q.tags)
	if q.age.len() > 0 {
		info.OldestAge = millis(now - q.age.first().enqueued)
	}
	return info, true
}

// State is what GET /_sqstest/state answers, for another process that wants to know what this one knows.
type State struct {
	// Requests is RequestsByAction: how many requests each action had since the start.
	Requests map[string]int `json:"requests"`
	// Failed is the same of those that did not end in success.
	Failed map[string]int `json:"failed"`
	// Entries is the messages and handles that they carried.
	Entries map[string]int `json:"entries"`
	Queues  []QueueInfo    `json:"queues"`
}

// State is a copy of everything the status page shows. base is what the queues' URLs begin with; "" for the server's own
// endpoint.
func (s *Server) State(base string) State {
	if base == "" {
		base = s.endpoint()
	}
	st := State{
		Requests: s.RequestsByAction(), Failed: s.RequestsByAction(Failed()), Entries: map[string]int{}, Queues: s.queues(base),
	}
	s.log.each(nil, func(r *Request, n *count) { st.Entries[r.Action] += n.entries })
	return st
}

// serveStatus answers GET: / is a page for people, /_sqstest/state the same as JSON, /healthz says that the server is up.
func (s *Server) serveStatus(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch r.URL.Path {
	case "/healthz":
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = io.WriteString(w, "ok\n")
	case "/_sqstest/state":
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s.State(baseURL(r)))
	case "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		var b bytes.Buffer
		if err := statusPage.Execute(&b, s.page(baseURL(r))); err != nil {
			http.Error(w, "cannot render the page", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(b.Bytes())
	default:
		http.NotFound(w, r)
	}
}

// How many queues the page shows: those with messages or polls in a table, the others by name only.
const (
	shownBusy = 500
	shownIdle = 1000
)

// rateOver is the time that requests a second are counted over.
const rateOver = 10 * time.Second

type pageData struct {
	Now                               string
	Actions                           []actionRow
	Busy, Idle                        []queueRow
	BusyHidden, IdleHidden, IdleTotal int
	Total                             totals
}

type totals struct {
	Queues, Visible, InFlight, Delayed, Pollers, Requests int
	Oldest                                                time.Duration
	Rate                                                  float64
}

type queueRow struct {
	QueueInfo
	Where string // account and region, where they are not the server's own
	Depth int    // visible messages, as a percentage of the deepest queue's
}

type actionRow struct {
	Action                    string
	Requests, Entries, Failed int
	Rate                      float64 // requests a second
}

func (s *Server) page(base string) pageData {
	st := s.State(base)
	now := s.clock.Now()
	p := pageData{Now: now.UTC().Format("15:04:05 MST")}
	rates := s.log.rates(now)
	for _, action := range slices.Sorted(maps.Keys(st.Requests)) {
		row := actionRow{action, st.Requests[action], st.Entries[action], st.Failed[action], rates[action]}
		if action == "" {
			row.Action = "(not of the SQS API)"
		}
		p.Actions = append(p.Actions, row)
		p.Total.Requests += row.Requests
		p.Total.Rate += row.Rate
	}
	deepest := 10 // a single message is no long bar
	for i := range st.Queues {
		q := &st.Queues[i]
		p.Total.Queues++
		p.Total.Visible += q.Visible
		p.Total.InFlight += q.InFlight
		p.Total.Delayed += q.Delayed
		p.Total.Pollers += q.Pollers
		p.Total.Oldest = max(p.Total.Oldest, q.OldestAge)
		deepest = max(deepest, q.Visible)
	}
	for _, q := range st.Queues {
		row := queueRow{QueueInfo: q}
		if q.Account != s.account || q.Region != s.region {
			row.Where = q.Account + " " + q.Region
		}
		if q.Visible+q.InFlight+q.Delayed+q.Pollers == 0 {
			p.Idle = append(p.Idle, row)
			continue
		}
		row.Depth = 100 * q.Visible / deepest
		p.Busy = append(p.Busy, row)
	}
	p.IdleTotal = len(p.Idle)
	p.Busy, p.BusyHidden = firstOf(p.Busy, shownBusy)
	p.Idle, p.IdleHidden = firstOf(p.Idle, shownIdle)
	return p
}

func firstOf(rows []queueRow, n int) (shown []queueRow, hidden int) {
	if len(rows) <= n {
		return rows, 0
	}
	return rows[:n], len(rows) - n
}

// rates is how many requests a second each action had lately: over rateOver, or as far back as the log remembers.
func (l *requestLog) rates(now time.Time) map[string]float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := map[string]float64{}
	over := rateOver
	for i := range l.ring {
		// From the latest back; the log is in the order in which requests ended.
		r := &l.ring[(l.next+2*len(l.ring)-1-i)%len(l.ring)]
		ago := now.Sub(r.Time.Add(r.Duration))
		if ago >= rateOver {
			break
		}
		out[r.Action]++
		if i == logged-1 {
			over = max(ago, time.Millisecond)
		}
	}
	for action := range out {
		out[action] /= over.Seconds()
	}
	return out
}

func shortAge(d time.Duration) string {
	switch {
	case d <= 0:
		return "–"
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

func shortRate(r float64) string {
	if r == 0 {
		return "–"
	}
	if r < 10 {
		return fmt.Sprintf("%.1f", r)
	}
	return fmt.Sprintf("%.0f", r)
}

//go:embed status.html
var statusHTML string

var statusPage = template.Must(template.New("status").Funcs(template.FuncMap{"age": shortAge, "rate": shortRate}).Parse(statusHTML))
