// Package policy holds the admission policies as they are shipped, for the operator to compare with what is installed.
package policy

import _ "embed" // The policies are YAML.

// Heartbeats is the ValidatingAdmissionPolicy that lets a pod renew its own heartbeat and nothing else, and its
// binding, as YAML.
//
//go:embed heartbeats.yaml
var Heartbeats []byte
