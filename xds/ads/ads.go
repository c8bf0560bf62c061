// Package ads speaks the aggregated discovery service, state of the world and
// delta: one stream for all types, nonces, versions, ACK and NACK, back-off and
// what must be said again after a reconnect. It knows type URLs and bytes; what
// the bytes mean is for its caller.
//
// Rules are those of Envoy's xds_protocol.rst; where that page leaves room, what
// Envoy 1.40 was seen to send decides, and the comment says "seen".
package ads

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/sluice-proxy/sluice/xds/transport"
)

// ErrResponse says that a response broke the protocol itself; nothing of it may
// be used.
var ErrResponse = errors.New("malformed response")

// Options of a Client.
type Options struct {
	Delta bool
	// Dial makes one connection for one stream, and one attempt at it.
	Dial func(context.Context) (transport.Conn, error)
	Node *corev3.Node
	// NodeOnce sends the node with the first request of a stream only.
	NodeOnce bool
	// Backoff is how long to wait before attempt n, from 1, after a stream
	// broke; n starts over with every response received. Jitter if nil.
	Backoff func(n int) time.Duration
	Log     *slog.Logger
	// Events is where Run reports; a channel of the client's own if nil.
	Events chan Event
	// TypeURL makes it a stream for this type alone, by the type's own service;
	// the aggregated service if empty.
	TypeURL string
	// Limit bounds the requests; nil is no bound. Limited is called for each that
	// has to wait, and must not block.
	Limit   *rate.Limiter
	Limited func()
}

// Resource is one resource of a response.
type Resource struct {
	// Name and Version are delta's, or those of the wrapper that a
	// state-of-the-world resource came in; else empty.
	Name, Version string
	// TTL is how long the resource holds unless it is sent again; 0 is for ever.
	TTL time.Duration
	// Body is nil in a heartbeat, which only says that the resource is still so.
	Body *anypb.Any
}

// Response is what a server sent, in one form for both variants.
type Response struct {
	TypeURL string
	Delta   bool
	// Version is version_info, or delta's system_version_info.
	Version string
	Nonce   string
	// ControlPlane is control_plane.identifier, if given.
	ControlPlane string
	Resources    []Resource
	// Removed are delta's removed_resources.
	Removed []string
	// Err, if set, wraps ErrResponse; such a response must be given to Nack.
	Err error

	// From is where it came from.
	From   Source
	stream int
}

// ResourceVersion is the version of r as a part of this response.
func (p *Response) ResourceVersion(r Resource) string {
	if p.Delta || r.Version != "" {
		return r.Version
	}
	return p.Version
}

// Source is where resources come from: a stream (Client), a file (Path), or polls
// (REST). What a source has no use for does nothing.
type Source interface {
	Subscribe(typeURL string, names []string)
	Ack(*Response)
	Nack(*Response, error)
	Accept(*Response)
	Pause(typeURL string)
	Resume(typeURL string)
	Repeat(typeURL string)
	Expire(typeURL string, names ...string)
	Run(context.Context) error
}

// Event is what happened at From: exactly one of the other fields is set.
type Event struct {
	From     Source
	Opened   bool
	Closed   error
	Response *Response
	// Unread is why a file or an answer could not be read.
	Unread error
}

// Client is one ADS stream, made again whenever it breaks.
//
// Run delivers Events one at a time and waits for each to be taken. Subscribe,
// Ack and Nack may be called from any goroutine, at any time; what they say is
// kept and told again to every later stream.
type Client struct {
	o      Options
	events chan Event
	told   told // Run only

	// wanted is closed when something is: a type's own stream is not opened before,
	// as Envoy's is not; the aggregated one is.
	wanted chan struct{}

	mu    sync.Mutex
	types []*subscription // in the order of their first Subscribe
	// number and out belong to the stream that is open; out is nil without one.
	number   int
	out      *outbox
	nodeSent bool
}

// New returns a client; Run starts it.
func New(o Options) *Client {
	if o.Backoff == nil {
		o.Backoff = Jitter
	}
	if o.Events == nil {
		o.Events = make(chan Event)
	}
	c := &Client{o: o, events: o.Events, wanted: make(chan struct{})}
	if o.TypeURL == "" {
		close(c.wanted)
	}
	return c
}

// Events is where Run reports. It is never closed.
func (c *Client) Events() <-chan Event { return c.events }

