package parity

import (
	"fmt"
	"time"

	"github.com/sluice-proxy/sluice/test/peer"
)

// network is a network filter by the folder of its proto and its message.
func network(folder, message string, config obj) obj {
	return obj{"name": "envoy.filters.network." + folder, "typed_config": obj{
		"@type": "type.googleapis.com/envoy.extensions.filters.network." + folder + ".v3." + message}.with(config)}
}

func connectionLimit(n int, more obj) obj {
	return network("connection_limit", "ConnectionLimit", obj{"stat_prefix": "p", "max_connections": n}.with(more))
}

func rateLimit(tokens, perFill int, interval string, more obj) obj {
	return network("local_ratelimit", "LocalRateLimit", obj{"stat_prefix": "p",
		"token_bucket": obj{"max_tokens": tokens, "tokens_per_fill": perFill, "fill_interval": interval}}.with(more))
}

func directResponse(text string) obj {
	return network("direct_response", "Config", obj{"response": obj{"inline_string": text}})
}

const (
	ofConnectionLimit = `connection_limit\..*`
	ofRateLimit       = `local_rate_limit\..*`
)

// movedByFilters is moved with the usual list and that of filters.
func (r *run) movedByFilters(patterns ...string) {
	r.Helper()
	r.moved(append([]string{ofListener, ofTCP, ofCluster}, patterns...)...)
}

func (r *run) echoes() []obj { return []obj{cluster("c", endpoint(r.serve("server", peer.Echo)))} }

