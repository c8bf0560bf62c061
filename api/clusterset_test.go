package api

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"testing"
)

func TestAClusterSetIsAMapThatNobodyChanges(t *testing.T) {
	random := rand.New(rand.NewPCG(8, 8))
	type version struct {
		set  ClusterSet
		want map[string]*Cluster
	}
	versions := []version{{}}
	for range 5000 {
		last := versions[len(versions)-1]
		next := version{set: last.set, want: maps.Clone(last.want)}
		if next.want == nil {
			next.want = map[string]*Cluster{}
		}
		c := &Cluster{Name: fmt.Sprint("c", random.IntN(300))}
		switch random.IntN(4) {
		case 0:
			next.set = next.set.Without(c.Name)
			delete(next.want, c.Name)
		case 1:
			var names []string
			for range random.IntN(20) { // some of them twice
				name := fmt.Sprint("c", random.IntN(300))
				names = append(names, name)
				delete(next.want, name)
				if random.IntN(2) == 0 {
					next.want[name] = &Cluster{Name: name}
				}
			}
			next.set = next.set.Edit(names, func(name string) *Cluster { return next.want[name] })
		default:
			next.set = next.set.With(c)
			next.want[c.Name] = c
		}
		if versions = append(versions, next); len(versions) > 50 {
			versions = versions[1:]
		}
	}
	for _, v := range versions { // also the old ones
		got := map[string]*Cluster{}
		for c := range v.set.All() {
			got[c.Name] = c
		}
		if !maps.Equal(got, v.want) || v.set.Len() != len(v.want) {
			t.Fatalf("%d clusters and Len %d, want %d", len(got), v.set.Len(), len(v.want))
		}
		for i := range 300 {
			if name := fmt.Sprint("c", i); v.set.Get(name) != v.want[name] {
				t.Fatalf("%s: got %p, want %p", name, v.set.Get(name), v.want[name])
			}
		}
		for _, o := range versions {
			to := maps.Clone(o.want)
			v.set.Changes(o.set, func(was, is *Cluster) {
				switch {
				case was == is:
					t.Fatal("a change that is none")
				case is == nil && to[was.Name] == was:
					delete(to, was.Name)
				case is != nil && to[is.Name] == was:
					to[is.Name] = is
				default:
					t.Fatalf("a change of %v to %v, from %v", was, is, to)
				}
			})
			if !maps.Equal(to, v.want) {
				t.Fatalf("the changes lead to %d clusters, want %d", len(to), len(v.want))
			}
		}
	}
}

func BenchmarkOneClusterChanges(b *testing.B) {
	for _, n := range []int{1000, 10000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var s ClusterSet
			for i := range n {
				s = s.With(&Cluster{Name: fmt.Sprint("c", i)})
			}
			c := []*Cluster{{Name: "c7"}, {Name: "c7"}}
			seen := 0
			for i := 0; b.Loop(); i++ {
				next := s.With(c[i%2])
				next.Changes(s, func(_, _ *Cluster) { seen++ })
				s = next
			}
			if seen < b.N {
				b.Errorf("%d changes seen of %d", seen, b.N)
			}
		})
	}
}
