package injected_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/replyqueue/replyqueue/pkg/rpcclient/injected"
)

func TestChannelURLVariable(t *testing.T) {
	for channel, want := range map[string]string{
		"login":        "REPLYQUEUE_CHANNEL_LOGIN_URL",
		"pricing.shop": "REPLYQUEUE_CHANNEL_PRICING_SHOP_URL",
		"a-1":          "REPLYQUEUE_CHANNEL_A_1_URL",
	} {
		if got := injected.ChannelURLVariable(channel); got != want {
			t.Errorf("ChannelURLVariable(%q) = %q, want %q", channel, got, want)
		}
	}
}

func TestChannelsRoundTrip(t *testing.T) {
	want := injected.Channels{
		"login":        {URL: "https://sqs.eu-west-1.amazonaws.com/1/q", Role: injected.RoleBoth, TimeoutSeconds: 3, FIFO: true},
		"pricing.shop": {URL: "http://127.0.0.1:1/1/a&b", Role: injected.RoleCall, DeadLetter: true},
	}
	text := injected.Encode(want)
	if strings.Contains(text, `\u0026`) || text != injected.Encode(maps.Clone(want)) {
		t.Errorf("not plain and stable: %s", text)
	}
	got, err := injected.ParseChannels(text)
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
}

func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"a":{"role":"call"}}`:           `"a" has no url`,
		`{"a":{"url":"u","role":"chat"}}`: `role "chat"`,
		`[`:                               "unexpected end",
	} {
		if _, err := injected.ParseChannels(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseChannels(%s): %v, want %q", text, err, want)
		}
	}
	if _, err := injected.ParseChannels(" "); !errors.Is(err, injected.ErrAbsent) {
		t.Errorf("empty: %v, want ErrAbsent", err)
	}
	if _, err := injected.ParseHeartbeat(`{"namespace":"n","name":"x"}`); err == nil {
		t.Error("a heartbeat without an interval was accepted")
	}
	if _, err := injected.ParseReturnAddresses("{"); err == nil {
		t.Error("half a return address was accepted")
	}
}
