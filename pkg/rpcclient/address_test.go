package rpcclient

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

const ownQueue = "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_ns_login"

func TestCheckReturnAddress(t *testing.T) {
	operator := ReturnAddressPolicy{Prefixes: []string{"rq_c_r_"}}
	java := ReturnAddressPolicy{Prefixes: []string{"__RequesterClientQueues__"}, Accounts: []string{"444455556666"}}
	local := ReturnAddressPolicy{Endpoint: "http://127.0.0.1:4566", AccountID: "000000000000"}
	const base = "https://sqs.eu-west-1.amazonaws.com/111122223333/"

	for _, tc := range []struct {
		name     string
		policy   ReturnAddressPolicy
		received string
		want     string // the address a reply goes to; empty: refused
		why      string // part of the refusal
	}{
		{"operator's queue", operator, base + "rq_c_r_7f#abc", base + "rq_c_r_7f#abc", ""},
		{"default names", ReturnAddressPolicy{}, base + "rq_c_r_7f#abc", base + "rq_c_r_7f#abc", ""},
		{"whole queue", operator, base + "rq_c_r_7f", base + "rq_c_r_7f", ""},
		{"legacy regional host", operator, "https://eu-west-1.queue.amazonaws.com/111122223333/rq_c_r_7f#a", base + "rq_c_r_7f#a", ""},
		{"fips host", operator, "https://sqs-fips.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f#a", base + "rq_c_r_7f#a", ""},
		{"dual-stack host", operator, "https://sqs.eu-west-1.api.aws/111122223333/rq_c_r_7f#a", base + "rq_c_r_7f#a", ""},
		{"VPC endpoint", operator, "https://vpce-0a1-b2c.sqs.eu-west-1.vpce.amazonaws.com/111122223333/rq_c_r_7f#a", base + "rq_c_r_7f#a", ""},
		{"plain http is rebuilt on ours", operator, "http://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f#a", base + "rq_c_r_7f#a", ""},
		{"Java by prefix", java, base + "__RequesterClientQueues__u-0#__RequesterClientQueues__v", base + "__RequesterClientQueues__u-0#__RequesterClientQueues__v", ""},
		{"Java of an allowed account", java, "https://sqs.eu-west-1.amazonaws.com/444455556666/__RequesterClientQueues__u-0#v", "https://sqs.eu-west-1.amazonaws.com/444455556666/__RequesterClientQueues__u-0#v", ""},
		{"own endpoint", local, "http://127.0.0.1:4566/000000000000/rq_c_r_7f#a", "http://127.0.0.1:4566/000000000000/rq_c_r_7f#a", ""},

		{"Java by default", operator, base + "__RequesterClientQueues__u-0#v", "", "prefixes"},
		{"a request queue", operator, base + "rq_c_ns_login#a", "", "prefixes"},
		{"a request queue, default names", ReturnAddressPolicy{}, base + "rq_c_ns_login#a", "", "prefixes"},
		{"the prefix alone", operator, base + "rq_c_r_#a", "", "prefixes"},
		{"another account", operator, "https://sqs.eu-west-1.amazonaws.com/999999999999/rq_c_r_7f#a", "", "account"},
		{"another region", operator, "https://sqs.us-east-1.amazonaws.com/111122223333/rq_c_r_7f#a", "", "region"},
		{"oldest host is us-east-1", operator, "https://queue.amazonaws.com/111122223333/rq_c_r_7f#a", "", "region"},
		{"another host", operator, "https://evil.example/111122223333/rq_c_r_7f#a", "", "host"},
		{"a host that looks right", operator, "https://sqs.eu-west-1.amazonaws.com.evil.example/111122223333/rq_c_r_7f#a", "", "host"},
		{"metadata service", operator, "http://169.254.169.254/111122223333/rq_c_r_7f#a", "", "host"},
		{"userinfo", operator, "https://sqs.eu-west-1.amazonaws.com@evil.example/111122223333/rq_c_r_7f#a", "", "userinfo"},
		{"query", operator, base + "rq_c_r_7f?Action=DeleteQueue#a", "", "query"},
		{"bare question mark", operator, base + "rq_c_r_7f?#a", "", "query"},
		{"second #", operator, base + "rq_c_r_7f#a#b", "", "after the #"},
		{"nothing after the #", operator, base + "rq_c_r_7f#", "", "after the #"},
		{"control character after the #", operator, base + "rq_c_r_7f#a\nb", "", "after the #"},
		{"endless name", operator, base + "rq_c_r_7f#" + strings.Repeat("a", 257), "", "after the #"},
		{"FIFO", operator, base + "rq_c_r_7f.fifo#a", "", "standard"},
		{"escaped slash", operator, "https://sqs.eu-west-1.amazonaws.com/111122223333/x%2frq_c_r_7f#a", "", "plain URL"},
		{"dot segments", operator, "https://sqs.eu-west-1.amazonaws.com/a/../111122223333/rq_c_r_7f#a", "", "segment"},
		{"no account", operator, "https://sqs.eu-west-1.amazonaws.com/rq_c_r_7f#a", "", "account"},
		{"not a URL", operator, "rq_c_r_7f", "", "scheme"},
		{"another scheme", operator, "ftp://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f#a", "", "scheme"},
		{"opaque", operator, "https:sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f", "", "plain URL"},
		{"empty", operator, "", "", "scheme"},
		{"not ASCII", operator, "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_é#a", "", "ASCII"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			own := ownQueue
			if tc.policy.Endpoint != "" {
				own = tc.policy.Endpoint + "/000000000000/rq_c_ns_login"
			}
			got, err := checkReturnAddress(tc.policy, own, tc.received)
			switch {
			case tc.want == "" && err == nil:
				t.Errorf("accepted as %s", got)
			case tc.want == "" && !strings.Contains(err.Error(), tc.why):
				t.Errorf("refused with %q, want a word on %q", err, tc.why)
			case tc.want != "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.want != "" && got.String() != tc.want:
				t.Errorf("got %s, want %s", got, tc.want)
			}
		})
	}
}

