package rpcenv

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// policyOf is what injected addresses mean; nil: the responder's own rule.
func policyOf(a *injected.ReturnAddresses) rpcclient.ReturnAddressPolicy {
	if a == nil {
		return rpcclient.ReturnAddressPolicy{}
	}
	return rpcclient.ReturnAddressPolicy{AccountID: a.AccountID, Region: a.Region, Endpoint: a.Endpoint, Prefixes: a.Prefixes}
}

// addressesFile is the file in which the kubelet shows which reply queues the pod may answer now. What cannot be read
// changes nothing.
type addressesFile struct {
	name string
	log  *slog.Logger

	mu     sync.Mutex
	read   string // the latest text
	policy rpcclient.ReturnAddressPolicy
}

// current is the policy of now.
func (f *addressesFile) current() rpcclient.ReturnAddressPolicy {
	text, err := os.ReadFile(f.name)
	f.mu.Lock()
	defer f.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) || err == nil && string(text) == f.read {
		return f.policy
	}
	var a injected.ReturnAddresses
	if err == nil {
		f.read = string(text)
		a, err = injected.ParseReturnAddresses(f.read)
	}
	switch {
	case err == nil:
		f.policy = policyOf(&a)
	case !errors.Is(err, injected.ErrAbsent):
		f.log.Warn("the return addresses cannot be read; those of before stand", "file", f.name, "error", err)
	}
	return f.policy
}
