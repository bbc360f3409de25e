package engine

import "hash/maphash"

// names gives each distinct byte string a number, from 0 in the order they were
// added. It compares the strings themselves, so two buyers whose hashes are
// equal stay two buyers. It holds no pointer per name, so ten million buyers
// cost the garbage collector nothing, and about 36 bytes each beside their own
// letters. The hash is seeded per process: nobody can choose colliding ids.
//
// The table is cut into parts once it is large, so that growing it never stops
// its shard for longer than one part takes to rehash.
type names struct {
	parts  []part
	starts column[uint64] // by number: where in the arena
	arena  [][]byte       // one byte of length, then the name; no name crosses a chunk
}

// part is one open-addressing table. A slot is 0, or the upper half of the hash
// and the name's number plus one. The upper half also says where a slot belongs,
// so that a table grows without looking at the names; the lower half chose the
// part.
type part struct {
	slots []uint64
	used  int
}

const (
	namesSplit = 1 << 16 // names in the first part when it is cut
	namesParts = 1 << 8
	arenaChunk = 1 << 16
	noName     = ^uint32(0)
)

var namesSeed = maphash.MakeSeed()

func nameHash(name []byte) uint64 { return maphash.Bytes(namesSeed, name) }

func (n *names) len() int { return n.starts.len() }

// get returns the name with that number. The slice is read-only and stays valid.
func (n *names) get(number uint32) []byte {
	start := *n.starts.at(int(number))
	chunk := n.arena[start/arenaChunk]
	at := start % arenaChunk
	size := uint64(chunk[at])
	return chunk[at+1 : at+1+size : at+1+size]
}

// find returns the number of the name with that hash, or noName.
func (n *names) find(hash uint64, name []byte) uint32 {
	if len(n.parts) == 0 {
		return noName
	}
	p := &n.parts[hash%uint64(len(n.parts))]
	mask := uint64(len(p.slots) - 1)
	for i := hash >> 32 & mask; ; i = (i + 1) & mask {
		slot := p.slots[i]
		if slot == 0 {
			return noName
		}
		if slot>>32 == hash>>32 {
			if number := uint32(slot) - 1; string(n.get(number)) == string(name) {
				return number
			}
		}
	}
}

// insert adds a name that find did not find, and returns its number.
func (n *names) insert(hash uint64, name []byte) uint32 {
	number := uint32(n.starts.len())
	if number == noName-1 || len(name) > 255 {
		panic("engine: a run with more than 2^32-2 names, or a name longer than 255 bytes")
	}
	n.starts.push(n.store(name))
	switch {
	case len(n.parts) == 0:
		n.parts = []part{{slots: make([]uint64, 8)}}
	case len(n.parts) == 1 && number == namesSplit:
		n.split()
	}
	n.parts[hash%uint64(len(n.parts))].insert(hash, number)
	return number
}

// touch looks at where the name with that hash belongs and does nothing with it.
// Such looks do not wait for each other, so a batch's worth of them costs little
// more than one, and finds and inserts after them do not wait for memory.
func (n *names) touch(hash uint64) uint64 {
	if len(n.parts) == 0 {
		return 0
	}
	p := &n.parts[hash%uint64(len(n.parts))]
	return p.slots[hash>>32&uint64(len(p.slots)-1)]
}

// add returns the name's number, adding the name where it is new.
func (n *names) add(hash uint64, name []byte) uint32 {
	if number := n.find(hash, name); number != noName {
		return number
	}
	return n.insert(hash, name)
}

func (n *names) store(name []byte) uint64 {
	last := len(n.arena) - 1
	if last < 0 || len(n.arena[last])+1+len(name) > arenaChunk {
		var chunk []byte
		if last >= 0 { // the first chunk starts small, for the many small products
			chunk = make([]byte, 0, arenaChunk)
		}
		n.arena = append(n.arena, chunk)
		last++
	}
	start := uint64(last)*arenaChunk + uint64(len(n.arena[last]))
	n.arena[last] = append(append(n.arena[last], byte(len(name))), name...)
	return start
}

func (n *names) split() {
	n.parts = make([]part, namesParts)
	for i := range n.parts {
		n.parts[i].slots = make([]uint64, 2*namesSplit/namesParts)
	}
	for number := range uint32(namesSplit) {
		hash := nameHash(n.get(number))
		n.parts[hash%namesParts].insert(hash, number)
	}
}

func (p *part) insert(hash uint64, number uint32) {
	if p.used*5 >= len(p.slots)*4 {
		old := p.slots
		p.slots = make([]uint64, 2*len(old))
		for _, slot := range old {
			if slot != 0 {
				p.place(slot)
			}
		}
	}
	p.used++
	p.place(hash>>32<<32 | uint64(number+1))
}

func (p *part) place(slot uint64) {
	mask := uint64(len(p.slots) - 1)
	i := slot >> 32 & mask
	for p.slots[i] != 0 {
		i = (i + 1) & mask
	}
	p.slots[i] = slot
}
