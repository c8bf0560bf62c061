package dataplane

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/sluice-proxy/sluice/api/stats"
)

func TestGraftModeIsChecked(t *testing.T) {
	_, err := New(Options{Graft: "always", Splice: "off", Stats: stats.New(), Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), `"always" is none of auto, off`) {
		t.Errorf("New: %v", err)
	}
}
