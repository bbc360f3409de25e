package engine

// column is an array that grows by chunks, so that growing never copies what is
// already there.
type column[T any] struct {
	chunks [][]T
	length int
}

const columnChunk = 1 << 13

func (c *column[T]) len() int { return c.length }

func (c *column[T]) at(i int) *T { return &c.chunks[i/columnChunk][i%columnChunk] }

func (c *column[T]) push(v T) {
	last := c.length / columnChunk
	if last == len(c.chunks) {
		var chunk []T
		if last > 0 { // the first chunk starts small, for the many small products
			chunk = make([]T, 0, columnChunk)
		}
		c.chunks = append(c.chunks, chunk)
	}
	c.chunks[last] = append(c.chunks[last], v)
	c.length++
}
