package engine_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"floodgate/engine"
)

func TestNamesAgreeWithAMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var names engine.Names
	numbers := make(map[string]uint32)
	for range 40_000 {
		name := make([]byte, rng.IntN(12))
		for i := range name {
			name[i] = byte(rng.IntN(3))
		}
		want, known := numbers[string(name)]
		if got := names.Find(name); known && got != want || !known && got != engine.NoName {
			t.Fatalf("%q: found as %d, want %d (known: %v)", name, got, want, known)
		}
		if !known {
			want = uint32(len(numbers))
			numbers[string(name)] = want
		}
		if got := names.Add(name); got != want {
			t.Fatalf("%q: added as %d, want %d", name, got, want)
		}
		if got := names.Get(want); !bytes.Equal(got, name) {
			t.Fatalf("number %d is %q, want %q", want, got, name)
		}
	}
	if names.Len() != len(numbers) {
		t.Fatalf("%d names, want %d", names.Len(), len(numbers))
	}
}

// Two buyers whose hashes are equal stay two buyers.
func TestNamesWhoseHashesCollideStayApart(t *testing.T) {
	for _, row := range []struct {
		name string
		hash func(i int) uint64
	}{
		{"all 64 bits", func(int) uint64 { return 0x1234_5678_9abc_def0 }},
		{"zero", func(int) uint64 { return 0 }},
		{"all ones", func(int) uint64 { return ^uint64(0) }},
		{"upper half", func(i int) uint64 { return 7<<32 | uint64(i) }},
		{"lower half", func(i int) uint64 { return uint64(i)<<32 | 7 }},
		{"two neighbouring slots", func(i int) uint64 { return uint64(i%2) << 32 }},
	} {
		t.Run(row.name, func(t *testing.T) {
			var names engine.Names
			const n = 2000
			for i := range n {
				name := fmt.Appendf(nil, "buyer-%d", i)
				if got := names.FindHashed(row.hash(i), name); got != engine.NoName {
					t.Fatalf("%s is there already, as %d", name, got)
				}
				if got := names.AddHashed(row.hash(i), name); got != uint32(i) {
					t.Fatalf("%s: added as %d, want %d", name, got, i)
				}
			}
			for i := range n {
				name := fmt.Appendf(nil, "buyer-%d", i)
				if got := names.FindHashed(row.hash(i), name); got != uint32(i) {
					t.Fatalf("%s: found as %d, want %d", name, got, i)
				}
			}
		})
	}
}

func TestNamesSurviveTheSplit(t *testing.T) {
	var names engine.Names
	const n = engine.NamesSplit + 5_000
	name := func(i int) []byte { return fmt.Appendf(nil, "buyer-%d", i) }
	for i := range n {
		if got := names.Add(name(i)); got != uint32(i) {
			t.Fatalf("%s: added as %d, want %d", name(i), got, i)
		}
		if i < engine.NamesSplit-2 || i > engine.NamesSplit+2 {
			continue
		}
		for _, j := range []int{0, i / 2, i - 1, i} { // around the split itself
			if got := names.Find(name(j)); got != uint32(j) {
				t.Fatalf("after %d names, %s: found as %d", i+1, name(j), got)
			}
		}
	}
	for i := range n {
		if got := names.Find(name(i)); got != uint32(i) {
			t.Fatalf("%s: found as %d, want %d", name(i), got, i)
		}
		if got := names.Add(name(i)); got != uint32(i) {
			t.Fatalf("%s: added again, as %d", name(i), got)
		}
	}
	if got := names.Find(name(n)); got != engine.NoName {
		t.Errorf("a name never added was found as %d", got)
	}
	if names.Len() != n {
		t.Errorf("%d names, want %d", names.Len(), n)
	}
}

func TestNamesOfAnyLength(t *testing.T) {
	var names engine.Names
	var all [][]byte
	for range 3 { // enough to cross a chunk of the arena at every offset
		for n := range 256 {
			all = append(all, bytes.Repeat([]byte{byte(len(all))}, n))
		}
	}
	for _, name := range all {
		names.Add(name)
	}
	kept := names.Get(names.Find(all[5]))
	for i := range 5000 {
		names.Add(fmt.Appendf(nil, "%s%d", strings.Repeat("x", 100), i))
	}
	for _, name := range all {
		if got := names.Get(names.Find(name)); !bytes.Equal(got, name) {
			t.Fatalf("%d bytes of %q came back as %q", len(name), name[:1], got)
		}
	}
	if !bytes.Equal(kept, all[5]) {
		t.Error("a name moved while another was added: what get returned has to stay valid")
	}
	if !panics(func() { names.Add(make([]byte, 256)) }) {
		t.Error("a name of 256 bytes was taken: its length does not fit")
	}
}

func TestAColumnKeepsWhatItWasGiven(t *testing.T) {
	var c engine.Column
	const n = 3*(1<<13) + 1
	for i := range n {
		c.Push(i)
		*c.At(i / 2) += 0
	}
	*c.At(8191), *c.At(8192) = -1, -2
	for i := range n {
		want := map[int]int{8191: -1, 8192: -2}[i]
		if want == 0 {
			want = i
		}
		if got := *c.At(i); got != want {
			t.Fatalf("at %d: %d, want %d", i, got, want)
		}
	}
	if c.Len() != n {
		t.Errorf("length %d, want %d", c.Len(), n)
	}
}

func TestTheHeapGivesTheEarliestFirst(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for n := range 60 {
		var h engine.Heap
		var want []int64
		for range n {
			v := rng.Int64N(20)
			h.Push(v)
			want = append(want, v)
		}
		slices.Sort(want)
		for i, w := range want {
			if got := h.Pop(); got != w {
				t.Fatalf("element %d of %d: %d, want %d", i, n, got, w)
			}
		}
		if h.Len() != 0 {
			t.Fatalf("%d elements are left", h.Len())
		}
	}
}
