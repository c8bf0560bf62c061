package ads

import "testing"

// Seen of Envoy 1.40.
func TestDemandedNamesStandBesideTheWildcard(t *testing.T) {
	h := start(t, true, nil)
	h.opened()
	h.want("", "CDS n= node")
	h.Ack(h.send(cds, "1", "a", "x"))
	h.want("", "CDS n=a")
	h.Demand(cds, "d")
	h.want("", "CDS n= +[d]")
	h.Demand(cds, "d") // the same: silence
	h.Demand(cds, "c")
	h.want("", "CDS n= +[c]")
	h.Ack(h.send(cds, "2", "b", "d"))
	h.want("", "CDS n=b")
	h.Close(nil)
	h.event()
	h.opened()
	h.want("", "CDS n= +[* c d] have[d=2 x=1] node")
}

func TestDemandOfATypeThatNobodyElseWants(t *testing.T) {
	h := start(t, true, nil)
	h.opened()
	h.want("", "CDS n= node")
	h.Demand(eds, "a")
	h.want("", "EDS n= +[a]")
	h.Ack(h.send(eds, "1", "e1", "a", "b"))
	h.want("", "EDS n=e1")
	h.Close(nil)
	h.event()
	h.opened()
	h.want("", "CDS n= node")
	h.want("", "EDS n= +[a] have[a=1]")
}

// To many servers a name beside the wildcard is that name alone.
func TestDemandSaysNothingInStateOfTheWorld(t *testing.T) {
	h := start(t, false, nil)
	h.opened()
	h.want("CDS v= n= [] node", "")
	h.Demand(cds, "c")
	h.Subscribe(lds, nil)
	h.want("LDS v= n= []", "")
}
