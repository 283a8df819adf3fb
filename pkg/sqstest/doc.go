// Package sqstest is Amazon SQS in memory, for tests: all 23 actions of the API, over AWS JSON 1.0, as the SDKs speak it.
package sqstest
