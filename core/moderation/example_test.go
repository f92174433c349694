package moderation_test

import (
	"fmt"

	"parley/core/moderation"
)

func ExampleNormalize() {
	text := "what the hе\u200bck" // Cyrillic ie, zero-width space
	f, _ := moderation.Normalize(text, 0)
	fmt.Println(string(f.Bytes()))
	from, to := f.Original(9, 13) // "heck"
	fmt.Printf("%+q\n", text[from:to])
	// Output:
	// what the heck
	// "h\u0435\u200bck"
}
