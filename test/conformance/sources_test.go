package conformance

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
)

// What a source is has to be something that a reader can open: a section of a page of the API reference, a page of the
// developer guide, a test in a file at a commit, or a numbered thread.

// apiReference is where "API <action or type>, <section>" is: API_<action or type>.html. A section is a parameter, an
// attribute, a part of the answer, "Errors", or "Description" for the text at the head of the page.
const apiReference = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/"

// guide is where the pages of "guide <page>" are.
const guide = "https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/"

var guidePages = map[string]string{
	"FIFO delivery logic":                       guide + "FIFO-queues-understanding-logic.html",
	"dead-letter queue redrive":                 guide + "sqs-configure-dead-letter-queue-redrive.html",
	"dead-letter queues":                        guide + "sqs-dead-letter-queues.html",
	"how fair queues work":                      guide + "sqs-fair-queues-detailed.html",
	"message metadata":                          guide + "sqs-message-metadata.html",
	"queue and message identifiers":             guide + "sqs-queue-message-identifiers.html",
	"short and long polling":                    guide + "sqs-short-and-long-polling.html",
	"tag restrictions":                          "https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html",
	"troubleshooting dead-letter queue redrive": guide + "troubleshooting-dlq-redrive.html",
	"visibility timeout":                        guide + "sqs-visibility-timeout.html",
}

// recordings is where the tests of "recorded test_…" are. LocalStack runs them against AWS; those whose answers it keeps have
// them in the file beside theirs, <file>.snapshot.json, under the date given, and the others assert what AWS answers.
const recordings = "https://github.com/localstack/localstack/blob/8b9a79f05846835cf4dff63ab7eefdde9df83783/tests/aws/services/sqs/"

// recording is the file that has a test, without ".py", and when AWS's answers in it were recorded; no date for a test that
// asserts instead.
type recording struct{ file, recorded string }

