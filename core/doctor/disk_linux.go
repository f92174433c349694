package doctor

import (
	"os"
	"syscall"
)

// dataSync makes a file's data durable (fdatasync(2)), as bbolt does.
func dataSync(f *os.File) error { return syscall.Fdatasync(int(f.Fd())) }

// From <linux/magic.h>.
const (
	tmpfsMagic = 0x01021994
	ramfsMagic = 0x858458f6
)

func statVolume(dir string) (volume, error) {
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		return volume{}, err
	}
	size := uint64(s.Bsize)
	return volume{
		free: s.Bavail * size, size: s.Blocks * size, inodes: s.Ffree, countsNodes: s.Files > 0,
		volatile: uint32(s.Type) == tmpfsMagic || uint32(s.Type) == ramfsMagic,
	}, nil
}
