package engine

// View is a product's settings and counters as of its last durable event. A
// *View is immutable.
type View struct {
	Settings  *Settings
	Run       uint32
	Stock     int64 // Remaining + Held + Sold
	Remaining int64
	Held      int64
	Sold      int64
	Paused    bool
	Opened    bool   // the start of the window was seen
	Closed    bool   // the end of the window was seen
	Version   uint64 // counts the product's changes within this process, never decreases
}

// State is what a product's sale is doing.
type State uint8

const (
	Open State = iota
	Scheduled
	OnPause
	Exhausted
	Over
)

var stateNames = [...]string{Open: "open", Scheduled: "scheduled", OnPause: "paused", Exhausted: "sold-out", Over: "ended"}

// String returns the state as the HTTP interface spells it.
func (s State) String() string { return stateNames[s] }

// State returns the sale's state at the given time in Unix milliseconds. The
// precedence is that of the refusals: scheduled, ended, paused, sold out.
func (v *View) State(now int64) State {
	switch {
	case !v.Opened && now < v.Settings.StartsAt:
		return Scheduled
	case v.Closed || v.Settings.EndsAt != 0 && now >= v.Settings.EndsAt:
		return Over
	case v.Paused:
		return OnPause
	case v.Remaining == 0:
		return Exhausted
	}
	return Open
}

// Windowed reports whether State depends on the time at all.
func (v *View) Windowed() bool { return v.Settings.StartsAt|v.Settings.EndsAt != 0 }