// refusals are short-lived filters that turn clients away.
var refusals = []scenario{
	{"connection_limit", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, nil), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		r.dial("l").as("second").end()
		r.moved(ofConnectionLimit)
		one.leave()
		r.movedByFilters(ofConnectionLimit)
		r.dial("l").as("third").send("3").expect("3").fin().end()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"connection_limit_talking_client", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, nil), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		c := r.dial("l").as("second").send("some bytes")
		time.Sleep(breath)
		r.note("second: %t", c.gone())
		one.leave()
		r.moved(ofConnectionLimit)
	}},
	{"connection_limit_delay", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, obj{"delay": "1s"}), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second").send("bytes of a client that has to wait")
		time.Sleep(breath)
		r.moved(ofConnectionLimit, ofTCP, `listener\.l\.downstream_cx_(total|active)`)
		two.end()
		one.leave()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"connection_limit_delay_silent", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, obj{"delay": "1s"}), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		r.dial("l").as("second").end()
		one.leave()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"connection_limit_delay_client_fin", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, obj{"delay": "1s"}), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		r.dial("l").as("second").fin().end()
		one.leave()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"connection_limit_delay_client_rst", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, obj{"delay": "2s"}), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l")
		time.Sleep(breath)
		two.reset()
		r.moved(ofConnectionLimit, ofListener)
		one.leave()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"connection_limit_delayed_counts_against_the_limit", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, obj{"delay": "1s"}), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		two := r.dial("l").as("second")
		time.Sleep(breath)
		one.leave()
		r.dial("l").as("third").send("3").end()
		_ = two
		r.movedByFilters(ofConnectionLimit)
		r.dial("l").as("fourth").send("4").expect("4").fin().end()
		r.moved(ofConnectionLimit)
	}},
	{"connection_limit_disabled", func(r *run) {
		f := connectionLimit(1, obj{"runtime_enabled": obj{"default_value": false, "runtime_key": "no.such.key"}})
		r.start(static([]obj{listener("l", chain(f, tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		r.dial("l").as("second").send("2").expect("2").fin().end()
		one.leave()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"connection_limit_is_per_chain", func(r *run) {
		one, two := freePort(r, "127.0.0.1"), freePort(r, "127.0.0.1")
		l := listener("l", chain(connectionLimit(1, nil), tcpProxy("c")).with(onPort(int(one.Port()))), chain(connectionLimit(1, nil), tcpProxy("c"))).with(obj{
			"address": address(one), "additional_addresses": []obj{{"address": address(two)}}})
		r.start(static([]obj{l}, r.echoes()))
		a := r.dialAt(one).as("a").send("a").expect("a")
		b := r.dialAt(two).as("b").send("b").expect("b")
		r.dialAt(one).as("a again").end()
		r.dialAt(two).as("b again").end()
		a.leave()
		b.leave()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"connection_limit_before_a_refused_connect", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, nil), tcpProxy("c")))}, []obj{cluster("c", endpoint(r.refused()))}))
		for range 2 {
			r.dial("l").end()
			r.moved(ofConnectionLimit)
		}
	}},
	{"connection_limit_of_two_filters", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(2, nil), connectionLimit(1, obj{"stat_prefix": "q"}), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		r.dial("l").as("second").end()
		one.leave()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"rate_limit", func(r *run) {
		r.start(static([]obj{listener("l", chain(rateLimit(2, 1, "60s", nil), tcpProxy("c")))}, r.echoes()))
		for i := range 4 {
			r.dial("l").as(fmt.Sprint("client ", i)).fin().end()
		}
		r.movedByFilters(ofRateLimit)
	}},
	{"rate_limit_refills_bit_by_bit", func(r *run) {
		r.start(static([]obj{listener("l", chain(rateLimit(2, 2, "4s", nil), tcpProxy("c")))}, r.echoes()))
		begun := time.Now()
		try := func(at time.Duration) {
			time.Sleep(time.Until(begun.Add(at)))
			r.dial("l").as(fmt.Sprint("after ", at)).send("x").endOrEcho("x")
		}
		try(0)
		try(0)
		try(1 * time.Second)
		try(2500 * time.Millisecond)
		try(2500 * time.Millisecond)
		r.moved(ofRateLimit)
	}},
	{"rate_limit_does_not_hoard", func(r *run) {
		r.start(static([]obj{listener("l", chain(rateLimit(1, 1, "2s", nil), tcpProxy("c")))}, r.echoes()))
		time.Sleep(4 * time.Second)
		for i := range 3 {
			r.dial("l").as(fmt.Sprint("client ", i)).send("x").endOrEcho("x")
			if i == 1 {
				time.Sleep(2200 * time.Millisecond)
			}
		}
		r.moved(ofRateLimit)
	}},
	{"rate_limit_talking_client", func(r *run) {
		r.start(static([]obj{listener("l", chain(rateLimit(1, 1, "60s", nil), tcpProxy("c")))}, r.echoes()))
		r.dial("l").fin().end()
		c := r.dial("l").send("some bytes")
		time.Sleep(breath)
		r.note("client: %t", c.gone())
		r.moved(ofRateLimit)
	}},
	{"rate_limit_disabled", func(r *run) {
		f := rateLimit(1, 1, "60s", obj{"runtime_enabled": obj{"default_value": false, "runtime_key": "no.such.key"}})
		r.start(static([]obj{listener("l", chain(f, tcpProxy("c")))}, r.echoes()))
		for range 3 {
			r.dial("l").fin().end()
		}
		r.movedByFilters(ofRateLimit)
	}},
	{"rate_limit_is_per_chain", func(r *run) {
		r.start(static([]obj{listener("l", chain(rateLimit(1, 1, "60s", nil), tcpProxy("c"))), listener("m", chain(rateLimit(1, 1, "60s", nil), tcpProxy("c")))}, r.echoes()))
		for _, l := range []string{"l", "m", "l", "m"} {
			r.dial(l).as(l).fin().end()
		}
		r.moved(ofRateLimit)
	}},
	{"rate_limit_shared_by_key", func(r *run) {
		shared := func(key string) obj { return rateLimit(2, 1, "60s", obj{"share_key": key}) }
		r.start(static([]obj{listener("l", chain(shared("k"), tcpProxy("c"))), listener("m", chain(shared("k"), tcpProxy("c"))), listener("n", chain(shared("other"), tcpProxy("c")))}, r.echoes()))
		for _, l := range []string{"l", "m", "l", "m", "n"} {
			r.dial(l).as(l).fin().end()
		}
		r.moved(ofRateLimit)
	}},
	{"rate_limit_key_with_another_bucket_is_not_shared", func(r *run) {
		a, b := rateLimit(1, 1, "60s", obj{"share_key": "k"}), rateLimit(2, 1, "60s", obj{"share_key": "k"})
		r.start(static([]obj{listener("l", chain(a, tcpProxy("c"))), listener("m", chain(b, tcpProxy("c")))}, r.echoes()))
		for _, l := range []string{"l", "m", "m", "l", "m"} {
			r.dial(l).as(l).fin().end()
		}
		r.moved(ofRateLimit)
	}},
	{"rate_limit_then_connection_limit", func(r *run) {
		r.start(static([]obj{listener("l", chain(rateLimit(2, 1, "60s", nil), connectionLimit(1, nil), tcpProxy("c")))}, r.echoes()))
		one := r.dial("l").as("first").send("1").expect("1")
		r.dial("l").as("second").end()
		r.dial("l").as("third").end()
		one.leave()
		r.movedByFilters(ofRateLimit, ofConnectionLimit)
	}},
	{"connection_limit_before_echo", func(r *run) {
		r.start(static([]obj{listener("l", chain(connectionLimit(1, nil), network("echo", "Echo", nil)))}, nil))
		one := r.dial("l").as("first").send("1").expect("1")
		r.dial("l").as("second").end()
		one.leave()
		r.movedByFilters(ofConnectionLimit)
	}},
	{"direct_response", func(r *run) {
		r.start(static([]obj{listener("l", chain(directResponse("sorry\n")))}, nil))
		r.dial("l").end()
		r.movedByFilters()
	}},
	{"direct_response_empty", func(r *run) {
		r.start(static([]obj{listener("l", chain(network("direct_response", "Config", nil)))}, nil))
		r.dial("l").end()
		r.movedByFilters()
	}},
	{"direct_response_talking_client", func(r *run) {
		r.start(static([]obj{listener("l", chain(directResponse("sorry\n")))}, nil))
		c := r.dial("l").send("some bytes").expect("sorry\n")
		time.Sleep(breath)
		r.note("client: %t", c.gone())
		r.movedByFilters()
	}},
	{"direct_response_big", func(r *run) {
		big := make([]byte, 300_000)
		for i := range big {
			big[i] = byte('a' + i%26)
		}
		r.start(static([]obj{listener("l", chain(directResponse(string(big))))}, nil))
		r.dial("l").end()
		r.movedByFilters()
	}},
	{"direct_response_behind_a_limit", func(r *run) {
		r.start(static([]obj{listener("l", chain(rateLimit(1, 1, "60s", nil), directResponse("sorry")))}, nil))
		r.dial("l").end()
		r.dial("l").end()
		r.movedByFilters(ofRateLimit)
	}},
}

// leave half-closes and notes the end; the clock starts anew.
func (c *client) leave() {
	c.r.mark()
	c.fin().end()
}

// gone says whether the client's connection has ended, in whatever way: after
// bytes that nobody read that is chance.
func (c *client) gone() bool {
	_ = c.SetReadDeadline(time.Now().Add(4 * time.Second))
	n, err := c.Read(make([]byte, 1))
	_, ended := peer.EndOf(err)
	return n == 0 && err != nil && ended
}

// endOrEcho notes whether the answer comes, or the end.
func (c *client) endOrEcho(want string) {
	buf := make([]byte, len(want))
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := c.Read(buf); n > 0 && err == nil {
		c.r.note("%s: served", c.name)
	} else {
		c.r.note("%s: turned away", c.name)
	}
	c.Close()
}
