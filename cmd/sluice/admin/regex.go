package admin

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// re2Text gives RE2's words where Go's port of it uses others.
var re2Text = map[syntax.ErrorCode]string{
	syntax.ErrMissingParen:          "missing )",
	syntax.ErrMissingBracket:        "missing ]",
	syntax.ErrMissingRepeatArgument: "no argument for repetition operator",
	syntax.ErrInvalidRepeatSize:     "invalid repetition size",
	syntax.ErrInvalidRepeatOp:       "bad repetition operator",
	syntax.ErrTrailingBackslash:     "trailing \\",
}

// compile compiles an expression; the error reads as RE2's does.
func compile(expr string) (*regexp.Regexp, error) {
	re, err := regexp.Compile(expr)
	if se := (*syntax.Error)(nil); errors.As(err, &se) {
		text := re2Text[se.Code]
		if text == "" {
			text = se.Code.String()
		}
		return nil, fmt.Errorf("%s: %s", text, se.Expr)
	}
	return re, err
}

// fullMatch compiles an expression that has to match the whole text.
func fullMatch(expr string) (*regexp.Regexp, error) {
	if _, err := compile(expr); err != nil {
		return nil, err
	}
	return compile(`\A(?:` + expr + `)\z`)
}
