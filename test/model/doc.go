// Package model is the model test of a reply queue's life: a cluster in memory, driven by random actions from a seed,
// in which the operator's own reconcilers run, one external call at a time.
//
// What is real: the reconcilers of pods, ReplyHosts and ReplyQueues with the event handlers they register, the ledger
// of heartbeats, lifecycle.Decide and lifecycle.Sweep, the fence, and pkg/sqstest. What is simulated: an API server, with
// watches that lag, kubelets, applications, people, and the listing half of a sweep. TestScriptsOnAnAPIServer puts a sample of
// scripts to a real API server and expects the same to be seen after every action.
//
// Every reconcile is a coroutine that stops before each call to the API server or to SQS. So the script decides what
// happens between any two calls: a heartbeat, the death of the operator, a second leader, a day of silence.
//
// The truth that promises are judged by is what processes do (do they live, read, heartbeat?) and what happened to their
// queues; never what a reconciler was told. A promise is judged after every step, and again when the world has come to
// rest.
//
//	make model STEPS=200000 SEED=7
//
// prints what was done how often, and at which step each of the deliberate mistakes of mutants_test.go was noticed. Its
// last line is
//
//	MODEL OK steps=<n> violations=0 mutants_caught=<k>/<k>
//
// A violation prints the seed of its episode and the shortest script found that still shows it. To see that script run,
// step by step:
//
//	go test ./test/model -run TestReplay -v -seed=<seed of the episode>
package model
