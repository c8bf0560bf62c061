package stream

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"strings"
)

// distinguished prints a name as BoringSSL does for Envoy (XN_FLAG_RFC2253): last
// part first, what is not ASCII byte by byte.
func distinguished(raw []byte) string {
	var rdns pkix.RDNSequence
	if rest, err := asn1.Unmarshal(raw, &rdns); err != nil || len(rest) > 0 {
		return ""
	}
	var parts []string
	for i := len(rdns) - 1; i >= 0; i-- {
		var values []string
		for j := len(rdns[i]) - 1; j >= 0; j-- {
			values = append(values, attribute(&rdns[i][j]))
		}
		parts = append(parts, strings.Join(values, "+"))
	}
	return strings.Join(parts, ",")
}

func attribute(a *pkix.AttributeTypeAndValue) string {
	id := a.Type.String()
	name := shortName(id)
	s, ok := a.Value.(string)
	if name == "" || !ok {
		der, err := asn1.Marshal(a.Value)
		if err != nil {
			return id + "="
		}
		return id + "=#" + strings.ToUpper(hex.EncodeToString(der))
	}
	return name + "=" + escape(s)
}

// shortName is what the library calls an attribute, empty for one that it does not
// know.
func shortName(id string) string {
	switch id {
	case "2.5.4.3":
		return "CN"
	case "2.5.4.4":
		return "SN"
	case "2.5.4.5":
		return "serialNumber"
	case "2.5.4.6":
		return "C"
	case "2.5.4.7":
		return "L"
	case "2.5.4.8":
		return "ST"
	case "2.5.4.9":
		return "street"
	case "2.5.4.10":
		return "O"
	case "2.5.4.11":
		return "OU"
	case "2.5.4.12":
		return "title"
	case "2.5.4.17":
		return "postalCode"
	case "2.5.4.42":
		return "GN"
	case "1.2.840.113549.1.9.1":
		return "emailAddress"
	case "0.9.2342.19200300.100.1.1":
		return "UID"
	case "0.9.2342.19200300.100.1.25":
		return "DC"
	}
	return ""
}

func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		switch {
		case strings.IndexByte(`,+"\<>;`, c) >= 0, c == '#' && i == 0, c == ' ' && (i == 0 || i == len(s)-1):
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, `\%02X`, c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}
