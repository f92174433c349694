package ws

import (
	"net/http"
	"strings"

	"github.com/gorilla/websocket"
)

// deflateName is the extension (RFC 7692 §7), in requests and in answers.
const deflateName = "permessage-deflate"

// upgraderOf returns the upgrader for a request: one that agrees to
// permessage-deflate where the handler does, but not where an offer asks for a
// window smaller than ours, which frames that are compressed once for
// everybody cannot keep to.
func (h *Handler) upgraderOf(r *http.Request) *websocket.Upgrader {
	if !h.compress || strings.Contains(strings.Join(r.Header["Sec-Websocket-Extensions"], ","), "server_max_window_bits") {
		return &h.upgrader
	}
	u := h.upgrader
	u.EnableCompression = true
	return &u
}