var recorded = map[string]recording{
	"test_aws_trace_header_propagation":                                        {"test_sqs", "2025-06-27"},
	"test_basic_move_task_workflow":                                            {"test_sqs_move_task", "2024-04-30"},
	"test_batch_send_with_invalid_char_should_succeed":                         {"test_sqs", ""},
	"test_cancel_with_invalid_task_handle":                                     {"test_sqs_move_task", "2024-04-30"},
	"test_change_message_visibility_after_visibility_timeout_expiration":       {"test_sqs", "2024-04-30"},
	"test_change_message_visibility_batch_with_too_large_batch":                {"test_sqs", "2024-04-30"},
	"test_change_visibility_on_deleted_message_raises_invalid_parameter_value": {"test_sqs", ""},
	"test_create_fifo_queue_with_different_attributes_raises_error":            {"test_sqs", "2024-04-30"},
	"test_create_queue_with_different_attributes_raises_exception":             {"test_sqs", "2024-04-30"},
	"test_create_standard_queue_with_fifo_attribute_raises_error":              {"test_sqs", "2024-05-15"},
	"test_dead_letter_queue_message_attributes":                                {"test_sqs", "2024-04-30"},
	"test_delete_after_visibility_timeout":                                     {"test_sqs", "2025-03-28"},
	"test_delete_message_batch_invalid_msg_id":                                 {"test_sqs", "2024-04-30"},
	"test_delete_message_batch_with_too_large_batch":                           {"test_sqs", "2024-04-30"},
	"test_delete_message_with_illegal_receipt_handle":                          {"test_sqs", ""},
	"test_destination_needs_to_exist":                                          {"test_sqs_move_task", "2024-04-30"},
	"test_fair_queue_with_message_group_id":                                    {"test_sqs", "2025-08-18"},
	"test_fifo_change_to_high_throughput_after_creation":                       {"test_sqs", "2025-08-19"},
	"test_fifo_deduplication_arrives_once_after_delete":                        {"test_sqs", "2024-04-30"},
	"test_fifo_deduplication_not_on_message_group_id":                          {"test_sqs", "2024-04-30"},
	"test_fifo_delete_after_visibility_timeout":                                {"test_sqs", "2025-03-28"},
	"test_fifo_delete_after_visibility_timeout_extended":                       {"test_sqs", "2025-10-05"},
	"test_fifo_empty_message_groups_added_back_to_queue":                       {"test_sqs", "2024-04-30"},
	"test_fifo_group_visibility_extends_with_change_message_visibility":        {"test_sqs", "2025-11-19"},
	"test_fifo_message_attributes":                                             {"test_sqs", "2024-04-30"},
	"test_fifo_message_group_visibility_after_change_message_visibility":       {"test_sqs", ""},
	"test_fifo_message_group_visibility_after_delete":                          {"test_sqs", ""},
	"test_fifo_message_group_visibility_after_partial_delete":                  {"test_sqs", ""},
	"test_fifo_message_group_visibility_after_terminate_visibility_timeout":    {"test_sqs", ""},
	"test_fifo_queue_send_message_with_delay_seconds_fails":                    {"test_sqs", "2024-04-30"},
	"test_fifo_queue_send_message_with_zero_delay_defaults_to_queue_delay":     {"test_sqs", "2025-07-31"},
	"test_fifo_receive_message_visibility_timeout_shared_in_group":             {"test_sqs", ""},
	"test_fifo_receive_message_with_zero_visibility_timeout":                   {"test_sqs", ""},
	"test_fifo_sequence_number_increases":                                      {"test_sqs", ""},
	"test_fifo_set_content_based_deduplication_strategy":                       {"test_sqs", "2025-08-19"},
	"test_invalid_batch_id":                                                    {"test_sqs", "2024-04-30"},
	"test_invalid_dead_letter_arn_rejected_before_lookup":                      {"test_sqs", "2024-04-30"},
	"test_invalid_receipt_handle_should_return_error_message":                  {"test_sqs", ""},
	"test_invalid_string_attributes_cause_invalid_parameter_value_error":       {"test_sqs", ""},
	"test_message_deduplication_id_invalid":                                    {"test_sqs", "2025-07-30"},
	"test_message_system_attribute_names_with_attribute_names":                 {"test_sqs", "2024-06-04"},
	"test_move_task_cancel":                                                    {"test_sqs_move_task", "2024-04-30"},
	"test_move_task_delete_destination_queue_while_running":                    {"test_sqs_move_task", "2024-04-30"},
	"test_move_task_workflow_with_default_destination":                         {"test_sqs_move_task", "2024-04-30"},
	"test_move_task_workflow_with_multiple_sources_as_default_destination":     {"test_sqs_move_task", "2024-04-30"},
	"test_non_existent_queue":                                                  {"test_sqs", "2024-04-30"},
	"test_posting_to_fifo_requires_deduplicationid_group_id":                   {"test_sqs", "2024-04-30"},
	"test_posting_to_queue_via_queue_name":                                     {"test_sqs", ""},
	"test_purge_queue":                                                         {"test_sqs", ""},
	"test_purge_queue_clears_fifo_deduplication_cache":                         {"test_sqs", ""},
	"test_receive_empty_queue":                                                 {"test_sqs", "2025-02-10"},
	"test_receive_message_attribute_names_filters":                             {"test_sqs", "2024-06-04"},
	"test_receive_message_message_attribute_names_filters":                     {"test_sqs", "2024-04-30"},
	"test_send_batch_message_size":                                             {"test_sqs", "2024-04-30"},
	"test_send_batch_missing_deduplication_id_for_fifo_queue":                  {"test_sqs", "2024-04-30"},
	"test_send_batch_missing_message_group_id_for_fifo_queue":                  {"test_sqs", "2024-04-30"},
	"test_send_empty_message":                                                  {"test_sqs", "2025-09-22"},
	"test_send_message_batch_with_oversized_contents":                          {"test_sqs", "2025-08-19"},
	"test_send_message_to_standard_queue_with_invalid_message_group_id":        {"test_sqs", "2025-07-30"},
	"test_send_message_with_binary_attributes":                                 {"test_sqs", "2024-04-30"},
	"test_send_message_with_empty_string_attribute":                            {"test_sqs", "2024-04-30"},
	"test_send_message_with_invalid_payload_characters":                        {"test_sqs", ""},
	"test_send_message_with_invalid_string_attributes":                         {"test_sqs", ""},
	"test_send_message_with_updated_maximum_message_size":                      {"test_sqs", "2024-04-30"},
	"test_send_oversized_message":                                              {"test_sqs", "2025-08-19"},
	"test_send_receive_max_number_of_messages":                                 {"test_sqs", "2024-04-30"},
	"test_send_receive_wait_time_seconds":                                      {"test_sqs", "2025-02-10"},
	"test_set_empty_redrive_policy":                                            {"test_sqs", "2024-08-20"},
	"test_set_queue_attributes_default_values":                                 {"test_sqs", "2025-12-10"},
	"test_set_unsupported_attribute_fifo":                                      {"test_sqs", "2024-05-14"},
	"test_set_unsupported_attribute_standard":                                  {"test_sqs", "2024-05-14"},
	"test_source_needs_redrive_policy":                                         {"test_sqs_move_task", "2024-04-30"},
	"test_sqs_fifo_message_group_scope_no_throughput_setting":                  {"test_sqs", "2024-05-24"},
	"test_sqs_fifo_same_dedup_id_different_message_groups":                     {"test_sqs", "2024-04-30"},
	"test_sqs_permission_lifecycle":                                            {"test_sqs", "2024-04-30"},
	"test_sse_kms_and_sqs_are_mutually_exclusive":                              {"test_sqs", "2024-04-30"},
	"test_sse_queue_attributes":                                                {"test_sqs", "2024-04-30"},
	"test_start_multiple_move_tasks":                                           {"test_sqs_move_task", "2024-04-30"},
	"test_successive_purge_calls_fail":                                         {"test_sqs", "2024-04-30"},
	"test_tag_untag_queue":                                                     {"test_sqs", "2024-04-30"},
	"test_too_many_entries_in_batch_request":                                   {"test_sqs", "2024-04-30"},
}