func TestCheckReturnAddressDoesNotRepeatTheSecret(t *testing.T) {
	const secret = "s3cr3tCallID"
	for _, received := range []string{
		"https://evil.example/111122223333/rq_c_r_7f#" + secret,
		ownQueue + "#" + secret,
		"https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f#" + secret + "#",
		"::#" + secret,
	} {
		if _, err := checkReturnAddress(ReturnAddressPolicy{}, ownQueue, received); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("%s: %v", received, err)
		}
	}
}

// Whatever is accepted goes to our own host, to a queue of the policy, and is accepted again as it is.
func FuzzCheckReturnAddress(f *testing.F) {
	for _, s := range []string{
		"https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f#abc",
		"https://eu-west-1.queue.amazonaws.com/111122223333/rq_c_r_7f",
		"https://u:p@sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_7f#abc",
		"https://sqs.eu-west-1.amazonaws.com:443/x/111122223333/rq_c_r_7f#a#b",
		"HTTPS://SQS.EU-WEST-1.AMAZONAWS.COM/111122223333/rq_c_r_7f#%00",
	} {
		f.Add(s)
	}
	const want = "https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_r_"
	policy := ReturnAddressPolicy{Prefixes: []string{"rq_c_r_"}}
	f.Fuzz(func(t *testing.T, received string) {
		got, err := checkReturnAddress(policy, ownQueue, received)
		if err != nil {
			return
		}
		if !strings.HasPrefix(got.queueURL, want) || strings.ContainsAny(got.queueURL[len(want):], "/?#@: ") {
			t.Errorf("%q goes to %q", received, got.queueURL)
		}
		again, err := checkReturnAddress(policy, ownQueue, got.String())
		if err != nil || again != got {
			t.Errorf("%q: accepted as %q, then %v, %v", received, got, again, err)
		}
	})
}

