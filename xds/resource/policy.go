package resource

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"google.golang.org/protobuf/reflect/protoreflect"
)

// decision is what becomes of a field that is set.
type decision uint8

const (
	// undecided fields are a hole in the table; they are refused, and a test
	// finds them.
	undecided decision = iota
	// built fields have their full effect: a decoder reads them.
	built
	// noted fields are accepted without effect and listed in Notes.Unbuilt.
	noted
	// refused fields make the resource an error.
	refused
	// inside fields are built as far as the fields of their own message are.
	inside
	// judged fields are decided by their value.
	judged
)

// rule is the decision for one field. For judged fields judge returns the
// decision (built, noted or refused) for a value and, with refused, the cause
// if it is more than `not supported yet`.
type rule struct {
	what  decision
	judge func(protoreflect.Value) (decision, string)
}

// policy holds the rule for every field of a message.
type policy map[protoreflect.Name]rule

// policies holds a policy for every message that is read field by field.
type policies map[protoreflect.FullName]policy

// table is all of them, made once and never changed.
var table = sync.OnceValue(allPolicies)

func allPolicies() policies {
	t := policies{}
	maps.Copy(t, listenerPolicies())
	maps.Copy(t, limitPolicies())
	maps.Copy(t, rbacPolicies())
	maps.Copy(t, statePolicies())
	maps.Copy(t, extAuthzPolicies())
	maps.Copy(t, rateLimitPolicies())
	maps.Copy(t, httpPolicies())
	maps.Copy(t, clusterPolicies())
	maps.Copy(t, balancingPolicies())
	maps.Copy(t, healthPolicies())
	maps.Copy(t, dnsPolicies())
	maps.Copy(t, aggregatePolicies())
	maps.Copy(t, forwardPolicies())
	maps.Copy(t, upstreamPolicies())
	maps.Copy(t, proxyPolicies())
	maps.Copy(t, endpointPolicies())
	maps.Copy(t, addressPolicies())
	maps.Copy(t, bootstrapPolicies())
	maps.Copy(t, sourcePolicies())
	maps.Copy(t, extensionPolicies())
	maps.Copy(t, tlsPolicies())
	return t
}

// fields gives each of the named fields the same decision.
func (p policy) fields(what decision, names ...protoreflect.Name) policy {
	for _, n := range names {
		p[n] = rule{what: what}
	}
	return p
}

// judge leaves the named fields to f.
func (p policy) judge(f func(protoreflect.Value) (decision, string), names ...protoreflect.Name) policy {
	for _, n := range names {
		p[n] = rule{what: judged, judge: f}
	}
	return p
}

// onlyIf refuses the fields for which harmless is false; the others ask for
// nothing that is not done anyway.
func (p policy) onlyIf(harmless func(protoreflect.Value) bool, names ...protoreflect.Name) policy {
	return p.judge(func(v protoreflect.Value) (decision, string) {
		if harmless(v) {
			return built, ""
		}
		return refused, ""
	}, names...)
}

// walker goes through the set fields of a resource by the policies.
type walker struct {
	policies policies
	unbuilt  []string
	errs     []error
}

// message applies the policy of m to every field of it that is set, in the
// order of their declaration.
func (w *walker) message(path string, m protoreflect.Message) {
	p := w.policies[m.Descriptor().FullName()]
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		if m.Has(fd) {
			w.field(join(path, string(fd.Name())), fd, p[fd.Name()], m.Get(fd))
		}
	}
}

func (w *walker) field(path string, fd protoreflect.FieldDescriptor, r rule, v protoreflect.Value) {
	switch r.what {
	case built:
	case noted:
		w.unbuilt = append(w.unbuilt, path)
	case inside:
		each(path, fd, v, func(at string, one protoreflect.Value) { w.message(at, one.Message()) })
	case judged:
		seen := false // one note per field, one error per value
		each(path, fd, v, func(at string, one protoreflect.Value) {
			switch what, cause := r.judge(one); {
			case what == refused:
				w.refuse(at, fd, one, cause)
			case what == noted && !seen:
				seen = true
				w.unbuilt = append(w.unbuilt, path)
			}
		})
	default:
		w.refuse(path, fd, v, "")
	}
}

func (w *walker) refuse(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value, cause string) {
	if cause == "" {
		cause = "not supported yet"
	}
	if s := show(fd, v); s != "" {
		cause += " (" + s + ")"
	}
	w.fail(path, errors.New(cause))
}

func (w *walker) fail(path string, err error) {
	w.errs = append(w.errs, at(path, err))
}

// err is all that was found, on one line.
func (w *walker) err() error { return oneLine(w.errs) }

// lines joins errors by "; ": a NACK's detail and a log line are one line.
type lines []error

func oneLine(errs []error) error {
	switch len(errs) {
	case 0:
		return nil
	case 1:
		return errs[0]
	}
	return lines(errs)
}

func (l lines) Unwrap() []error { return l }

func (l lines) Error() string {
	s := l[0].Error()
	for _, e := range l[1:] {
		s += "; " + e.Error()
	}
	return s
}

// at names the place of an error.
func at(path string, err error) error {
	if path == "" {
		return err
	}
	return fmt.Errorf("%s: %w", path, err)
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

// each calls f for the value, or for each element of it if it is a list. Maps
// are never taken apart: no map is read.
func each(path string, fd protoreflect.FieldDescriptor, v protoreflect.Value, f func(string, protoreflect.Value)) {
	if !fd.IsList() {
		f(path, v)
		return
	}
	for i := range v.List().Len() {
		f(fmt.Sprintf("%s[%d]", path, i), v.List().Get(i))
	}
}
