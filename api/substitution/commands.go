package substitution

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// syntax says what may follow a command's name.
type syntax struct {
	required, optional bool // the argument
	length             bool
	arg                func(name, arg string) error
}

// lookup finds a command that Envoy 1.40 knows on a TCP connection.
func lookup(name string) (syntax, bool) {
	switch name {
	case "REQ", "RESP", "TRAILER":
		return syntax{required: true, length: true, arg: header}, true
	case "DYNAMIC_METADATA", "ENVIRONMENT", "QUERY_PARAM":
		return syntax{required: true, length: true}, true
	case "CEL", "TYPED_CEL":
		return syntax{optional: true, length: true}, true
	case "COALESCE":
		return syntax{required: true, length: true, arg: coalesce}, true
	case "CLUSTER_METADATA", "UPSTREAM_METADATA":
		return syntax{required: true}, true
	case "COMMON_DURATION":
		return syntax{required: true, arg: duration}, true
	case "GRPC_STATUS":
		return syntax{optional: true, arg: grpcStatus}, true
	case "QUERY_PARAMS":
		return syntax{optional: true, length: true, arg: queryParams}, true
	case "PATH":
		return syntax{optional: true, length: true, arg: path}, true
	case "REQUESTED_SERVER_NAME":
		return syntax{optional: true, arg: serverName}, true
	case "FILTER_STATE", "UPSTREAM_FILTER_STATE":
		return syntax{optional: true, length: true, arg: filterState}, true
	case "METADATA":
		return syntax{optional: true, length: true, arg: metadata}, true
	case "START_TIME", "START_TIME_LOCAL", "EMIT_TIME", "EMIT_TIME_LOCAL", "DOWNSTREAM_PEER_CERT_V_START", "DOWNSTREAM_PEER_CERT_V_END",
		"UPSTREAM_PEER_CERT_V_START", "UPSTREAM_PEER_CERT_V_END":
		return syntax{optional: true, arg: clock}, true
	case "RESPONSE_CODE_DETAILS",
		"DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_DIRECT_LOCAL_ADDRESS_WITHOUT_PORT", "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
		"DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT", "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT":
		return syntax{optional: true}, true
	case "ACCESS_LOG_TYPE", "BYTES_RECEIVED", "BYTES_RETRANSMITTED", "BYTES_SENT", "CONNECTION_ID", "CONNECTION_TERMINATION_DETAILS", "CUSTOM_FLAGS",
		"DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", "DOWNSTREAM_DECOMPRESSED_HEADER_BYTES_SENT", "DOWNSTREAM_DETECTED_CLOSE_TYPE",
		"DOWNSTREAM_DIRECT_LOCAL_ADDRESS", "DOWNSTREAM_DIRECT_LOCAL_PORT", "DOWNSTREAM_DIRECT_REMOTE_ADDRESS", "DOWNSTREAM_DIRECT_REMOTE_PORT",
		"DOWNSTREAM_HANDSHAKE_DURATION", "DOWNSTREAM_HEADER_BYTES_RECEIVED", "DOWNSTREAM_HEADER_BYTES_SENT", "DOWNSTREAM_LOCAL_ADDRESS",
		"DOWNSTREAM_LOCAL_ADDRESS_ENDPOINT_ID", "DOWNSTREAM_LOCAL_CLOSE_REASON", "DOWNSTREAM_LOCAL_DNS_SAN", "DOWNSTREAM_LOCAL_EMAIL_SAN",
		"DOWNSTREAM_LOCAL_IP_SAN", "DOWNSTREAM_LOCAL_PORT", "DOWNSTREAM_LOCAL_SUBJECT", "DOWNSTREAM_LOCAL_URI_SAN", "DOWNSTREAM_PEER_CERT",
		"DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_1", "DOWNSTREAM_PEER_CHAIN_FINGERPRINTS_256", "DOWNSTREAM_PEER_CHAIN_SERIALS", "DOWNSTREAM_PEER_DNS_SAN",
		"DOWNSTREAM_PEER_EMAIL_SAN", "DOWNSTREAM_PEER_FINGERPRINT_1", "DOWNSTREAM_PEER_FINGERPRINT_256", "DOWNSTREAM_PEER_IP_SAN",
		"DOWNSTREAM_PEER_OTHERNAME_SAN", "DOWNSTREAM_LOCAL_OTHERNAME_SAN", "DOWNSTREAM_PEER_ISSUER", "DOWNSTREAM_PEER_SERIAL", "DOWNSTREAM_PEER_SUBJECT", "DOWNSTREAM_PEER_URI_SAN", "DOWNSTREAM_REMOTE_ADDRESS",
		"DOWNSTREAM_REMOTE_PORT", "DOWNSTREAM_TLS_CIPHER", "DOWNSTREAM_TLS_GROUP", "DOWNSTREAM_TLS_SESSION_ID", "DOWNSTREAM_TLS_VERSION", "DOWNSTREAM_TRANSPORT_FAILURE_REASON",
		"DOWNSTREAM_WIRE_BYTES_RECEIVED", "DOWNSTREAM_WIRE_BYTES_SENT", "DURATION", "FILTER_CHAIN_NAME", "GRPC_STATUS_NUMBER", "HOSTNAME", "LISTENER_NAME",
		"LOCAL_REPLY_BODY", "PACKETS_RETRANSMITTED", "PROTOCOL", "REQUEST_DURATION", "REQUEST_HEADERS_BYTES", "REQUEST_TX_DURATION", "RESPONSE_CODE",
		"RESPONSE_DURATION", "RESPONSE_FLAGS", "RESPONSE_FLAGS_LONG", "RESPONSE_HEADERS_BYTES", "RESPONSE_TRAILERS_BYTES", "RESPONSE_TX_DURATION",
		"ROUNDTRIP_DURATION", "ROUTE_NAME", "SPAN_ID", "STREAM_ID", "TLS_JA3_FINGERPRINT", "TLS_JA4_FINGERPRINT", "TRACE_ID", "UNIQUE_ID",
		"UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW", "UPSTREAM_CONNECTION_ID", "UPSTREAM_CONNECTION_IDS_ATTEMPTED",
		"UPSTREAM_CONNECTION_POOL_READY_DURATION", "UPSTREAM_DECOMPRESSED_HEADER_BYTES_RECEIVED", "UPSTREAM_DECOMPRESSED_HEADER_BYTES_SENT",
		"UPSTREAM_DETECTED_CLOSE_TYPE", "UPSTREAM_HEADER_BYTES_RECEIVED", "UPSTREAM_HEADER_BYTES_SENT", "UPSTREAM_HOST", "UPSTREAM_HOSTS_ATTEMPTED",
		"UPSTREAM_HOSTS_ATTEMPTED_WITHOUT_PORT", "UPSTREAM_HOST_NAME", "UPSTREAM_HOST_NAMES_ATTEMPTED", "UPSTREAM_HOST_NAMES_ATTEMPTED_WITHOUT_PORT",
		"UPSTREAM_HOST_NAME_WITHOUT_PORT", "UPSTREAM_LOCAL_ADDRESS", "UPSTREAM_LOCAL_CLOSE_REASON", "UPSTREAM_LOCAL_PORT", "UPSTREAM_PEER_CERT",
		"UPSTREAM_PEER_ISSUER", "UPSTREAM_PEER_SUBJECT", "UPSTREAM_PEER_URI_SAN", "UPSTREAM_PEER_DNS_SAN", "UPSTREAM_PEER_IP_SAN", "UPSTREAM_LOCAL_URI_SAN", "UPSTREAM_LOCAL_IP_SAN",
		"UPSTREAM_LOCAL_DNS_SAN", "UPSTREAM_PROTOCOL", "UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_REMOTE_ADDRESS", "UPSTREAM_REMOTE_ADDRESS_ENDPOINT_ID", "UPSTREAM_REMOTE_PORT",
		"UPSTREAM_SERVER_NAME", "UPSTREAM_TLS_CIPHER", "UPSTREAM_TLS_GROUP", "UPSTREAM_TLS_SESSION_ID", "UPSTREAM_TLS_VERSION", "UPSTREAM_TRANSPORT_FAILURE_REASON", "UPSTREAM_WIRE_BYTES_RECEIVED",
		"UPSTREAM_WIRE_BYTES_SENT", "VIRTUAL_CLUSTER_NAME":
		return syntax{}, true
	}
	return syntax{}, false
}

