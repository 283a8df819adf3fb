// Package model is the model test of a reply queue's life: a cluster in memory, driven by random actions from a seed,
// in which the operator's own reconcilers run, one external call at a time.
//
// What is real: the reconcilers of pods, ReplyHosts and ReplyQueues with the event handlers they register, the listener of
// heartbeats with its ledger, lifecycle.Decide, the sweeper, the fence, and pkg/sqstest. What is simulated: an API server,
// with watches that lag, lists that are old and backups that are restored; kubelets, applications, people. What is copied
// from internal/operator is only how these are wired together: whom a notice of the listener wakes, and when the fence and
// the sweeper, which take turns here, begin. TestScriptsOnAnAPIServer puts a sample of scripts to a real API server and
// expects the same calls to come of every action, and the same to be seen after it.
//
// Every reconcile, sweep, comparison of the fence and beacon is a coroutine that stops before each call to the API server
// or to SQS. So the script decides what happens between any two calls: a heartbeat, the death of the operator, a second
// leader, a day of silence.
//
// The truth that promises are judged by is what processes do (do they live, read, heartbeat?) and what happened to their
// queues; never what a reconciler was told. A promise is judged at every call and every change, and again when the world
// has come to rest.
//
// A step is one action of a script, of which many come to hundreds of calls. Half of them are drawn by weights, half are of
// the kinds that were not played for longest: each kind is played at least twice in a thousand steps, or the test fails.
//
//	make model STEPS=200000 SEED=7
//
// prints what was done how often, and at which step each of the deliberate mistakes of mutants_test.go was noticed. Those
// mistakes are made at the seams that the model provides: wrong answers of client, cache, SQS or clock, a decision
// changed, a write made without its version. Its last line is
//
//	MODEL OK steps=<n> violations=0 mutants_caught=<k>/<k>
//
// A violation prints the seed of its episode and the shortest script found that still shows it. To see the episode, or that
// script in a file, run step by step:
//
//	go test ./test/model -run TestReplay -v -seed=<seed of the episode> [-script=<file>]
package model
