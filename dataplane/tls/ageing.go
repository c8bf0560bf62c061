package tls

import (
	"crypto/tls"
	"encoding/binary"
	"time"
)

// ageing writes into tickets when they were made, and takes none that is older than
// session_timeout.
type ageing struct {
	config *tls.Config // whose keys encrypt
	limit  time.Duration
}

func (a *ageing) wrap(c tls.ConnectionState, s *tls.SessionState) ([]byte, error) {
	s.Extra = append(s.Extra, binary.BigEndian.AppendUint64(nil, uint64(time.Now().UnixNano())))
	return a.config.EncryptTicket(c, s)
}

func (a *ageing) unwrap(ticket []byte, c tls.ConnectionState) (*tls.SessionState, error) {
	s, err := a.config.DecryptTicket(ticket, c)
	if s == nil || err != nil {
		return nil, err
	}
	if len(s.Extra) == 0 || len(s.Extra[0]) != 8 {
		return nil, nil
	}
	if made := int64(binary.BigEndian.Uint64(s.Extra[0])); time.Since(time.Unix(0, made)) > a.limit {
		return nil, nil
	}
	return s, nil
}