var (
	apiSource      = regexp.MustCompile(`^API ([A-Z]\w+), ([A-Za-z]\w*(?: and [A-Za-z]\w*)*)(?: \(.+\))?$`)
	guideSource    = regexp.MustCompile(`^guide ([^()]+?)(?: \(.+\))?$`)
	recordedSource = regexp.MustCompile(`^recorded (test_\w+)(?: \(.+\))?$`)
	threadSource   = regexp.MustCompile(`^recorded ([\w-]+/[\w.-]+)#(\d+)(?: test_\w+)?(?: \(.+\))?$`)
)

// checkSource makes sure that every part of a source is of one of the forms that a check's source can have, and that there is
// such a section, page or test.
func checkSource(source string) error {
	for part := range strings.SplitSeq(source, "; ") {
		if _, err := locate(part); err != nil {
			return fmt.Errorf("source %q: %w", part, err)
		}
	}
	return nil
}

// links is a source with where to find it.
func links(source string) string {
	all := source
	for part := range strings.SplitSeq(source, "; ") {
		if url, err := locate(part); err == nil {
			all += " " + url
		}
	}
	return all
}

// locate is where a part of a source is.
func locate(part string) (url string, err error) {
	if m := apiSource.FindStringSubmatch(part); m != nil {
		for section := range strings.SplitSeq(m[2], " and ") {
			if !isAPISection(m[1], section) {
				return "", fmt.Errorf("the page API_%s.html of the API reference has no section %s", m[1], section)
			}
		}
		return apiReference + "API_" + m[1] + ".html", nil
	}
	if m := guideSource.FindStringSubmatch(part); m != nil {
		if guidePages[m[1]] == "" {
			return "", errors.New("the page is not in guidePages")
		}
		return guidePages[m[1]], nil
	}
	if m := recordedSource.FindStringSubmatch(part); m != nil {
		if recorded[m[1]].file == "" {
			return "", errors.New("the test is not in recorded")
		}
		return recordings + recorded[m[1]].file + ".py", nil
	}
	if m := threadSource.FindStringSubmatch(part); m != nil {
		return "https://github.com/" + m[1] + "/issues/" + m[2], nil // which leads to a pull request too
	}
	return "", errors.New("it is none of: API <page>, <section>; guide <page>; recorded <test>; recorded <owner>/<repository>#<number>")
}

