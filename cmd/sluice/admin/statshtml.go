package admin

import (
	"fmt"
	"html"

	"github.com/sluice-proxy/sluice/api/stats"
)

// writeStatsHTML is the text for a browser, which reads it again every second if
// active.
func writeStatsHTML(a *answer, all []stats.Stat, mode string, active bool) {
	text := &answer{}
	writeStatsText(text, all, mode)
	a.contentType = "text/html; charset=UTF-8"
	refresh := ""
	if active {
		refresh = "  <meta http-equiv='refresh' content='1'>\n"
	}
	fmt.Fprintf(a, "<!DOCTYPE html>\n<html lang='en'>\n<head>\n  <title>Sluice Admin</title>\n%s</head>\n<body>\n<pre>\n%s</pre>\n</body>\n</html>\n", refresh, html.EscapeString(text.String()))
}
