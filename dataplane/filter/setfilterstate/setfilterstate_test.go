package setfilterstate

import (
	"testing"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/substitution"
	"github.com/sluice-proxy/sluice/dataplane/filter"
	"github.com/sluice-proxy/sluice/dataplane/stream"
)

func text(t *testing.T, s string) substitution.Format {
	t.Helper()
	f, err := substitution.Parse(s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestObjectsAreMadeByTheirKind(t *testing.T) {
	for _, tt := range []struct {
		kind api.ObjectKind
		in   string
		want stream.Object
		ok   bool
	}{
		{api.ObjectText, "", stream.Object{}, true},
		{api.ObjectText, "x y", stream.Object{Value: "x y"}, true},
		{api.ObjectHashable, "x", stream.Object{Value: "x", Hashable: true}, true},
		{api.ObjectNumber, "1000", stream.Object{Value: "1000"}, true},
		{api.ObjectNumber, "-1", stream.Object{}, false},
		{api.ObjectNumber, "", stream.Object{}, false},
		{api.ObjectIP, "10.0.0.7", stream.Object{Value: "10.0.0.7:0", Address: true}, true},
		{api.ObjectIP, "fd00::7", stream.Object{Value: "[fd00::7]:0", Address: true}, true},
		{api.ObjectIP, "10.0.0.7:80", stream.Object{}, false},
		{api.ObjectAddress, "10.0.0.7:80", stream.Object{Value: "10.0.0.7:80", Address: true, Hashable: true}, true},
		{api.ObjectAddress, "10.0.0.7", stream.Object{}, false},
	} {
		var i stream.Info
		NewValues([]api.FilterStateValue{{Key: "k", Kind: tt.kind, Text: text(t, tt.in)}}).Set(&i)
		if got, ok := i.State()["k"]; ok != tt.ok || ok && got != tt.want {
			t.Errorf("kind %d of %q: %+v, %t", tt.kind, tt.in, got, ok)
		}
	}
}

func TestValuesAreSetInOrder(t *testing.T) {
	var i stream.Info
	i.Found().ServerName = "a.example"
	NewValues([]api.FilterStateValue{
		{Key: "k", Text: text(t, "%REQUESTED_SERVER_NAME%"), Shared: api.SharedTransitively},
		{Key: "l", Text: text(t, "<%FILTER_STATE(k:PLAIN)%>")},
		{Key: "k", Text: text(t, "%ROUTE_NAME%"), OmitEmpty: true, SkipIfEmpty: true},
	}).Set(&i)
	if k, l := i.State()["k"], i.State()["l"]; k.Value != "a.example" || k.Shared != stream.Transitive || l.Value != "<a.example>" {
		t.Errorf("%+v, %+v", k, l)
	}
}

func TestOnlyWhatIsSetAtDataWaitsForIt(t *testing.T) {
	some := []api.FilterStateValue{{Key: "k", Text: text(t, "v")}}
	if w := New(&api.SetFilterState{OnConnection: some}).Watch(); w != filter.Nothing {
		t.Errorf("at the connection: %d", w)
	}
	if w := New(&api.SetFilterState{OnData: some}).Watch(); w != filter.FirstByte {
		t.Errorf("at data: %d", w)
	}
}
