package localratelimit

import (
	"testing"
	"time"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/stats"
	"github.com/sluice-proxy/sluice/dataplane/filter"
)

func newFactory(s *Shared, key string, max uint32) *Factory {
	return New(&api.LocalRateLimit{StatPrefix: "a.b", ShareKey: key, Bucket: api.TokenBucket{MaxTokens: max, TokensPerFill: 1, FillInterval: time.Hour}}, filter.Context{Stats: stats.New()}, s)
}

func TestBucketsAreSharedByKeyAndSize(t *testing.T) {
	var s Shared
	a, b := newFactory(&s, "k", 2), newFactory(&s, "k", 2)
	if a.limiter != b.limiter {
		t.Error("one key, one size, two buckets")
	}
	for _, other := range []*Factory{newFactory(&s, "k", 3), newFactory(&s, "other", 2), newFactory(&s, "", 2)} {
		if other.limiter == a.limiter {
			t.Errorf("%+v shares", other.config)
		}
	}
}

func TestASharedBucketGoesWithItsLastUser(t *testing.T) {
	var s Shared
	a, b := newFactory(&s, "k", 1), newFactory(&s, "k", 1)
	if !a.limiter.Allow() || b.limiter.Allow() {
		t.Fatal("one token for two")
	}
	a.Release()
	if c := newFactory(&s, "k", 1); c.limiter.Allow() {
		t.Error("the bucket was filled although somebody uses it")
	} else {
		c.Release()
	}
	b.Release()
	if len(s.buckets) != 0 {
		t.Errorf("%d buckets without users", len(s.buckets))
	}
	if c := newFactory(&s, "k", 1); !c.limiter.Allow() {
		t.Error("a new bucket is not full")
	}
}

func TestABucketOfNoTokensTurnsAllAway(t *testing.T) {
	var s Shared
	if newFactory(&s, "", 0).limiter.Allow() {
		t.Error("a token out of nothing")
	}
}
