package tunnel

import (
	"bufio"
	"bytes"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// headSize is the length of the head that b begins with, 0 if b does not hold all
// of it.
func headSize(b []byte) int {
	crlf, lf := bytes.Index(b, []byte("\r\n\r\n")), bytes.Index(b, []byte("\n\n"))
	switch {
	case crlf >= 0 && (lf < 0 || crlf < lf):
		return crlf + 4
	case lf >= 0:
		return lf + 2
	}
	return 0
}

// answer is a response's head.
type answer struct {
	status  int
	chunked bool
	length  int64 // of the body, -1: to the end of the connection
}

// interim says that another head follows (1xx).
func (a answer) interim() bool { return a.status/100 == 1 && a.status != http.StatusSwitchingProtocols }

// body is how the response of a POST ends.
func (a answer) body() body {
	switch {
	case a.chunked:
		return body{state: size}
	case a.length >= 0:
		return body{state: counted, left: a.length}
	}
	return body{state: open}
}

func readHead(b []byte) (answer, error) {
	// The method decides what a body is: that of a POST has one.
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b)), &http.Request{Method: http.MethodPost})
	if err != nil {
		line, _, _ := strings.Cut(string(b), "\r\n")
		return answer{}, fmt.Errorf("%w: %.60q", ErrAnswer, line)
	}
	return answer{status: r.StatusCode, chunked: slices.Contains(r.TransferEncoding, "chunked"), length: r.ContentLength}, nil
}