// isEvidence reports whether a source is what a check needs that nobody else passes: the API reference, or a recorded answer.
func isEvidence(source string) bool {
	for part := range strings.SplitSeq(source, "; ") {
		if apiSource.MatchString(part) || recordedSource.MatchString(part) || threadSource.MatchString(part) {
			return true
		}
	}
	return false
}

// apiTypes are the pages of the API reference that are not an action's.
var apiTypes = map[string]reflect.Type{
	"MessageAttributeValue":        reflect.TypeFor[types.MessageAttributeValue](),
	"SendMessageBatchRequestEntry": reflect.TypeFor[types.SendMessageBatchRequestEntry](),
	"SendMessageBatchResultEntry":  reflect.TypeFor[types.SendMessageBatchResultEntry](),
}

// inAttributes are the names that the sections on attributes explain, besides the attributes.
var inAttributes = []string{"deadLetterTargetArn", "maxReceiveCount", "redrivePermission", "sourceQueueArns"}

// isAPISection asks the SDK, which is generated from what the API reference is generated from.
func isAPISection(page, section string) bool {
	if t, ok := apiTypes[page]; ok {
		return hasField(t, section)
	}
	m, ok := reflect.TypeFor[*sqs.Client]().MethodByName(page)
	if !ok {
		return false
	}
	if section == "Errors" || section == "Description" || hasField(m.Type.In(2).Elem(), section) || hasField(m.Type.Out(0).Elem(), section) {
		return true
	}
	switch page {
	case "CreateQueue", "GetQueueAttributes", "SetQueueAttributes":
		return slices.Contains(types.QueueAttributeName("").Values(), types.QueueAttributeName(section)) || slices.Contains(inAttributes, section)
	case "ReceiveMessage":
		return slices.Contains(types.MessageSystemAttributeName("").Values(), types.MessageSystemAttributeName(section))
	case "ListMessageMoveTasks":
		return hasField(reflect.TypeFor[types.ListMessageMoveTasksResultEntry](), section)
	}
	return false
}

// hasField reports whether a type has a field of that name; the API spells some with a small letter.
func hasField(t reflect.Type, name string) bool {
	_, ok := t.FieldByNameFunc(func(f string) bool { return strings.EqualFold(f, name) })
	return ok
}

func TestWhatIsNoSource(t *testing.T) {
	for _, source := range []string{
		"", "API", "API CreateQueue", "API, Errors of each action", "API CreateQueue, Nonsense", "API Nonsense, Errors", "API CreateQueue, Errors; API",
		"guide", "guide Nonsense", "recorded", "recorded test_nonsense", "recorded nobody", "recorded owner/repository", "SendMessage",
		"API SendMessage, ReceiveMessage, DeleteMessage",
	} {
		if checkSource(source) == nil {
			t.Errorf("%q was taken", source)
		}
	}
	for _, source := range []string{"guide how fair queues work", "guide message metadata; guide dead-letter queues"} {
		if isEvidence(source) {
			t.Errorf("%q was taken for evidence", source)
		}
	}
}

// TestNoSourceIsIdle keeps the tables to what is used.
func TestNoSourceIsIdle(t *testing.T) {
	var used []string
	for _, c := range checks() {
		used = append(used, c.source)
	}
	for _, c := range citations {
		used = append(used, c.from)
	}
	all := strings.Join(used, "; ") + ";"
	for test := range recorded {
		if !regexp.MustCompile("recorded " + test + "[ ;]").MatchString(all) {
			t.Errorf("recorded has %s, which nothing cites", test)
		}
	}
	for page := range guidePages {
		if !strings.Contains(all, "guide "+page) {
			t.Errorf("guidePages has %q, which nothing cites", page)
		}
	}
}
