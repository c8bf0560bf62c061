package resource

import (
	"errors"
	"fmt"
	"strings"

	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"

	"github.com/sluice-proxy/sluice/api"
	"github.com/sluice-proxy/sluice/api/expression"
	"github.com/sluice-proxy/sluice/api/substitution"
)

// tunnel decodes a tunneling_config; nil: there is none.
func (w *walker) tunnel(path string, p *tcpproxyv3.TcpProxy_TunnelingConfig) *api.Tunnel {
	if p == nil {
		return nil
	}
	t := &api.Tunnel{Hostname: w.format(path+".hostname", p.GetHostname())}
	switch {
	case p.GetUsePost():
		if t.PostPath = p.GetPostPath(); t.PostPath == "" {
			t.PostPath = "/"
		}
	case p.GetPostPath() != "":
		w.fail(path+".post_path", errors.New("Can't set a post path when POST method isn't used"))
	}
	for i, h := range p.GetHeadersToAdd() {
		at := fmt.Sprintf("%s.headers_to_add[%d]", path, i)
		name := strings.ToLower(h.GetHeader().GetKey())
		if strings.HasPrefix(name, ":") || name == "host" {
			w.fail(at+".header.key", errors.New(":-prefixed or host headers may not be modified"))
		}
		one := api.TunnelHeader{Name: name, Action: api.HTTPAppend(h.GetAppendAction())}
		if a := h.GetAppend(); a != nil { //nolint:staticcheck // deprecated, and in use
			if h.GetAppendAction() != 0 {
				w.fail(at, errors.New("Both append and append_action are set and it's not allowed"))
			}
			if !a.GetValue() {
				one.Action = api.OverwriteOrAdd
			}
		}
		if raw := h.GetHeader().GetRawValue(); len(raw) > 0 {
			one.Value = substitution.Format{{Literal: string(raw), Max: -1}}
		} else {
			one.Value = w.format(at+".header.value", h.GetHeader().GetValue())
		}
		t.Headers = append(t.Headers, one)
	}
	return t
}

func (w *walker) format(path, s string) substitution.Format {
	f, err := parseFormat(s, expression.Options{})
	if err != nil {
		w.fail(path, err)
	}
	return f
}