func check(p Piece) error {
	s, ok := lookup(p.Command)
	switch {
	case !ok:
		return fmt.Errorf("Not supported field in StreamInfo: %s", p.Command)
	case s.required && p.Arg == "":
		return fmt.Errorf("%s requires parameters", p.Command)
	case !s.required && !s.optional && (p.Arg != "" || p.Max >= 0):
		return fmt.Errorf("%s does not take any parameters or length", p.Command)
	case s.arg != nil:
		if err := s.arg(p.Command, p.Arg); err != nil {
			return err
		}
	}
	if !s.length && p.Max >= 0 {
		return fmt.Errorf("%s does not allow length to be specified.", p.Command)
	}
	return nil
}

func header(_, a string) error {
	if strings.Count(a, "?") > 1 {
		return fmt.Errorf("More than 1 alternative header specified in token: %s", a)
	}
	if strings.ContainsFunc(a, func(r rune) bool { return !strings.ContainsRune(nameRunes, r) }) {
		return errors.New("Invalid header configuration. Format string contains invalid characters.")
	}
	return nil
}

// nameRunes are those of names of headers, of which one may be the other's
// alternative.
const nameRunes = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-.^_`|~:?"

func duration(_, a string) error {
	parts := strings.Split(a, ":")
	switch len(parts) {
	case 2:
		return nil // in milliseconds
	case 3:
	default:
		return fmt.Errorf("Invalid common duration configuration: %s.", a)
	}
	if !slices.Contains([]string{"ms", "us", "ns"}, parts[2]) {
		return fmt.Errorf("Invalid common duration precision: %s.", parts[2])
	}
	return nil
}

func grpcStatus(_, a string) error {
	if !slices.Contains([]string{"", "CAMEL_STRING", "SNAKE_STRING", "NUMBER"}, a) {
		return errors.New("GrpcStatusFormatter only supports CAMEL_STRING, SNAKE_STRING or NUMBER.")
	}
	return nil
}

func path(name, a string) error {
	with, of, _ := strings.Cut(a, ":")
	if !slices.Contains([]string{"", "WQ", "NQ"}, with) {
		return fmt.Errorf("Invalid %s option: '%s', only 'WQ'/'NQ' are allowed", name, with)
	}
	if !slices.Contains([]string{"", "ORIG", "PATH", "ORIG_OR_PATH"}, of) {
		return fmt.Errorf("Invalid %s option: '%s', only 'ORIG'/'PATH'/'ORIG_OR_PATH' are allowed", name, of)
	}
	return nil
}

func queryParams(name, a string) error {
	if !slices.Contains([]string{"", "ORIG", "DECODED"}, a) {
		return fmt.Errorf("Invalid %s option: '%s', only 'ORIG'/'DECODED' are allowed", name, a)
	}
	return nil
}

// clock is a format of times; a line feed in it could split a log's line.
func clock(_, a string) error {
	if strings.Contains(strings.ReplaceAll(a, "%%", ""), "%n") {
		return errors.New("Invalid header configuration. Format string contains newline.")
	}
	return nil
}

func serverName(name, a string) error {
	first, of, _ := strings.Cut(a, ":")
	if !slices.Contains([]string{"", "SNI_ONLY", "SNI_FIRST", "HOST_FIRST"}, first) {
		return fmt.Errorf("Invalid %s option: '%s', only 'SNI_ONLY'/'SNI_FIRST'/'HOST_FIRST' are allowed", name, first)
	}
	if !slices.Contains([]string{"", "ORIG_OR_HOST", "HOST", "ORIG"}, of) {
		return fmt.Errorf("Invalid %s option: '%s', only 'ORIG_OR_HOST'/'HOST'/'ORIG' are allowed", name, of)
	}
	return nil
}

func filterState(_, a string) error {
	key, how, given := strings.Cut(a, ":")
	if key == "" {
		return errors.New("Invalid filter state configuration, key cannot be empty.")
	}
	kind, field, _ := strings.Cut(how, ":")
	if given && !slices.Contains([]string{"PLAIN", "TYPED", "FIELD"}, kind) {
		return errors.New("Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.")
	}
	if (kind == "FIELD") != (field != "") {
		return errors.New("Invalid filter state serialize type, FIELD should be used with the field name.")
	}
	return nil
}

func metadata(_, a string) error {
	kind, _, _ := strings.Cut(a, ":")
	if !slices.Contains([]string{"DYNAMIC", "CLUSTER", "ROUTE", "UPSTREAM_HOST", "LISTENER", "VIRTUAL_HOST", "LISTENER_FILTER_CHAIN"}, kind) {
		return fmt.Errorf("%s is not supported type of metadata", kind)
	}
	return nil
}
