package tls

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"strings"
	"testing"
)

// keys seal records of TLS 1.3 by TLS_AES_128_GCM_SHA256 (RFC 8446, 5.2 and 7.3), for the
// library sends none but those of its own choice.
type keys struct {
	t        *testing.T
	secret   []byte
	aead     cipher.AEAD
	iv       []byte
	sequence uint64
}

// newKeys finds the secret in a key log.
func newKeys(t *testing.T, log, label string) *keys {
	t.Helper()
	_, line, ok := strings.Cut(log, label+" ")
	if !ok {
		t.Fatalf("no %s in the log %q", label, log)
	}
	line, _, _ = strings.Cut(line, "\n")
	secret, err := hex.DecodeString(strings.Fields(line)[1])
	if err != nil {
		t.Fatal(err)
	}
	return keysOf(t, secret)
}

func keysOf(t *testing.T, secret []byte) *keys {
	block, err := aes.NewCipher(expand(t, secret, "key", 16))
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	return &keys{t: t, secret: secret, aead: aead, iv: expand(t, secret, "iv", 12)}
}

func expand(t *testing.T, secret []byte, label string, size int) []byte {
	label = "tls13 " + label
	info := binary.BigEndian.AppendUint16(nil, uint16(size))
	info = append(append(info, byte(len(label))), label...)
	out, err := hkdf.Expand(sha256.New, secret, string(append(info, 0)), size)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// next are the keys after an update.
func (k *keys) next() *keys { return keysOf(k.t, expand(k.t, k.secret, "traffic upd", sha256.Size)) }

// seal makes one record.
func (k *keys) seal(kind byte, content []byte) []byte {
	nonce := append([]byte(nil), k.iv...)
	for i, b := range binary.BigEndian.AppendUint64(nil, k.sequence) {
		nonce[4+i] ^= b
	}
	k.sequence++
	head := []byte{dataRecord, 3, 3}
	head = binary.BigEndian.AppendUint16(head, uint16(len(content)+1+k.aead.Overhead()))
	return k.aead.Seal(head, nonce, append(append([]byte(nil), content...), kind), head)
}
