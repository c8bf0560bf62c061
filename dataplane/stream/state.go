package stream

// Object is a filter state object: its string form, and how it may be used.
type Object struct {
	Value string
	// Address says that the object is an address, which Value prints.
	Address  bool
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

// Set sets an object; it returns false if there is one that is read-only.
func (s *State) Set(key string, o Object) bool {
	if have, ok := (*s)[key]; ok && have.ReadOnly {
		return false
	}
	if *s == nil {
		*s = State{}
	}
	(*s)[key] = o
	return true
}

// Metadata is dynamic metadata: values as JSON has them, by filter name and key.
type Metadata map[string]map[string]any

// Set sets one value.
func (m *Metadata) Set(filter, key string, value any) {
	if *m == nil {
		*m = Metadata{}
	}
	if (*m)[filter] == nil {
		(*m)[filter] = map[string]any{}
	}
	(*m)[filter][key] = value
}