func TestRegionOfHost(t *testing.T) {
	for host, want := range map[string]string{
		"sqs.us-gov-west-1.amazonaws.com":                      "us-gov-west-1",
		"sqs.cn-north-1.amazonaws.com.cn":                      "cn-north-1",
		"SQS.eu-central-1.Amazonaws.com":                       "eu-central-1",
		"queue.amazonaws.com":                                  "us-east-1",
		"sqs.us-iso-east-1.c2s.ic.gov":                         "us-iso-east-1",
		"vpce-1-2-us-east-1a.sqs.us-east-1.vpce.amazonaws.com": "us-east-1",
		"127.0.0.1":                      "",
		"sqs.amazonaws.com":              "",
		"sqs.eu-west-1.amazonaws.com.de": "",
		"xsqs.eu-west-1.amazonaws.com":   "",
	} {
		if got := regionOfHost(host); got != want {
			t.Errorf("regionOfHost(%q) = %q, want %q", host, got, want)
		}
	}
}

// What may be answered is what the source says now: an address is refused by an answer of the last second at most, and
// accepted by one of the last ten.
func TestReturnAddressSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		own, err := parseQueueURL("https://sqs.eu-west-1.amazonaws.com/111122223333/rq_c_ns_login")
		if err != nil {
			t.Fatal(err)
		}
		now, asked := ReturnAddressPolicy{Prefixes: []string{"rq_c_r_"}}, 0
		c, err := newConfig([]Option{WithReturnPrefixes("java_"), WithReturnAddressSource(func() ReturnAddressPolicy { asked++; return now })})
		if err != nil {
			t.Fatal(err)
		}
		checker := newAddressChecker(c.addresses, containedSource(c.addressSource, c.log), own)
		check := func(name string, want bool) {
			t.Helper()
			got, err := checker.check("https://sqs.eu-west-1.amazonaws.com/111122223333/" + name + "1#id")
			if (err == nil) != want || want && got.queueURL != "https://sqs.eu-west-1.amazonaws.com/111122223333/"+name+"1" {
				t.Errorf("%s at %d: %v, %v", name, asked, got, err)
			}
		}
		check("rq_c_r_", true)
		check("rq_d_r_", false)
		check("java_", true)
		now.Prefixes[0] = "rq_d_r_" // the very slice that it returned
		check("rq_c_r_", true)
		check("rq_d_r_", false)
		time.Sleep(sourceAgain)
		check("rq_d_r_", true)
		check("rq_c_r_", false) // what was accepted by the rules of before is forgotten
		check("java_", true)
		if asked != 2 {
			t.Errorf("the source was asked %d times, want twice", asked)
		}
		now = ReturnAddressPolicy{Prefixes: []string{"rq_e_r_"}, Accounts: []string{"444455556666"}}
		time.Sleep(sourceEvery - time.Nanosecond)
		check("rq_d_r_", true)
		time.Sleep(time.Nanosecond)
		check("rq_d_r_", false)
		check("rq_e_r_", true)
		if _, err := checker.check("https://sqs.eu-west-1.amazonaws.com/444455556666/rq_e_r_1#id"); err != nil {
			t.Error(err)
		}
		for range 100 {
			check("rq_x_r_", false)
		}
		if asked != 3 {
			t.Errorf("the source was asked %d times, want 3", asked)
		}
	})
	if _, err := newConfig([]Option{WithReturnAddressSource(nil)}); err == nil {
		t.Error("no source is taken for one")
	}
	c, err := newConfig([]Option{WithReturnAddressSource(nil), WithReturnAddresses(ReturnAddressPolicy{Prefixes: []string{"p_"}})})
	if err != nil || c.addressSource != nil || !c.addresses.allowsName("p_1") {
		t.Errorf("the later option does not count: %+v, %v", c.addresses, err)
	}
}
