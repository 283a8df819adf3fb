package controller

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"

	"github.com/replyqueue/replyqueue/internal/controller/conditions"
)

// ShortNotes returns a recorder that cuts the notes of events to what the API server takes. It refuses longer ones, and
// the recorder of client-go then drops the event.
func ShortNotes(recorder events.EventRecorder) events.EventRecorder { return shortNotes{recorder} }

type shortNotes struct{ recorder events.EventRecorder }

// Eventf is the recorder's.
func (s shortNotes) Eventf(regarding, related runtime.Object, eventtype, reason, action, note string, args ...any) {
	s.recorder.Eventf(regarding, related, eventtype, reason, action, "%s", conditions.Cut(fmt.Sprintf(note, args...), conditions.LongestNote))
}
