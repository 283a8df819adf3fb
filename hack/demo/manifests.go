package main

import (
	"fmt"
	"os"
	"path/filepath"
)

const (
	nodeName  = "demo-node"
	namespace = "demo"

	// The story's times. An installation's are minutes; nobody watches for that long.
	heartbeatSeconds     = 1
	idleRetentionSeconds = 6
	drainSeconds         = 3
	// visibilitySeconds is after how long a request that a dead responder held is given to another.
	visibilitySeconds = 5

	fewRequesters, manyRequesters = 2, 12
	callsPerSecond                = 20 // of each requester
	callers                       = 8  // in each requester: at most so many calls are under way
)

// writeInstallation writes a kustomization of config/default with the changes that running outside a cluster
// needs, and returns its folder.
func (s *stage) writeInstallation(webhookPort int) (string, error) {
	return s.writeOverlay("install", fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../../config/default]
patches:
- target: {kind: MutatingWebhookConfiguration}
  patch: |
    - {op: replace, path: /webhooks/0/clientConfig, value: {url: "https://localhost:%[1]d/mutate-pods"}}
    - {op: replace, path: /webhooks/1/clientConfig, value: {url: "https://localhost:%[1]d/mutate-pods"}}
- target: {kind: Deployment, name: replyqueue-controller-manager}
  patch: |
    - {op: replace, path: /spec/replicas, value: 0}
`, webhookPort))
}

// writeSamples writes a kustomization of config/samples with short times, and returns its folder.
func (s *stage) writeSamples() (string, error) {
	return s.writeOverlay("samples", fmt.Sprintf(`apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources: [../../../config/samples]
patches:
- target: {kind: ReplyHost}
  patch: |
    apiVersion: replyqueue.dev/v1alpha1
    kind: ReplyHost
    metadata: {name: ignored}
    spec: {heartbeat: {intervalSeconds: %d}, idleRetentionSeconds: %d, drainSeconds: %d}
- target: {kind: RequestChannel}
  patch: |
    apiVersion: replyqueue.dev/v1alpha1
    kind: RequestChannel
    metadata: {name: ignored}
    spec: {queue: {visibilityTimeoutSeconds: %d}, call: {timeoutSeconds: 30}}
- target: {kind: Deployment, name: requester}
  patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: requester}
    spec:
      replicas: %d
      template:
        spec:
          containers:
          - name: requester
            env: [{name: RATE, value: "%d"}, {name: CONCURRENCY, value: "%d"}, {name: STATS_INTERVAL, value: 500ms}]
- target: {kind: Deployment, name: responder}
  patch: |
    apiVersion: apps/v1
    kind: Deployment
    metadata: {name: responder}
    spec:
      template:
        spec:
          containers:
          - name: responder
            env: [{name: RECEIVE_WAIT, value: 5s}, {name: STATS_INTERVAL, value: 500ms}]
`, heartbeatSeconds, idleRetentionSeconds, drainSeconds, visibilitySeconds, fewRequesters, callsPerSecond, callers))
}

func (s *stage) writeOverlay(name, text string) (string, error) {
	dir, err := s.folder(name)
	if err != nil {
		return "", err
	}
	return dir, os.WriteFile(filepath.Join(dir, "kustomization.yaml"), []byte(text), 0o600)
}
