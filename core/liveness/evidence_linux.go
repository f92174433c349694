package liveness

import (
	"fmt"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Look asks the kernel about a TCP connection: TCP_INFO, SIOCINQ and SIOCOUTQ
// (tcp(7)). It waits for nothing. Fields that the running kernel does not
// know yet stay 0; 4.6 and later know all that verdicts rest on.
func Look(rc syscall.RawConn) (Evidence, error) {
	var e Evidence
	var asked error
	err := rc.Control(func(fd uintptr) { asked = e.read(int(fd)) })
	if err == nil {
		err = asked
	}
	if err != nil {
		return Evidence{}, fmt.Errorf("read TCP_INFO: %w", err)
	}
	return e, nil
}

func (e *Evidence) read(fd int) error {
	i, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return err
	}
	unread, err := unix.IoctlGetInt(fd, unix.SIOCINQ)
	if err != nil {
		return err
	}
	queued, err := unix.IoctlGetInt(fd, unix.SIOCOUTQ)
	if err != nil {
		return err
	}
	*e = Evidence{
		Known:  true,
		Unread: unread, Queued: queued, NotSent: int(i.Notsent_bytes), Acked: i.Bytes_acked,
		Unacked: int(i.Unacked), Timeouts: int(i.Retransmits), Backoff: int(i.Backoff), Probes: int(i.Probes),
		Retransmits: i.Total_retrans, SegmentsOut: i.Segs_out, DataIn: i.Data_segs_in,
		RTT: micros(i.Rtt), RTTVar: micros(i.Rttvar), RTO: micros(i.Rto),
		LastAck: time.Duration(i.Last_ack_recv) * time.Millisecond,
	}
	return nil
}

func micros(n uint32) time.Duration { return time.Duration(n) * time.Microsecond }
