package api

import "iter"

// ClusterSet is clusters by name. It is immutable: With, Without and Edit make
// others, which share with it what is the same, so that one cluster's change costs the
// same among ten and among ten thousand, and Changes finds it without looking at
// the others. The zero value is empty.
type ClusterSet struct {
	root *branch
	n    int
}

// branch is chosen by 6 bits of a name's hash, bucket by 6 more.
type (
	branch [64]*twig
	twig   [64][]*Cluster
)

func spot(name string) (i, j uint32) {
	h := uint32(2166136261) // FNV-1a
	for k := range len(name) {
		h = (h ^ uint32(name[k])) * 16777619
	}
	h ^= h >> 16
	return h & 63, h >> 6 & 63
}

// Clusters is a set of clusters, whose names are unique.
func Clusters(all ...*Cluster) ClusterSet {
	names, by := make([]string, len(all)), make(map[string]*Cluster, len(all))
	for i, c := range all {
		names[i], by[c.Name] = c.Name, c
	}
	return ClusterSet{}.Edit(names, func(name string) *Cluster { return by[name] })
}

// Len is how many there are.
func (s ClusterSet) Len() int { return s.n }

// Get is the cluster called name, or nil.
func (s ClusterSet) Get(name string) *Cluster {
	i, j := spot(name)
	return s.root.at(i).find(j, name)
}

// With is s with c, in the place of the cluster of the same name if there is one.
func (s ClusterSet) With(c *Cluster) ClusterSet {
	return s.Edit([]string{c.Name}, func(string) *Cluster { return c })
}

// Without is s without the cluster called name.
func (s ClusterSet) Without(name string) ClusterSet {
	return s.Edit([]string{name}, func(string) *Cluster { return nil })
}

// Edit is s with what get says in the place of the clusters of these names; nil
// is none.
func (s ClusterSet) Edit(names []string, get func(name string) *Cluster) ClusterSet {
	var own [64]bool // twigs that are no other set's
	var root *branch
	for _, name := range names {
		c := get(name)
		i, j := spot(name)
		if c == s.root.at(i).find(j, name) {
			continue
		}
		if root == nil {
			root = new(branch)
			if s.root != nil {
				*root = *s.root
			}
			s.root = root
		}
		if !own[i] {
			t := new(twig)
			if root[i] != nil {
				*t = *root[i]
			}
			root[i], own[i] = t, true
		}
		old := root[i][j]
		bucket := make([]*Cluster, 0, len(old)+1)
		for _, o := range old {
			if o.Name != name {
				bucket = append(bucket, o)
			}
		}
		s.n -= len(old) - len(bucket)
		if c != nil {
			bucket = append(bucket, c)
			s.n++
		}
		root[i][j] = bucket
	}
	return s
}

// All are the clusters, in no order.
func (s ClusterSet) All() iter.Seq[*Cluster] {
	return func(yield func(*Cluster) bool) {
		for i := range uint32(64) {
			t := s.root.at(i)
			for j := range uint32(64) {
				for _, c := range t.bucket(j) {
					if !yield(c) {
						return
					}
				}
			}
		}
	}
}

// Changes calls f for each cluster that is not the very same in s and in old; nil
// is none. What they share is not looked at.
func (s ClusterSet) Changes(old ClusterSet, f func(was, is *Cluster)) {
	if s.root == old.root {
		return
	}
	for i := range uint32(64) {
		t, o := s.root.at(i), old.root.at(i)
		if t == o {
			continue
		}
		for j := range uint32(64) {
			for _, c := range t.bucket(j) {
				if was := o.find(j, c.Name); was != c {
					f(was, c)
				}
			}
			for _, was := range o.bucket(j) {
				if t.find(j, was.Name) == nil {
					f(was, nil)
				}
			}
		}
	}
}

func (b *branch) at(i uint32) *twig {
	if b == nil {
		return nil
	}
	return b[i]
}

func (t *twig) bucket(j uint32) []*Cluster {
	if t == nil {
		return nil
	}
	return t[j]
}

func (t *twig) find(j uint32, name string) *Cluster {
	for _, c := range t.bucket(j) {
		if c.Name == name {
			return c
		}
	}
	return nil
}
