package tls

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"reflect"
	"strings"
	"syscall"

	"github.com/sluice-proxy/sluice/api/trust"
)

// Numbers of BoringSSL's errors: the library, and the reason in it.
const (
	ofSSL    = 16 << 24
	ofSystem = 2 << 24
	// An alert of the peer is its number and this.
	ofAlert = 1000
)

// reason says in BoringSSL's words, as Envoy logs them, why a connection broke;
// empty where Envoy has nothing to say.
func reason(err error) string {
	var errno syscall.Errno
	var bad *trust.Error
	var head tls.RecordHeaderError
	switch {
	case errors.As(err, &bad):
		return inSSL(125, "CERTIFICATE_VERIFY_FAILED", bad.Error())
	case isMissing(err):
		return inSSL(192, "PEER_DID_NOT_RETURN_A_CERTIFICATE", "peer did not provide required client certificate")
	case errors.As(err, &errno):
		text := []byte(errno.Error()) // strerror's, but for the first letter
		text[0] -= 'a' - 'A'
		return fmt.Sprintf("TLS_error:|%d:system library:OPENSSL_internal:%s:TLS_error_end", ofSystem+int(errno), text)
	case isEOF(err):
		return ""
	case errors.As(err, &head):
		return notTLS(head.RecordHeader[:])
	}
	if alert, ok := received(err); ok {
		return inSSL(ofAlert+alert, alertName(alert))
	}
	for _, k := range known() {
		if strings.Contains(err.Error(), k.text) {
			return k.reason
		}
	}
	return inSSL(0, strings.TrimPrefix(err.Error(), "tls: "))
}

func inSSL(number int, words ...string) string {
	return fmt.Sprintf("TLS_error:|%d:SSL routines:OPENSSL_internal:%s:TLS_error_end", ofSSL+number, strings.Join(words, ":"))
}

// notTLS tells what the first bytes were instead.
func notTLS(head []byte) string {
	for _, method := range []string{"GET ", "POST", "HEAD", "PUT "} {
		if strings.HasPrefix(string(head), method) {
			return inSSL(156, "HTTP_REQUEST")
		}
	}
	if strings.HasPrefix(string(head), "CONNE") {
		return inSSL(155, "HTTPS_PROXY_REQUEST")
	}
	return inSSL(247, "WRONG_VERSION_NUMBER")
}

// known are crypto/tls's errors that have a name in BoringSSL, by part of their
// text: the library exports none of them.
func known() []struct{ text, reason string } {
	return []struct{ text, reason string }{
		{"unsupported versions", inSSL(240, "UNSUPPORTED_PROTOCOL")},
		{"protocol version not supported", inSSL(240, "UNSUPPORTED_PROTOCOL")},
		{"unsupported protocol version", inSSL(240, "UNSUPPORTED_PROTOCOL")},
		{"no cipher suite supported by both", inSSL(184, "NO_SHARED_CIPHER")},
		{"no key exchanges supported by both", inSSL(266, "NO_SHARED_GROUP")},
		{"exceeds maximum of", inSSL(150, "EXCESSIVE_MESSAGE_SIZE")},
		{"no renegotiation", inSSL(182, "NO_RENEGOTIATION")},
		{"waiting for *tls.helloRequestMsg", inSSL(182, "NO_RENEGOTIATION")},
		{"unexpected message", inSSL(223, "UNEXPECTED_MESSAGE")},
		{"unexpected handshake message", inSSL(223, "UNEXPECTED_MESSAGE")},
		{"bad record MAC", "TLS_error:|503316581:Cipher functions:OPENSSL_internal:BAD_DECRYPT|268435595:SSL routines:OPENSSL_internal:DECRYPTION_FAILED_OR_BAD_RECORD_MAC:TLS_error_end"},
	}
}

// isMissing tells of a client without the certificate that it needs.
func isMissing(err error) bool {
	return strings.Contains(err.Error(), "client didn't provide a certificate")
}

func isEOF(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

// received is the alert that the peer sent. Its type is not exported.
func received(err error) (int, bool) {
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "remote error" {
		return 0, false
	}
	v := reflect.ValueOf(op.Err)
	return int(v.Uint()), v.Kind() == reflect.Uint8
}

func alertName(alert int) string {
	switch alert {
	case 10:
		return "SSLV3_ALERT_UNEXPECTED_MESSAGE"
	case 20:
		return "SSLV3_ALERT_BAD_RECORD_MAC"
	case 22:
		return "TLSV1_ALERT_RECORD_OVERFLOW"
	case 40:
		return "SSLV3_ALERT_HANDSHAKE_FAILURE"
	case 42:
		return "SSLV3_ALERT_BAD_CERTIFICATE"
	case 43:
		return "SSLV3_ALERT_UNSUPPORTED_CERTIFICATE"
	case 44:
		return "SSLV3_ALERT_CERTIFICATE_REVOKED"
	case 45:
		return "SSLV3_ALERT_CERTIFICATE_EXPIRED"
	case 46:
		return "SSLV3_ALERT_CERTIFICATE_UNKNOWN"
	case 47:
		return "SSLV3_ALERT_ILLEGAL_PARAMETER"
	case 48:
		return "TLSV1_ALERT_UNKNOWN_CA"
	case 49:
		return "TLSV1_ALERT_ACCESS_DENIED"
	case 50:
		return "TLSV1_ALERT_DECODE_ERROR"
	case 51:
		return "TLSV1_ALERT_DECRYPT_ERROR"
	case 70:
		return "TLSV1_ALERT_PROTOCOL_VERSION"
	case 71:
		return "TLSV1_ALERT_INSUFFICIENT_SECURITY"
	case 80:
		return "TLSV1_ALERT_INTERNAL_ERROR"
	case 86:
		return "TLSV1_ALERT_INAPPROPRIATE_FALLBACK"
	case 90:
		return "TLSV1_ALERT_USER_CANCELLED"
	case 100:
		return "TLSV1_ALERT_NO_RENEGOTIATION"
	case 110:
		return "TLSV1_UNSUPPORTED_EXTENSION"
	case 112:
		return "TLSV1_UNRECOGNIZED_NAME"
	case 113:
		return "TLSV1_BAD_CERTIFICATE_STATUS_RESPONSE"
	case 114:
		return "TLSV1_BAD_CERTIFICATE_HASH_VALUE"
	case 115:
		return "TLSV1_UNKNOWN_PSK_IDENTITY"
	case 116:
		return "TLSV1_CERTIFICATE_REQUIRED"
	case 120:
		return "TLSV1_NO_APPLICATION_PROTOCOL"
	}
	return fmt.Sprintf("UNKNOWN_ALERT_%d", alert)
}
