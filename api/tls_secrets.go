package api

// Secrets are those that came by themselves, by SecretRef.Key. Who refers to one
// does not change when it does: only what is in here does.
type Secrets map[string]*Secret

// Downstream is t with what it refers to in it, and no reference left; t itself if
// it refers to nothing. ready is false if something of it is not there: a secret
// that did not come in time, or one of another kind.
func (s Secrets) Downstream(t *DownstreamTLS) (_ *DownstreamTLS, ready bool) {
	if t == nil || !t.refers() && t.TicketKeysRef.Key == "" {
		return t, true
	}
	out := *t
	ready = s.resolve(&out.TLSContext)
	if k := t.TicketKeysRef.Key; k != "" {
		out.TicketKeysRef = SecretRef{}
		if out.TicketKeys = s[k].ticketKeys(); out.TicketKeys == nil {
			ready = false
		}
	}
	return &out, ready
}

// Upstream is Downstream for the other side.
func (s Secrets) Upstream(t *UpstreamTLS) (_ *UpstreamTLS, ready bool) {
	if t == nil || !t.refers() {
		return t, true
	}
	out := *t
	ready = s.resolve(&out.TLSContext)
	return &out, ready
}

func (c *TLSContext) refers() bool { return len(c.CertificateRefs) > 0 || c.ValidationRef.Key != "" }

func (s Secrets) resolve(c *TLSContext) (ready bool) {
	ready = true
	if refs := c.CertificateRefs; len(refs) > 0 {
		c.CertificateRefs, c.Certificates = nil, nil
		for _, r := range refs {
			if cert := s[r.Key].certificate(); cert != nil {
				c.Certificates = append(c.Certificates, cert)
			} else {
				ready = false
			}
		}
	}
	if k := c.ValidationRef.Key; k != "" {
		c.ValidationRef = SecretRef{}
		v := s[k].validation()
		if v == nil {
			return false
		}
		c.Validation = c.Validation.With(v)
	}
	return ready
}

func (s *Secret) certificate() *TLSCertificate {
	if s == nil {
		return nil
	}
	return s.Certificate
}

func (s *Secret) validation() *TLSValidation {
	if s == nil {
		return nil
	}
	return s.Validation
}

func (s *Secret) ticketKeys() *TicketKeys {
	if s == nil {
		return nil
	}
	return s.TicketKeys
}

// Refs are all that t refers to.
func (t *DownstreamTLS) Refs() []SecretRef {
	if t == nil {
		return nil
	}
	refs := t.refs()
	if t.TicketKeysRef.Key != "" {
		refs = append(refs, t.TicketKeysRef)
	}
	return refs
}

// Refs are all that t refers to.
func (t *UpstreamTLS) Refs() []SecretRef {
	if t == nil {
		return nil
	}
	return t.refs()
}

func (c *TLSContext) refs() []SecretRef {
	refs := append([]SecretRef(nil), c.CertificateRefs...)
	if c.ValidationRef.Key != "" {
		refs = append(refs, c.ValidationRef)
	}
	return refs
}

// SecretRefs are all that the listener refers to.
func (l *Listener) SecretRefs() (refs []SecretRef) {
	for _, fc := range l.FilterChains {
		refs = append(refs, fc.TLS.Refs()...)
	}
	if l.DefaultFilterChain != nil {
		refs = append(refs, l.DefaultFilterChain.TLS.Refs()...)
	}
	return refs
}

// SecretRefs are all that the cluster refers to.
func (c *Cluster) SecretRefs() (refs []SecretRef) {
	refs = c.Socket.TLS.Refs()
	for _, m := range c.SocketMatches {
		refs = append(refs, m.Socket.TLS.Refs()...)
	}
	return refs
}
