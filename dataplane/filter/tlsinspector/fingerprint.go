package tlsinspector

import (
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// grease says whether a number is there to be ignored (RFC 8701).
func grease(n uint16) bool { return n&0x0f0f == 0x0a0a && n>>8 == n&0xff }

func sane(in []uint16) []uint16 {
	return slices.DeleteFunc(slices.Clone(in), grease)
}

// ja3 is the MD5 of version, ciphers, extensions, groups and point formats, as
// github.com/salesforce/ja3 has them, but for GREASE among the groups, which
// Envoy leaves in.
func (h *hello) ja3() string {
	list := func(in []uint16) string {
		out := make([]string, len(in))
		for i, n := range in {
			out[i] = strconv.Itoa(int(n))
		}
		return strings.Join(out, "-")
	}
	points := make([]uint16, len(h.points))
	for i, p := range h.points {
		points[i] = uint16(p)
	}
	s := strings.Join([]string{strconv.Itoa(int(h.version)), list(sane(h.ciphers)), list(sane(h.extensions)), list(h.groups), list(points)}, ",")
	sum := md5.Sum([]byte(s))
	return hex.EncodeToString(sum[:])
}

// ja4 is the fingerprint of github.com/FoxIO-LLC/ja4 for TLS over TCP.
func (h *hello) ja4() string {
	version := h.version
	if v := sane(h.versions); len(v) > 0 {
		version = slices.Max(v)
	}
	name := map[uint16]string{0x0304: "13", 0x0303: "12", 0x0302: "11", 0x0301: "10", 0x0300: "s3"}[version]
	if name == "" {
		name = "00"
	}
	sni := "i"
	if slices.Contains(h.extensions, extServerName) {
		sni = "d"
	}
	ciphers, extensions := sane(h.ciphers), sane(h.extensions)
	first := fmt.Sprintf("t%s%s%02d%02d%s", name, sni, min(len(ciphers), 99), min(len(extensions), 99), alpnEnds(h.protocols))
	slices.Sort(ciphers)
	extensions = slices.DeleteFunc(extensions, func(e uint16) bool { return e == extServerName || e == extALPN })
	slices.Sort(extensions)
	rest := list4(extensions)
	if s := sane(h.signatures); len(s) > 0 {
		rest += "_" + list4(s)
	}
	return first + "_" + sum12(list4(ciphers)) + "_" + sum12(rest)
}

// alpnEnds are the first and the last character of the first protocol.
func alpnEnds(protocols []string) string {
	if len(protocols) == 0 {
		return "00"
	}
	p := protocols[0]
	alnum := func(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' }
	if a, z := p[0], p[len(p)-1]; alnum(a) && alnum(z) {
		return string([]byte{a, z})
	}
	h := hex.EncodeToString([]byte(p))
	return string([]byte{h[0], h[len(h)-1]})
}

func list4(in []uint16) string {
	out := make([]string, len(in))
	for i, n := range in {
		out[i] = fmt.Sprintf("%04x", n)
	}
	return strings.Join(out, ",")
}

func sum12(s string) string {
	if s == "" {
		return "000000000000"
	}
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:12]
}
