package stream

import (
	"net/netip"
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
)

func example() *Info {
	i := New(7, &Listener{Name: "listener", Metadata: Metadata{"f": {"k": "of l"}}}, netip.MustParseAddrPort("10.9.9.9:99"), netip.MustParseAddrPort("10.1.2.4:81"))
	i.Start, i.Lasted = time.Date(2026, 2, 3, 4, 5, 6, 789_012_345, time.UTC), 1500*time.Millisecond
	i.Chain, i.Received, i.Sent = &Chain{Name: "chain", Metadata: Metadata{"f": {"k": "of c"}}}, 5, 6
	i.RestoreLocal(netip.MustParseAddrPort("10.1.2.3:80"))
	i.RestoreRemote(netip.MustParseAddrPort("[2001:db8::1]:1234"))
	i.Found().ServerName, i.Flags = "sni.example", UpstreamConnectionFailure|UpstreamRetryLimitExceeded
	i.SetState("plain", Object{Value: `a "b"`})
	i.SetMetadata("f", "k", map[string]any{"deep": 1.0, "s": "text"})
	i.Explain().UpstreamFailure = "delayed connect error: x"
	u := &i.Upstream
	u.Cluster = &Cluster{Name: "raw", Stat: "alt"}
	i.Connecting(&api.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.2:5")})
	i.Connecting(&api.Endpoint{Addr: netip.MustParseAddrPort("10.0.0.1:5")})
	u.ConnectionID, u.Sent = 8, 4
	u.Dialed, u.Connected = Microseconds(time.Millisecond), Microseconds(2*time.Millisecond)
	u.SetLocal(netip.MustParseAddrPort("10.0.0.9:6"))
	return i
}

func TestText(t *testing.T) {
	for format, want := range map[string]string{
		"%START_TIME%":                                              "2026-02-03T04:05:06.789Z",
		"%START_TIME(%Y/%m/%d)%":                                    "2026/02/03",
		"%START_TIME(%s.%3f)%":                                      "1770091506.789",
		"%START_TIME(%s%9f)%":                                       "1770091506789012000",
		"%START_TIME(%E4S %%f %E*S)%":                               "06.7890 %f 06.789012",
		"%START_TIME(%f)%":                                          "789012000",
		"%BYTES_RECEIVED% %BYTES_SENT% %DURATION%":                  "5 6 1500",
		"%RESPONSE_FLAGS% %RESPONSE_FLAGS_LONG%":                    "UF,URX UpstreamConnectionFailure,UpstreamRetryLimitExceeded",
		"%DOWNSTREAM_REMOTE_ADDRESS%":                               "[2001:db8::1]:1234",
		"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%":                  "2001:db8::1",
		"%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(32)%":              "2001:db8::/32",
		"%DOWNSTREAM_LOCAL_PORT% %DOWNSTREAM_REMOTE_PORT%":          "80 1234",
		"%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%":                        "10.9.9.9:99",
		"%DOWNSTREAM_DIRECT_LOCAL_ADDRESS%":                         "10.1.2.4:81",
		"%UPSTREAM_LOCAL_ADDRESS% %UPSTREAM_REMOTE_ADDRESS%":        "10.0.0.9:6 10.0.0.1:5",
		"%UPSTREAM_WIRE_BYTES_SENT%":                                "4",
		"%UPSTREAM_WIRE_BYTES_RECEIVED%":                            "6",
		"%DOWNSTREAM_WIRE_BYTES_RECEIVED%":                          "5",
		"%UPSTREAM_HOST% %UPSTREAM_HOST_NAME%":                      "10.0.0.1:5 10.0.0.1:5",
		"%UPSTREAM_HOSTS_ATTEMPTED%":                                "10.0.0.2:5,10.0.0.1:5",
		"%UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT%":                   "10.0.0.2,10.0.0.1",
		"%UPSTREAM_CONNECTION_IDS_ATTEMPTED%":                       "8",
		"%UPSTREAM_CLUSTER% %UPSTREAM_CLUSTER_RAW%":                 "alt raw",
		"%UPSTREAM_TRANSPORT_FAILURE_REASON%":                       "delayed_connect_error:_x",
		"%UPSTREAM_REQUEST_ATTEMPT_COUNT%":                          "2",
		"%REQUESTED_SERVER_NAME% %FILTER_CHAIN_NAME%":               "sni.example chain",
		"%FILTER_STATE(plain:PLAIN)% %FILTER_STATE(none)%":          `a "b" -`,
		"%FILTER_STATE(plain)%":                                     `"a \"b\""`,
		"%DYNAMIC_METADATA(f:k:s)%":                                 "text",
		"%DYNAMIC_METADATA(f:k:s):2%":                               "te",
		"%DYNAMIC_METADATA(f:k:deep)%":                              "1",
		"%DYNAMIC_METADATA(f:k)%":                                   `{"deep":1,"s":"text"}`,
		"%DYNAMIC_METADATA(f:k:none)% %METADATA(DYNAMIC:f:k:s)%":    "- text",
		"%REQ(:METHOD)% %PROTOCOL% %RESPONSE_CODE%":                 "- - 0",
		"%ACCESS_LOG_TYPE%":                                         "TcpConnectionEnd",
		"%ENVIRONMENT(NO_SUCH_VARIABLE)%":                           "-",
		"%START_TIME(%E0S %E12S %E3f %E*f %Ez %E4Y %ET)%":           "06 06.789012000000 789 789012 +00:00 2026 T",
		"%START_TIME(%0f %10f %1f)%":                                "%0f %10f 7",
		"%COMMON_DURATION(DS_CX_BEG:DS_CX_END)%":                    "1500",
		"%COMMON_DURATION(US_CX_BEG:US_CX_END:us)%":                 "2000",
		"%COMMON_DURATION(DS_CX_BEG:US_CX_END:ns)%":                 "3000000",
		"%COMMON_DURATION(DS_CX_END:DS_CX_BEG:ms)%":                 "-",
		"%COMMON_DURATION(US_HS_END:DS_CX_END:ms)%":                 "-",
		`%COALESCE({"operators":["PROTOCOL","UPSTREAM_CLUSTER"]})%`: "alt",
		`%COALESCE({"operators":["PROTOCOL",{"command":"DYNAMIC_METADATA","param":"f:k:s","max_length":2}]})%`: "te",
		`%COALESCE({"operators":["PROTOCOL"]})%`: "-",
		"%METADATA(LISTENER:f:k)%":               "of l",
		"%METADATA(LISTENER_FILTER_CHAIN:f:k)%":  "of c",
		"%METADATA(LISTENER:f:none)%":            "-",
		"%LISTENER_NAME%":                        "listener",
		"%FILTER_STATE(plain:FIELD:x)%":          "-",
		"100%%":                                  "100%",
	} {
		f, err := substitution.Parse(format)
		if err != nil {
			t.Errorf("%q: %v", format, err)
			continue
		}
		if got := string(NewText(f, false).Append(nil, Moment{Info: example(), Type: "TcpConnectionEnd"})); got != want {
			t.Errorf("%q: got %q, want %q", format, got, want)
		}
	}
}

func TestEmptyInfoPrintsDashes(t *testing.T) {
	f, err := substitution.Parse("%UPSTREAM_HOST% %UPSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_LOCAL_PORT% %UPSTREAM_DETECTED_CLOSE_TYPE% %RESPONSE_FLAGS%")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(NewText(f, false).Append(nil, Moment{Info: &Info{}})); got != "- - - - - -" {
		t.Error(got)
	}
	if got := string(NewText(f, true).Append(nil, Moment{Info: &Info{}})); got != "     -" {
		t.Error(got)
	}
}

func TestReadOnlyStateStays(t *testing.T) {
	var i Info
	if !i.SetState("k", Object{Value: "a", ReadOnly: true}) || i.SetState("k", Object{Value: "b"}) || i.State()["k"].Value != "a" {
		t.Error(i.State())
	}
}
