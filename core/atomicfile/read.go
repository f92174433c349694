package atomicfile

import (
	"fmt"
	"io"
	"os"
)

// Read returns a file of at most so many bytes whole; a longer one is an error
// that names it and the bound, and no more of it than that is read. Errors of
// the system are as os.Open and Read give them, and name the file.
func Read(path string, most int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		return nil, err
	}
	if len(b) > most {
		return nil, fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return b, nil
}
