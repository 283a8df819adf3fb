package sqstest

// AllFaults is every fault there is.
var AllFaults = allFaults
