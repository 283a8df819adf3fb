package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
)

// store is the reply store that the responders of keptQueue share, kept where no process is killed. It is not
// struck by faults.
type store struct {
	kept     *rpcclient.MemoryReplyStore
	recalled atomic.Int64 // copies that were not to be handled
}

func newStore() *store { return &store{kept: rpcclient.NewMemoryReplyStore(1_000_000)} }

// question is what a responder asks the store, and said what it answers.
type question struct {
	Do     string             `json:"do"` // claim, complete, release
	Key    rpcclient.StoreKey `json:"key"`
	Until  time.Time          `json:"until"`
	Reply  []byte             `json:"reply,omitempty"`
	Failed bool               `json:"failed,omitempty"`
}

type said struct {
	Reply []byte               `json:"reply,omitempty"`
	State rpcclient.ClaimState `json:"state"`
	Err   string               `json:"err,omitempty"`
}

func (s *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var q question
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	var out said
	var err error
	switch q.Do {
	case "claim":
		out.Reply, out.State, err = s.kept.Claim(r.Context(), q.Key, q.Until)
		if out.State != rpcclient.ClaimGranted {
			s.recalled.Add(1)
		}
	case "complete":
		err = s.kept.Complete(r.Context(), q.Key, q.Reply, q.Failed, q.Until)
	default:
		err = s.kept.Release(r.Context(), q.Key)
	}
	if err != nil {
		out.Err = err.Error()
	}
	_ = json.NewEncoder(w).Encode(out)
}

// remoteStore is the URL of a store.
type remoteStore string

func (s remoteStore) ask(ctx context.Context, q question) (out said, err error) {
	body, err := json.Marshal(q)
	if err != nil {
		return out, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, string(s), bytes.NewReader(body))
	if err != nil {
		return out, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return out, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return out, fmt.Errorf("the store answers %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&out); err != nil {
		return out, err
	}
	if out.Err != "" {
		return out, errors.New(out.Err)
	}
	return out, nil
}

// Claim implements rpcclient.ReplyStore.
func (s remoteStore) Claim(ctx context.Context, key rpcclient.StoreKey, lease time.Time) ([]byte, rpcclient.ClaimState, error) {
	out, err := s.ask(ctx, question{Do: "claim", Key: key, Until: lease})
	return out.Reply, out.State, err
}

// Complete implements rpcclient.ReplyStore.
func (s remoteStore) Complete(ctx context.Context, key rpcclient.StoreKey, reply []byte, failed bool, expires time.Time) error {
	_, err := s.ask(ctx, question{Do: "complete", Key: key, Until: expires, Reply: reply, Failed: failed})
	return err
}

// Release implements rpcclient.ReplyStore.
func (s remoteStore) Release(ctx context.Context, key rpcclient.StoreKey) error {
	_, err := s.ask(ctx, question{Do: "release", Key: key})
	return err
}
