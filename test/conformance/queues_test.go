package conformance

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

const (
	bad           = http.StatusBadRequest
	badParameter  = "InvalidParameterValue"
	badName       = "InvalidAttributeName"
	badValue      = "InvalidAttributeValue"
	missing       = "MissingParameter"
	noQueue       = "AWS.SimpleQueueService.NonExistentQueue"
	deletedLately = "AWS.SimpleQueueService.QueueDeletedRecently"
)

func (k *kit) tryCreate(n string, a attrs, tags map[string]string) (*sqs.CreateQueueOutput, error) {
	out, err := k.c.CreateQueue(k.ctx, &sqs.CreateQueueInput{QueueName: &n, Attributes: a, Tags: tags})
	if err == nil {
		k.urls = append(k.urls, *out.QueueUrl)
	}
	return out, err
}

func (k *kit) trySet(url string, a attrs) error {
	_, err := k.c.SetQueueAttributes(k.ctx, &sqs.SetQueueAttributesInput{QueueUrl: &url, Attributes: a})
	return err
}

func (k *kit) drop(url string) {
	_, err := k.c.DeleteQueue(k.ctx, &sqs.DeleteQueueInput{QueueUrl: &url})
	k.ok("DeleteQueue", err)
}

func (k *kit) tags(url string) map[string]string {
	out, err := k.c.ListQueueTags(k.ctx, &sqs.ListQueueTagsInput{QueueUrl: &url})
	k.ok("ListQueueTags", err)
	return out.Tags
}

// rangeChecks are two checks: an attribute takes the ends of its range, and nothing beyond.
func rangeChecks(attribute string, low, high int) []check {
	return []check{
		{"create/" + attribute + "/range-ends", "API CreateQueue, Attributes", 0, func(k *kit) {
			for _, v := range []int{low, high} {
				u := k.queue(attrs{attribute: strconv.Itoa(v)})
				equal(k, attribute, k.attributes(u)[attribute], strconv.Itoa(v))
			}
		}},
		{"create/" + attribute + "/beyond", "API CreateQueue, Attributes and Errors", 0, func(k *kit) {
			for _, v := range []string{strconv.Itoa(low - 1), strconv.Itoa(high + 1), "x", ""} {
				_, err := k.tryCreate(name(false), attrs{attribute: v}, nil)
				k.refused(err, badValue, bad)
				typed[*types.InvalidAttributeValue](k, err)
			}
		}},
	}
}

