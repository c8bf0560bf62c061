package stream

// Object is a filter state object: its string form, and how it may be used.
type Object struct {
	Value string
	// Address says that the object is an address, which Value prints.
	Address bool
	// Hashable says that a hash policy may use it.
	Hashable bool
	ReadOnly bool
	// Shared says with whom upstream the object is shared.
	Shared Sharing
}

// Sharing is Envoy's StreamSharing.
type Sharing uint8

// The ways to share a filter state object with the upstream connection.
const (
	None Sharing = iota
	Once
	Transitive
)

// State are the filter state objects by key.
type State map[string]Object

// State are the connection's filter state objects, for reading.
func (i *Info) State() State {
	if i.rare == nil {
		return nil
	}
	return i.rare.state
}

// SetState sets an object; it returns false if there is one that is read-only.
func (i *Info) SetState(key string, o Object) bool {
	r := i.needRare()
	if have, ok := r.state[key]; ok && have.ReadOnly {
		return false
	}
	if r.state == nil {
		r.state = State{}
	}
	r.state[key] = o
	return true
}

// Metadata is dynamic metadata: values as JSON has them, by filter name and key.
type Metadata map[string]map[string]any

// At goes down into it.
func (m Metadata) At(filter string, path []string) (v any, there bool) {
	at, there := m[filter]
	if !there || len(path) == 0 {
		return nil, false
	}
	for _, key := range path[:len(path)-1] {
		next, ok := at[key].(map[string]any)
		if !ok {
			return nil, false
		}
		at = next
	}
	v, there = at[path[len(path)-1]]
	return v, there
}

// Metadata is the connection's dynamic metadata, for reading.
func (i *Info) Metadata() Metadata {
	if i.rare == nil {
		return nil
	}
	return i.rare.metadata
}

// SetMetadata sets one value.
func (i *Info) SetMetadata(filter, key string, value any) {
	r := i.needRare()
	if r.metadata == nil {
		r.metadata = Metadata{}
	}
	if r.metadata[filter] == nil {
		r.metadata[filter] = map[string]any{}
	}
	r.metadata[filter][key] = value
}
