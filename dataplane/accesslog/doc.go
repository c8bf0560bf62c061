// Package accesslog writes lines about connections to files, without ever
// making a worker wait: lines queue up to a bound, and what does not fit is
// counted and dropped. One writer serves all logs of a path.
package accesslog
