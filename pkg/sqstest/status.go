package sqstest

import (
	"bytes"
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
		Attributes: q.allAttributes(q.settings), Tags: map[string]string{},
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
		_ = json.NewEncoder(w).Encode(s.State("http://" + r.Host))
	case "/":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		var b bytes.Buffer
		if err := statusPage.Execute(&b, s.page("http://"+r.Host)); err != nil {
			http.Error(w, "cannot render the page", http.StatusInternalServerError)
			return
		}
		_, _ = w.Write(b.Bytes())
	default:
		http.NotFound(w, r)
	}
}

// shownQueues is how many queues the page lists.
const shownQueues = 500

type pageData struct {
	Now     string
	Actions []actionRow
	Queues  []QueueInfo
	Hidden  int
	Total   totals
}

type totals struct{ Queues, Visible, InFlight, Delayed, Pollers, Requests, Failed int }

type actionRow struct {
	Action                    string
	Requests, Entries, Failed int
}

func (s *Server) page(base string) pageData {
	st := s.State(base)
	p := pageData{Now: s.clock.Now().UTC().Format("15:04:05 MST"), Queues: st.Queues}
	for _, action := range slices.Sorted(maps.Keys(st.Requests)) {
		row := actionRow{action, st.Requests[action], st.Entries[action], st.Failed[action]}
		if action == "" {
			row.Action = "(not of the SQS API)"
		}
		p.Actions = append(p.Actions, row)
		p.Total.Requests += row.Requests
		p.Total.Failed += row.Failed
	}
	for _, q := range st.Queues {
		p.Total.Queues++
		p.Total.Visible += q.Visible
		p.Total.InFlight += q.InFlight
		p.Total.Delayed += q.Delayed
		p.Total.Pollers += q.Pollers
	}
	if len(p.Queues) > shownQueues {
		p.Hidden = len(p.Queues) - shownQueues
		p.Queues = p.Queues[:shownQueues]
	}
	return p
}

func shortAge(d time.Duration) string {
	switch {
	case d <= 0:
		return "–"
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

var statusPage = template.Must(template.New("status").Funcs(template.FuncMap{"age": shortAge}).Parse(`<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="2">
<title>sqstest: {{.Total.Queues}} queues</title>
<style>
:root { color-scheme: light dark }
body { font: 15px/1.45 system-ui, sans-serif; margin: 1.5rem auto; max-width: 70rem; padding: 0 1rem }
h1 { font-size: 1.3rem; margin: 0 } h2 { font-size: 1.05rem; margin: 1.5rem 0 .3rem }
p { margin: .2rem 0 }
table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; font-variant-numeric: tabular-nums; vertical-align: top }
th:first-child, td:first-child { text-align: left; overflow-wrap: anywhere }
th { font-weight: 600 } td.zero { opacity: .35 }
small { opacity: .65 }
</style>
</head>
<body>
<h1>sqstest</h1>
<p>SQS in memory. {{.Total.Queues}} queues, {{.Total.Visible}} messages visible, {{.Total.InFlight}} in flight, {{.Total.Delayed}} delayed,
{{.Total.Pollers}} polls waiting. <small>{{.Now}}, renewed every 2 s. The same as JSON: <a href="/_sqstest/state">/_sqstest/state</a></small></p>
<h2>Queues</h2>
{{if .Queues}}<table>
<tr><th>queue</th><th>visible</th><th>in flight</th><th>delayed</th><th>polls</th><th>oldest</th></tr>
{{range .Queues}}<tr><td title="{{.ARN}}">{{.Name}}{{range $k, $v := .Tags}}<br><small>{{$k}}={{$v}}</small>{{end}}</td>
<td{{if not .Visible}} class="zero"{{end}}>{{.Visible}}</td><td{{if not .InFlight}} class="zero"{{end}}>{{.InFlight}}</td>
<td{{if not .Delayed}} class="zero"{{end}}>{{.Delayed}}</td><td{{if not .Pollers}} class="zero"{{end}}>{{.Pollers}}</td>
<td{{if not .OldestAge}} class="zero"{{end}}>{{age .OldestAge}}</td></tr>
{{end}}</table>
{{if .Hidden}}<p>and {{.Hidden}} more: see the JSON.</p>{{end}}{{else}}<p>None.</p>{{end}}
<h2>Requests</h2>
{{if .Actions}}<table>
<tr><th>action</th><th>requests</th><th>entries</th><th>failed</th></tr>
{{range .Actions}}<tr><td>{{.Action}}</td><td>{{.Requests}}</td><td>{{.Entries}}</td><td{{if not .Failed}} class="zero"{{end}}>{{.Failed}}</td></tr>
{{end}}<tr><th>all</th><th>{{.Total.Requests}}</th><th></th><th>{{.Total.Failed}}</th></tr>
</table>{{else}}<p>None.</p>{{end}}
</body>
</html>
`))
