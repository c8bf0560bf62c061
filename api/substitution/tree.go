package substitution

import "slices"

// Node is one value of a JSON format: exactly one field is set, or none, which
// is null.
type Node struct {
	Object []Field // sorted by key, as Envoy prints them
	List   []Node
	Format Format
	// Literal is JSON that is printed as it stands.
	Literal string
	// IsObject and IsList tell empty ones from null.
	IsObject, IsList bool
}

// Field is a member of an object.
type Field struct {
	Key   string
	Value Node
}

// Object makes an object of fields in any order.
func Object(fields []Field) Node {
	slices.SortFunc(fields, func(a, b Field) int {
		switch {
		case a.Key < b.Key:
			return -1
		case a.Key > b.Key:
			return 1
		}
		return 0
	})
	return Node{Object: fields, IsObject: true}
}
