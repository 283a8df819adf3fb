package rpcenv

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/replyqueue/replyqueue/pkg/rpcclient"
	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

// defaultHeartbeats is the namespace of the Leases where the environment names none: the operator's
// default, for pods that started before they were injected.
const (
	defaultHeartbeats       = "replyqueue-heartbeats"
	defaultHeartbeatSeconds = 60
)

// environment is what a container was told.
type environment struct {
	replyQueueURL string
	channels      injected.Channels // nil: not told
	addresses     *injected.ReturnAddresses
	addressesFile string              // has the addresses of now; empty: they do not change
	identity      *injected.Identity  // nil: the pod's alone
	heartbeat     *injected.Heartbeat // nil: the pod itself is the signal
	region        string
	endpoint      string
	podName       string
	account       serviceAccount
	apiServer     string // empty outside a cluster
}

// readEnvironment reads the variables. exists reports whether a folder does.
func readEnvironment(getenv func(string) string, exists func(string) bool) (environment, error) {
	e := environment{
		replyQueueURL: getenv(injected.EnvReplyQueueURL),
		region:        getenv(injected.EnvRegion),
		endpoint:      getenv(injected.EnvEndpoint),
		podName:       getenv(injected.EnvPodName),
		addressesFile: getenv(injected.EnvReturnAddressesFile),
		account:       serviceAccount(getenv(injected.EnvServiceAccountDir)),
	}
	if e.podName == "" {
		e.podName = getenv("HOSTNAME") // a pod's name, unless it sets spec.hostname
	}
	if host, port := getenv("KUBERNETES_SERVICE_HOST"), getenv("KUBERNETES_SERVICE_PORT"); host != "" && port != "" {
		e.apiServer = "https://" + net.JoinHostPort(host, port)
	}
	if e.account == "" {
		e.account = injected.DefaultServiceAccountDir
		if exists(injected.ProjectedServiceAccountDir) {
			e.account = injected.ProjectedServiceAccountDir
		}
	}
	if err := e.readChannels(getenv); err != nil {
		return e, err
	}
	a, err := injected.ParseReturnAddresses(getenv(injected.EnvReturnAddresses))
	switch {
	case err == nil:
		e.addresses = &a
	case !errors.Is(err, injected.ErrAbsent):
		return e, fmt.Errorf("%s: %w", injected.EnvReturnAddresses, err)
	}
	i, err := injected.ParseIdentity(getenv(injected.EnvIdentity))
	switch {
	case err == nil:
		e.identity = &i
	case !errors.Is(err, injected.ErrAbsent):
		return e, fmt.Errorf("%s: %w", injected.EnvIdentity, err)
	}
	return e, e.readHeartbeat(getenv)
}

func (e *environment) readChannels(getenv func(string) string) error {
	channels, err := injected.ParseChannels(getenv(injected.EnvChannels))
	if err != nil && !errors.Is(err, injected.ErrAbsent) {
		return fmt.Errorf("%s: %w", injected.EnvChannels, err)
	}
	for name, c := range channels {
		// A variable that the pod's author set was left alone by the webhook, and wins.
		if url := getenv(injected.ChannelURLVariable(name)); url != "" && url != c.URL {
			c.URL = url
			channels[name] = c
		}
	}
	e.channels = channels
	return nil
}

// readHeartbeat finds the Lease. A pod that started before it was injected has neither addresses nor a
// Lease's name in its environment: then the Lease of the pod's UID is asked for them.
func (e *environment) readHeartbeat(getenv func(string) string) error {
	h, err := injected.ParseHeartbeat(getenv(injected.EnvHeartbeat))
	switch {
	case err == nil:
		e.heartbeat = &h
	case !errors.Is(err, injected.ErrAbsent):
		return fmt.Errorf("%s: %w", injected.EnvHeartbeat, err)
	case e.apiServer != "" && e.replyQueueURL == "" && e.channels == nil:
		uid := getenv(injected.EnvPodUID)
		if uid == "" {
			uid = e.account.podUID()
		}
		if uid != "" {
			e.heartbeat = &injected.Heartbeat{Namespace: defaultHeartbeats, Name: uid, IntervalSeconds: defaultHeartbeatSeconds}
		}
	}
	if e.heartbeat != nil && e.apiServer == "" {
		return fmt.Errorf("%s is set but KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not: run in a pod, or unset it (then the pod itself is the signal)", injected.EnvHeartbeat)
	}
	return nil
}

// configs turns channels into what rpcclient takes, those of the wanted role.
func configs(channels injected.Channels, wanted func(injected.Role) bool) []rpcclient.ChannelConfig {
	var out []rpcclient.ChannelConfig
	for name, c := range channels {
		if wanted(c.Role) {
			out = append(out, rpcclient.ChannelConfig{
				Name: name, URL: c.URL, FIFO: c.FIFO, DeadLetter: c.DeadLetter,
				Timeout:           seconds(c.TimeoutSeconds),
				MaxAttempts:       int(c.MaxAttempts),
				VisibilityTimeout: seconds(c.VisibilityTimeoutSeconds),
				MaxMessageBytes:   int(c.MaximumMessageBytes),
				MaxReceiveCount:   int(c.MaxReceiveCount),
			})
		}
	}
	return out
}

func folderExists(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