// subscription is what is known and wanted of one type.
type subscription struct {
	url string
	// wildcard: everything of this type is wanted (LDS, CDS).
	wildcard bool
	names    []string // wanted, sorted; empty if wildcard
	// demanded are wanted beside those, sorted (delta).
	demanded []string
	// version of the last accepted response (state of the world).
	version string
	// nonce of the last response on this stream that was answered (state of the
	// world). A request that overtakes the answer to a newer response carries it,
	// is stale to the server, and loses nothing: the answer names everything too.
	nonce string
	// asked says that this stream has seen a request for this type.
	asked bool
	// paused holds back every request but answers; unsaid is what it held back.
	paused bool
	unsaid bool
	// versions of the accepted resources (delta).
	versions map[string]string
}

// Subscribe wants names of a type from now on and nothing else; nil wants all.
// A request goes out only if that changes something.
func (c *Client) Subscribe(typeURL string, names []string) {
	wildcard := names == nil
	names = slices.Clone(names)
	slices.Sort(names)
	names = slices.Compact(names)
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.findLocked(typeURL)
	if s == nil {
		s = &subscription{url: typeURL, wildcard: wildcard, names: names, versions: map[string]string{}}
		c.types = append(c.types, s)
		if len(c.types) == 1 && c.o.TypeURL != "" {
			close(c.wanted)
		}
		c.askLocked(s)
		return
	}
	added, gone := difference(s.names, names)
	if s.wildcard == wildcard && len(added) == 0 && len(gone) == 0 {
		return
	}
	s.wildcard, s.names = wildcard, names
	for _, n := range gone {
		delete(s.versions, n)
	}
	if !s.asked {
		c.askLocked(s)
		return
	}
	if c.o.Delta {
		c.sendLocked(s, deltaChange(s, added, gone))
		return
	}
	if s.paused {
		s.unsaid = true
		return
	}
	c.sendLocked(s, sotwRequest(s))
}

// Demand wants one more name of a type for good, beside what Subscribe says. In
// state of the world it says nothing: to many servers a name beside the wildcard
// would mean that name alone.
func (c *Client) Demand(typeURL, name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.findLocked(typeURL)
	if s == nil {
		s = &subscription{url: typeURL, versions: map[string]string{}}
		c.types = append(c.types, s)
		if len(c.types) == 1 && c.o.TypeURL != "" {
			close(c.wanted)
		}
	}
	at, known := slices.BinarySearch(s.demanded, name)
	if known || !c.o.Delta {
		return
	}
	s.demanded = slices.Insert(slices.Clone(s.demanded), at, name)
	if !s.asked {
		c.askLocked(s)
		return
	}
	c.sendLocked(s, deltaChange(s, []string{name}, nil))
}

// Pause holds back what would be asked of a type, until Resume or, in state of
// the world, until the next answer, which says it too. Answers are never held
// back. What delta has to say of a change of names goes out at once: it is
// never said again.
func (c *Client) Pause(typeURL string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.findLocked(typeURL); s != nil {
		s.paused = true
	}
}

// Resume says what Pause held back.
func (c *Client) Resume(typeURL string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.findLocked(typeURL)
	if s == nil || !s.paused {
		return
	}
	s.paused = false
	switch {
	case !s.asked:
		c.askLocked(s)
	case s.unsaid:
		c.sendLocked(s, sotwRequest(s))
	}
}

// Repeat asks once more for what is wanted already, in state of the world: Envoy
// does so when a changed cluster waits for endpoints that it had (seen). In delta
// it says nothing.
func (c *Client) Repeat(typeURL string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.findLocked(typeURL); s != nil && s.asked && !c.o.Delta {
		c.sendLocked(s, sotwRequest(s))
	}
}

// Expire forgets the versions of resources whose TTL has ended: a server that is
// told of them would not send them again (delta).
func (c *Client) Expire(typeURL string, names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.findLocked(typeURL); s != nil {
		for _, n := range names {
			delete(s.versions, n)
		}
	}
}

// Ack accepts r. It may come long after r, and after later responses; if r's
// stream is gone the versions are kept all the same.
func (c *Client) Ack(r *Response) { c.answer(r, nil) }

// Nack rejects r: versions stay as they were.
func (c *Client) Nack(r *Response, err error) { c.answer(r, err) }

