package load

import "testing"

func TestTheRefusedComeBack(t *testing.T) {
	for name, lines := range map[string]bool{"WebSocket": false, "TCP": true} {
		t.Run(name, func(t *testing.T) {
			s := talkOn(t, &talker{lines: lines}, listen(t))
			s.turns.Store(2)
			all := specs(s.addr)
			for i := range all {
				all[i].Returns, all[i].TCP = true, lines
			}
			connected, st := runFleet(t, all, short)
			if connected.Open != 4 || connected.Returned != 2 || len(connected.Refused) > 0 || st.Open != 4 || !st.Faults.None() {
				t.Errorf("got %d open, %d returned, refused %v, %+v: want 4, 2, none and no fault", connected.Open, connected.Returned, connected.Refused, st)
			}
		})
	}
}

// TestOnlyAPlausibleTimeIsKept counts everything else as refused.
func TestOnlyAPlausibleTimeIsKept(t *testing.T) {
	for name, begin := range map[string]string{
		"none":     "HTTP/1.1 503 Service Unavailable\r\n\r\n",
		"too long": "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 86400\r\n\r\n",
		"a date":   "HTTP/1.1 503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT\r\n\r\n",
		"no HTTP":  "RTSP/1.1 hello\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			s := startTalker(t)
			s.begin = begin
			all := specs(s.addr)[:1]
			all[0].Returns = true
			connected, _ := runFleet(t, all, short)
			if connected.Open != 0 || connected.Returned != 0 || len(connected.Refused) != 1 {
				t.Errorf("got %d open, %d returned, refused %v: want one reason", connected.Open, connected.Returned, connected.Refused)
			}
		})
	}
}