func queueChecks() []check {
	all := []check{
		{"create/url-ends-in-account-and-name", "guide queue and message identifiers", 0, func(k *kit) {
			n := name(false)
			u := k.named(n, nil)
			parts := strings.Split(u, "/")
			equal(k, "name in "+u, parts[len(parts)-1], n)
			equal(k, "length of the account in "+u, len(parts[len(parts)-2]), 12)
		}},
		{"create/defaults", "API CreateQueue, Attributes; recorded test_set_queue_attributes_default_values", 0, func(k *kit) {
			a := k.attributes(k.queue(nil))
			for n, v := range (attrs{
				"DelaySeconds": "0", "MaximumMessageSize": "1048576", "MessageRetentionPeriod": "345600",
				"ReceiveMessageWaitTimeSeconds": "0", "VisibilityTimeout": "30", "SqsManagedSseEnabled": "true",
				"ApproximateNumberOfMessages": "0", "ApproximateNumberOfMessagesNotVisible": "0", "ApproximateNumberOfMessagesDelayed": "0",
			}) {
				equal(k, n, a[n], v)
			}
		}},
		{"create/defaults-have-no-others", "recorded test_set_queue_attributes_default_values", 0, func(k *kit) {
			a := k.attributes(k.queue(nil))
			equal(k, fmt.Sprintf("number of attributes in %v", a), len(a), 12)
		}},
		{"create/fifo-defaults", "recorded test_fifo_set_content_based_deduplication_strategy", 0, func(k *kit) {
			a := k.attributes(k.queue(attrs{"FifoQueue": "true"}))
			for n, v := range (attrs{"FifoQueue": "true", "ContentBasedDeduplication": "false", "DeduplicationScope": "queue", "FifoThroughputLimit": "perQueue"}) {
				equal(k, n, a[n], v)
			}
		}},
		{"create/again-without-attributes", "API CreateQueue, Description", 0, func(k *kit) {
			n := name(false)
			u := k.named(n, attrs{"DelaySeconds": "7"})
			equal(k, "URL", k.named(n, nil), u)
		}},
		{"create/again-with-some-of-the-attributes", "API CreateQueue, Description", 0, func(k *kit) {
			n := name(false)
			u := k.named(n, attrs{"DelaySeconds": "7", "VisibilityTimeout": "9"})
			equal(k, "URL", k.named(n, attrs{"VisibilityTimeout": "9"}), u)
		}},
		{"create/again-with-a-default-spelt-out", "API CreateQueue, Description", 0, func(k *kit) {
			n := name(false)
			u := k.named(n, nil)
			equal(k, "URL", k.named(n, attrs{"DelaySeconds": "0"}), u)
		}},
		{"create/again-different", "recorded test_create_queue_with_different_attributes_raises_exception", 0, func(k *kit) {
			n := name(false)
			k.named(n, attrs{"DelaySeconds": "7"})
			_, err := k.tryCreate(n, attrs{"DelaySeconds": "8"}, nil)
			k.refused(err, "QueueAlreadyExists", bad)
			typed[*types.QueueNameExists](k, err)
			k.contains(err, "different value for attribute DelaySeconds")
		}},
		{"create/fifo-again-different", "recorded test_create_fifo_queue_with_different_attributes_raises_error", 0, func(k *kit) {
			n := name(true)
			k.named(n, attrs{"FifoQueue": "true", "ContentBasedDeduplication": "true"})
			_, err := k.tryCreate(n, attrs{"FifoQueue": "true", "ContentBasedDeduplication": "false"}, nil)
			k.refused(err, "QueueAlreadyExists", bad)
			k.contains(err, "ContentBasedDeduplication")
		}},
		{"create/sees-attributes-set-since", "API CreateQueue, Description", 0, func(k *kit) {
			n := name(false)
			u := k.named(n, attrs{"DelaySeconds": "7"})
			k.set(u, attrs{"DelaySeconds": "8"})
			_, err := k.tryCreate(n, attrs{"DelaySeconds": "7"}, nil)
			k.refused(err, "QueueAlreadyExists", bad)
		}},
		{"create/name-of-80", "API CreateQueue, QueueName", 0, func(k *kit) { k.named(name(false)+strings.Repeat("x", 62), nil) }},
		{"create/name-of-81", "API CreateQueue, QueueName", 0, func(k *kit) {
			_, err := k.tryCreate(name(false)+strings.Repeat("x", 63), nil, nil)
			k.refused(err, badParameter, bad)
		}},
		{"create/name-with-bad-characters", "API CreateQueue, QueueName", 0, func(k *kit) {
			for _, n := range []string{"a b", "a.b", "ä", "a/b"} {
				_, err := k.tryCreate(n, nil, nil)
				k.refused(err, badParameter, bad)
			}
		}},
		{"create/names-are-case-sensitive", "API CreateQueue, QueueName", 0, func(k *kit) {
			n := name(false)
			lower, upper := k.named(n, nil), k.named(strings.ToUpper(n), nil)
			if lower == upper {
				k.failf("one queue for %s and its upper case", n)
			}
		}},
		{"create/fifo-without-suffix", "API CreateQueue, QueueName", 0, func(k *kit) {
			_, err := k.tryCreate(name(false), attrs{"FifoQueue": "true"}, nil)
			k.refused(err, badParameter, bad)
		}},
		{"create/suffix-without-fifo", "API CreateQueue, QueueName", 0, func(k *kit) {
			_, err := k.tryCreate(name(true), nil, nil)
			k.refused(err, badParameter, bad)
		}},
		{"create/unknown-attribute", "API CreateQueue, Errors", 0, func(k *kit) {
			_, err := k.tryCreate(name(false), attrs{"Nonsense": "1"}, nil)
			k.refused(err, badName, bad)
			typed[*types.InvalidAttributeName](k, err)
		}},
		{"create/fifo-attributes-on-standard", "recorded test_create_standard_queue_with_fifo_attribute_raises_error", 0, func(k *kit) {
			for n, v := range (attrs{"FifoQueue": "false", "ContentBasedDeduplication": "true", "DeduplicationScope": "queue", "FifoThroughputLimit": "perQueue"}) {
				_, err := k.tryCreate(name(false), attrs{n: v}, nil)
				k.refused(err, badName, bad)
			}
		}},
		{"create/throughput-per-group-needs-scope", "API CreateQueue, FifoThroughputLimit; API CreateQueue, Errors (InvalidAttributeValue)", 0, func(k *kit) {
			_, err := k.tryCreate(name(true), attrs{"FifoQueue": "true", "FifoThroughputLimit": "perMessageGroupId"}, nil)
			k.refused(err, badValue, bad)
		}},
		{"create/with-tags", "API CreateQueue, tags", 0, func(k *kit) {
			out, err := k.tryCreate(name(false), nil, map[string]string{"a": "1", "b": ""})
			k.ok("CreateQueue", err)
			t := k.tags(*out.QueueUrl)
			equal(k, fmt.Sprint(t), fmt.Sprint(t), fmt.Sprint(map[string]string{"a": "1", "b": ""}))
		}},
		{"create/timestamps", "API GetQueueAttributes, CreatedTimestamp and LastModifiedTimestamp", 3 * time.Second, func(k *kit) {
			u := k.queue(nil)
			before := k.attributes(u)
			equal(k, "LastModifiedTimestamp", before["LastModifiedTimestamp"], before["CreatedTimestamp"])
			created, err := strconv.ParseInt(before["CreatedTimestamp"], 10, 64)
			k.ok("CreatedTimestamp", err)
			if d := time.Since(time.Unix(created, 0)).Abs(); d > time.Minute {
				k.failf("created %v ago", d)
			}
			k.pass(2 * time.Second)
			k.set(u, attrs{"DelaySeconds": "1"})
			after := k.attributes(u)
			equal(k, "CreatedTimestamp", after["CreatedTimestamp"], before["CreatedTimestamp"])
			if after["LastModifiedTimestamp"] <= before["LastModifiedTimestamp"] {
				k.failf("LastModifiedTimestamp stays at %s", after["LastModifiedTimestamp"])
			}
		}},
		{"url/found", "API GetQueueUrl, Description", 0, func(k *kit) {
			n := name(false)
			u := k.named(n, nil)
			out, err := k.c.GetQueueUrl(k.ctx, &sqs.GetQueueUrlInput{QueueName: &n})
			k.ok("GetQueueUrl", err)
			equal(k, "URL", *out.QueueUrl, u)
		}},
		{"url/missing", "recorded test_non_existent_queue", 0, func(k *kit) {
			_, err := k.c.GetQueueUrl(k.ctx, &sqs.GetQueueUrlInput{QueueName: aws.String(name(false))})
			k.refused(err, noQueue, bad)
			typed[*types.QueueDoesNotExist](k, err)
		}},
		{"list/prefix", "API ListQueues, QueueNamePrefix", 0, func(k *kit) {
			n := name(false)
			k.named(n+"-1", nil)
			k.named(n+"-2", nil)
			k.named("x"+n, nil)
			equal(k, "number of queues", len(k.list(&sqs.ListQueuesInput{QueueNamePrefix: &n}).QueueUrls), 2)
		}},
		{"list/pages", "API ListQueues, MaxResults and NextToken", 0, func(k *kit) {
			n := name(false)
			for i := range 5 {
				k.named(fmt.Sprint(n, i), nil)
			}
			var sizes []int
			in := &sqs.ListQueuesInput{QueueNamePrefix: &n, MaxResults: aws.Int32(2)}
			for {
				out := k.list(in)
				sizes = append(sizes, len(out.QueueUrls))
				if in.NextToken = out.NextToken; in.NextToken == nil {
					break
				}
			}
			equal(k, "sizes of the pages", fmt.Sprint(sizes), "[2 2 1]")
		}},
		{"list/no-token-without-max", "API ListQueues, MaxResults", 0, func(k *kit) {
			n := name(false)
			for i := range 3 {
				k.named(fmt.Sprint(n, i), nil)
			}
			// The same list with a page's size has a token, until the page is as large as the list.
			for _, c := range []struct {
				size  *int32
				found int
				token bool
			}{{aws.Int32(1), 1, true}, {aws.Int32(2), 2, true}, {aws.Int32(3), 3, false}, {nil, 3, false}} {
				out := k.list(&sqs.ListQueuesInput{QueueNamePrefix: &n, MaxResults: c.size})
				if (out.NextToken != nil) != c.token || len(out.QueueUrls) != c.found {
					k.failf("MaxResults %d: %d queues and the token %q, want %d queues and a token: %t",
						aws.ToInt32(c.size), len(out.QueueUrls), str(out.NextToken), c.found, c.token)
				}
			}
		}},
		{"list/max-beyond", "API ListQueues, MaxResults", 0, func(k *kit) {
			_, err := k.c.ListQueues(k.ctx, &sqs.ListQueuesInput{MaxResults: aws.Int32(1001)})
			k.refused(err, badParameter, bad)
		}},
		{"list/bad-token", "API ListQueues, NextToken", 0, func(k *kit) {
			_, err := k.c.ListQueues(k.ctx, &sqs.ListQueuesInput{MaxResults: aws.Int32(1), NextToken: aws.String("nonsense")})
			k.refused(err, badParameter, bad)
		}},
		{"delete/then-gone", "API DeleteQueue, Description", 0, func(k *kit) {
			n := name(false)
			u := k.named(n, nil)
			k.drop(u)
			_, err := k.c.GetQueueUrl(k.ctx, &sqs.GetQueueUrlInput{QueueName: &n})
			k.refused(err, noQueue, bad)
		}},
		{"delete/name-locked", "API CreateQueue, Errors (QueueDeletedRecently)", 0, func(k *kit) {
			n := name(false)
			k.drop(k.named(n, nil))
			_, err := k.tryCreate(n, nil, nil)
			k.refused(err, deletedLately, bad)
			typed[*types.QueueDeletedRecently](k, err)
		}},
		{"delete/name-free-after-a-minute", "API CreateQueue, Errors (QueueDeletedRecently)", 62 * time.Second, func(k *kit) {
			n := name(false)
			k.drop(k.named(n, nil))
			k.pass(59 * time.Second)
			_, err := k.tryCreate(n, nil, nil)
			k.refused(err, deletedLately, bad)
			k.pass(2 * time.Second)
			k.named(n, nil)
		}},
		{"delete/with-messages", "API DeleteQueue, Description", 62 * time.Second, func(k *kit) {
			n := name(false)
			u := k.named(n, nil)
			k.send(u, "x")
			k.drop(u)
			k.pass(61 * time.Second)
			k.none(k.named(n, nil))
		}},
		{"attributes/by-name", "API GetQueueAttributes, AttributeNames", 0, func(k *kit) {
			a := k.attributes(k.queue(nil), "DelaySeconds", "QueueArn")
			equal(k, fmt.Sprintf("number of attributes in %v", a), len(a), 2)
		}},
		{"attributes/none-asked-for", "API GetQueueAttributes, AttributeNames", 0, func(k *kit) {
			u := k.queue(nil)
			out, err := k.c.GetQueueAttributes(k.ctx, &sqs.GetQueueAttributesInput{QueueUrl: &u})
			k.ok("GetQueueAttributes", err)
			equal(k, "number of attributes", len(out.Attributes), 0)
		}},
		{"attributes/unknown-name", "API GetQueueAttributes, Errors", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.GetQueueAttributes(k.ctx, &sqs.GetQueueAttributesInput{QueueUrl: &u, AttributeNames: []types.QueueAttributeName{"Nonsense"}})
			k.refused(err, badName, bad)
			typed[*types.InvalidAttributeName](k, err)
		}},
		{"attributes/fifo-names-on-standard", "API GetQueueAttributes, FifoQueue", 0, func(k *kit) {
			a := k.attributes(k.queue(nil), "FifoQueue", "DelaySeconds")
			if _, ok := a["FifoQueue"]; ok {
				k.failf("a standard queue has FifoQueue")
			}
		}},
		{"attributes/arn", "API GetQueueAttributes, QueueArn", 0, func(k *kit) {
			n := name(false)
			arn := k.arn(k.named(n, nil))
			if !strings.HasPrefix(arn, "arn:aws") || !strings.HasSuffix(arn, ":"+n) || strings.Count(arn, ":") != 5 {
				k.failf("%s", arn)
			}
		}},
		{"set/unknown", "API SetQueueAttributes, Errors", 0, func(k *kit) {
			k.refused(k.trySet(k.queue(nil), attrs{"Nonsense": "1"}), badName, bad)
		}},
		{"set/read-only", "API SetQueueAttributes, Attributes", 0, func(k *kit) {
			k.refused(k.trySet(k.queue(nil), attrs{"QueueArn": "x"}), badName, bad)
		}},
		{"set/out-of-range-changes-nothing", "API SetQueueAttributes, Errors", 0, func(k *kit) {
			u := k.queue(nil)
			err := k.trySet(u, attrs{"DelaySeconds": "5", "VisibilityTimeout": "43201"})
			k.refused(err, badValue, bad)
			equal(k, "DelaySeconds", k.attributes(u)["DelaySeconds"], "0")
		}},
		{"set/keeps-the-others", "API SetQueueAttributes, Description", 0, func(k *kit) {
			u := k.queue(attrs{"DelaySeconds": "5"})
			k.set(u, attrs{"VisibilityTimeout": "9"})
			equal(k, "DelaySeconds", k.attributes(u)["DelaySeconds"], "5")
		}},
		{"set/fifo-on-standard", "recorded test_set_unsupported_attribute_standard", 0, func(k *kit) {
			u := k.queue(nil)
			k.refused(k.trySet(u, attrs{"FifoQueue": "true"}), badName, bad)
			k.refused(k.trySet(u, attrs{"FifoQueue": "false"}), badName, bad)
		}},
		{"set/fifo-to-standard", "recorded test_set_unsupported_attribute_fifo", 0, func(k *kit) {
			k.refused(k.trySet(k.fifo(nil), attrs{"FifoQueue": "false"}), badValue, bad)
		}},
		{"set/high-throughput", "recorded test_fifo_change_to_high_throughput_after_creation", 0, func(k *kit) {
			u := k.fifo(nil)
			k.set(u, attrs{"DeduplicationScope": "messageGroup", "FifoThroughputLimit": "perMessageGroupId"})
			equal(k, "DeduplicationScope", k.attributes(u)["DeduplicationScope"], "messageGroup")
		}},
		{"encryption/kms-turns-sse-off", "recorded test_sse_queue_attributes", 0, func(k *kit) {
			u := k.queue(nil)
			k.set(u, attrs{"KmsMasterKeyId": "testKeyId", "KmsDataKeyReusePeriodSeconds": "6000", "SqsManagedSseEnabled": "false"})
			a := k.attributes(u)
			equal(k, "KmsMasterKeyId", a["KmsMasterKeyId"], "testKeyId")
			equal(k, "KmsDataKeyReusePeriodSeconds", a["KmsDataKeyReusePeriodSeconds"], "6000")
			equal(k, "SqsManagedSseEnabled", a["SqsManagedSseEnabled"], "false")
		}},
		{"encryption/kms-alone-turns-sse-off", "API SetQueueAttributes, SqsManagedSseEnabled (one kind at a time)", 0, func(k *kit) {
			u := k.queue(attrs{"KmsMasterKeyId": "testKeyId"})
			equal(k, "SqsManagedSseEnabled", k.attributes(u)["SqsManagedSseEnabled"], "false")
			equal(k, "KmsDataKeyReusePeriodSeconds", k.attributes(u)["KmsDataKeyReusePeriodSeconds"], "300")
		}},
		{"encryption/empty-clears-kms", "API SetQueueAttributes, KmsMasterKeyId", 0, func(k *kit) {
			u := k.queue(attrs{"KmsMasterKeyId": "testKeyId"})
			k.set(u, attrs{"KmsMasterKeyId": ""})
			if v, ok := k.attributes(u)["KmsMasterKeyId"]; ok && v != "" {
				k.failf("still %s", v)
			}
		}},
		{"encryption/not-both", "recorded test_sse_kms_and_sqs_are_mutually_exclusive", 0, func(k *kit) {
			k.refused(k.trySet(k.queue(nil), attrs{"KmsMasterKeyId": "testKeyId", "SqsManagedSseEnabled": "true"}), badName, bad)
		}},
		{"policy/kept-and-cleared", "API SetQueueAttributes, Policy", 0, func(k *kit) {
			u := k.queue(nil)
			k.set(u, attrs{"Policy": fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Sid":"s","Effect":"Allow","Principal":"*","Action":"sqs:SendMessage","Resource":%q}]}`, k.arn(u))})
			if p := k.attributes(u)["Policy"]; !strings.Contains(p, "sqs:SendMessage") && !strings.Contains(p, "SQS:SendMessage") {
				k.failf("policy %q", p)
			}
			k.set(u, attrs{"Policy": ""})
			equal(k, "Policy", k.attributes(u)["Policy"], "")
		}},
		{"policy/no-json", "recorded hashicorp/terraform-provider-aws#42209 (InvalidAttributeValue, status 400)", 0, func(k *kit) {
			k.refused(k.trySet(k.queue(nil), attrs{"Policy": "{"}), badValue, bad)
		}},
		{"tags/add-change-remove", "recorded test_tag_untag_queue", 0, func(k *kit) {
			u := k.queue(nil)
			k.ok("TagQueue", k.tag(u, map[string]string{"tag1": "value1", "tag2": "value2", "tag3": ""}))
			k.ok("TagQueue", k.tag(u, map[string]string{"tag1": "other"}))
			equal(k, "tags", fmt.Sprint(k.tags(u)), "map[tag1:other tag2:value2 tag3:]")
			_, err := k.c.UntagQueue(k.ctx, &sqs.UntagQueueInput{QueueUrl: &u, TagKeys: []string{"tag1", "tag3", "never"}})
			k.ok("UntagQueue", err)
			equal(k, "tags", fmt.Sprint(k.tags(u)), "map[tag2:value2]")
		}},
		{"tags/none", "recorded test_tag_untag_queue", 0, func(k *kit) { equal(k, "tags", len(k.tags(k.queue(nil))), 0) }},
		{"tags/none-given", "API TagQueue, Tags (required)", 0, func(k *kit) {
			err := k.tag(k.queue(nil), map[string]string{})
			k.refused(err, missing, bad)
		}},
		{"tags/case-sensitive", "API TagQueue, Description", 0, func(k *kit) {
			u := k.queue(nil)
			k.ok("TagQueue", k.tag(u, map[string]string{"a": "1", "A": "2"}))
			equal(k, "number of tags", len(k.tags(u)), 2)
		}},
		{"tags/key-too-long", "guide tag restrictions", 0, func(k *kit) {
			err := k.tag(k.queue(nil), map[string]string{strings.Repeat("k", 129): "v"})
			k.refused(err, badParameter, bad)
		}},
		{"purge/empties", "API PurgeQueue, Description; recorded test_purge_queue", 0, func(k *kit) {
			u := k.queue(nil)
			k.send(u, "a")
			k.send(u, "b", delay(1))
			k.one(u, visibility(1))
			k.purge(u)
			if m := k.receive(u, 10, 3); len(m) != 0 {
				k.failf("%d messages after the purge", len(m))
			}
		}},
		{"purge/once-a-minute", "recorded test_successive_purge_calls_fail", 0, func(k *kit) {
			u := k.queue(nil)
			k.purge(u)
			_, err := k.c.PurgeQueue(k.ctx, &sqs.PurgeQueueInput{QueueUrl: &u})
			k.refused(err, "AWS.SimpleQueueService.PurgeQueueInProgress", http.StatusForbidden)
			typed[*types.PurgeQueueInProgress](k, err)
		}},
		{"purge/again-after-a-minute", "API PurgeQueue, Description", 62 * time.Second, func(k *kit) {
			u := k.queue(nil)
			k.purge(u)
			k.pass(61 * time.Second)
			k.purge(u)
		}},
		{"permission/lifecycle", "recorded test_sqs_permission_lifecycle", 0, func(k *kit) {
			u := k.queue(nil)
			k.ok("AddPermission", k.permit(u, "label", "111111111111"))
			p := k.attributes(u)["Policy"]
			for _, part := range []string{`"label"`, "111111111111", "ReceiveMessage", k.arn(u)} {
				if !strings.Contains(p, part) {
					k.failf("policy %s lacks %s", p, part)
				}
			}
			_, err := k.c.RemovePermission(k.ctx, &sqs.RemovePermissionInput{QueueUrl: &u, Label: aws.String("label")})
			k.ok("RemovePermission", err)
			equal(k, "Policy", k.attributes(u)["Policy"], "")
		}},
		{"permission/seven-actions-at-most", "API AddPermission, Description; API AddPermission, Errors (OverLimit)", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.AddPermission(k.ctx, &sqs.AddPermissionInput{QueueUrl: &u, Label: aws.String("label"), AWSAccountIds: []string{"111111111111"}, Actions: []string{
				"SendMessage", "ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes", "GetQueueUrl", "PurgeQueue", "ListDeadLetterSourceQueues",
			}})
			k.refused(err, "OverLimit", http.StatusForbidden)
			typed[*types.OverLimit](k, err)
		}},
		{"permission/label-twice", "recorded test_sqs_permission_lifecycle", 0, func(k *kit) {
			u := k.queue(nil)
			k.ok("AddPermission", k.permit(u, "label", "111111111111"))
			k.refused(k.permit(u, "label", "222222222222"), badParameter, bad)
		}},
		{"permission/remove-unknown-label", "recorded test_sqs_permission_lifecycle", 0, func(k *kit) {
			u := k.queue(nil)
			_, err := k.c.RemovePermission(k.ctx, &sqs.RemovePermissionInput{QueueUrl: &u, Label: aws.String("label")})
			k.refused(err, badParameter, bad)
		}},
	}
	for _, r := range []struct {
		name      string
		low, high int
	}{
		{"DelaySeconds", 0, 900},
		{"MaximumMessageSize", 1024, 1_048_576},
		{"MessageRetentionPeriod", 60, 1_209_600},
		{"ReceiveMessageWaitTimeSeconds", 0, 20},
		{"VisibilityTimeout", 0, 43_200},
	} {
		all = append(all, rangeChecks(r.name, r.low, r.high)...)
	}
	return all
}

func (k *kit) list(in *sqs.ListQueuesInput) *sqs.ListQueuesOutput {
	out, err := k.c.ListQueues(k.ctx, in)
	k.ok("ListQueues", err)
	return out
}

func (k *kit) tag(url string, tags map[string]string) error {
	_, err := k.c.TagQueue(k.ctx, &sqs.TagQueueInput{QueueUrl: &url, Tags: tags})
	return err
}

func (k *kit) purge(url string) {
	_, err := k.c.PurgeQueue(k.ctx, &sqs.PurgeQueueInput{QueueUrl: &url})
	k.ok("PurgeQueue", err)
}

func (k *kit) permit(url, label, account string) error {
	_, err := k.c.AddPermission(k.ctx, &sqs.AddPermissionInput{
		QueueUrl: &url, Label: &label, AWSAccountIds: []string{account}, Actions: []string{"ReceiveMessage"},
	})
	return err
}
