package moderation

import "parley/sdk/abi"

// MaskSpans returns text as people would see it after a Redact verdict with
// those spans, as Stage.Judge does. It is for replays: what a span says that
// lies outside its text, because that was normalised otherwise at the time, is
// left out.
func MaskSpans(text string, spans []abi.Span) string {
	form, err := Normalize(text, 0)
	if err != nil {
		return text
	}
	var marks []interval
	for _, sp := range spans {
		start, end := int(sp.Start), int(sp.Start)+int(sp.Length)
		size := len(text)
		if sp.Field == abi.FieldNormalized {
			size = len(form.Bytes())
		}
		if end = min(end, size); start >= end {
			continue
		}
		if sp.Field == abi.FieldNormalized {
			start, end = form.Original(start, end)
		} else {
			start, end = form.Expand(start, end)
		}
		marks = append(marks, interval{start, end})
	}
	return mask(text, unite(marks))
}