// Accept is the first half of Ack: the versions are kept now, the ACK itself is
// still owed. A request that must go out before it already tells the version.
func (c *Client) Accept(r *Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.findLocked(r.TypeURL); s != nil {
		s.accept(r)
	}
}

func (c *Client) answer(r *Response, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.findLocked(r.TypeURL)
	if s == nil {
		return // nobody asked for this type: Envoy drops it in silence, seen
	}
	if err == nil {
		s.accept(r)
	}
	if r.stream != c.number || c.out == nil {
		return
	}
	if c.o.Delta {
		q := deltaAnswer(r, err)
		if !s.asked { // the first request of the type, seen
			first := deltaFirst(s)
			q.ResourceNamesSubscribe, q.InitialResourceVersions = first.ResourceNamesSubscribe, first.InitialResourceVersions
		}
		s.asked = true
		c.sendLocked(s, q)
		return
	}
	s.nonce, s.asked = r.Nonce, true
	q := sotwRequest(s)
	q.ErrorDetail = detail(err)
	c.sendLocked(s, q)
}

func (s *subscription) accept(r *Response) {
	if !r.Delta {
		s.version = r.Version
		return
	}
	for _, res := range r.Resources {
		if s.wildcard || contains(s.names, res.Name) || contains(s.demanded, res.Name) {
			s.versions[res.Name] = res.Version
		}
	}
	for _, n := range r.Removed {
		delete(s.versions, n)
	}
}

// open makes o the stream in use and says again all that is wanted.
func (c *Client) open(o *outbox) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	c.out, c.nodeSent = o, false
	for _, s := range c.types {
		s.asked, s.unsaid, s.nonce = false, false, ""
	}
	for _, s := range c.types {
		c.askLocked(s)
	}
	return c.number
}

func (c *Client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out = nil
}

// askLocked sends the first request of a type on this stream. A type of which
// nothing is wanted is not asked for: no names would mean all of them. (Envoy's
// state-of-the-world client sends such a request after a reconnect, seen; its
// delta client does not.)
func (c *Client) askLocked(s *subscription) {
	if c.out == nil || s.paused || !s.wildcard && len(s.names) == 0 && len(s.demanded) == 0 {
		return
	}
	s.asked = true
	if c.o.Delta {
		c.sendLocked(s, deltaFirst(s))
		return
	}
	c.sendLocked(s, sotwRequest(s))
}

func (c *Client) sendLocked(s *subscription, m proto.Message) {
	if c.out == nil {
		return
	}
	s.unsaid = false
	if !c.o.NodeOnce || !c.nodeSent {
		setNode(m, c.o.Node)
		c.nodeSent = true
	}
	c.out.put(m)
}

func (c *Client) findLocked(typeURL string) *subscription {
	for _, s := range c.types {
		if s.url == typeURL {
			return s
		}
	}
	return nil
}

// Run keeps a stream until ctx ends, and returns ctx's error.
func (c *Client) Run(ctx context.Context) error {
	select {
	case <-c.wanted:
	case <-ctx.Done():
		return ctx.Err()
	}
	for attempt := 0; ; {
		heard, err := c.stream(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if heard {
			attempt = 0
		}
		attempt++
		wait := c.o.Backoff(attempt)
		c.told.broke(c.o.Log, err, wait)
		if !c.tell(ctx, Event{Closed: err}) || !sleep(ctx, wait) {
			return ctx.Err()
		}
	}
}

func (c *Client) tell(ctx context.Context, e Event) bool {
	e.From = c
	if e.Response != nil {
		e.Response.From = c
	}
	select {
	case c.events <- e:
		return true
	case <-ctx.Done():
		return false
	}
}

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// difference of two sorted lists.
func difference(old, now []string) (added, gone []string) {
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(old) == 0 || len(now) > 0 && now[0] < old[0]:
			added, now = append(added, now[0]), now[1:]
		case len(now) == 0 || old[0] < now[0]:
			gone, old = append(gone, old[0]), old[1:]
		default:
			old, now = old[1:], now[1:]
		}
	}
	return added, gone
}

func contains(sorted []string, s string) bool {
	_, ok := slices.BinarySearch(sorted, s)
	return ok
}

// nackCode is what Envoy 1.40 puts into error_detail, seen.
const nackCode = codes.Internal
