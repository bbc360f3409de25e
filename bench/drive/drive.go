// Package drive runs a function from many goroutines at once and tells what that
// cost. Its load is a closed loop: each producer waits for its answer before it
// asks again, so a stall slows the load down instead of queueing it up. That is
// right for comparing what an answer costs and wrong for promising a latency.
package drive

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Result is what a run cost.
type Result struct {
	Elapsed  time.Duration
	CPU      time.Duration // user and system time of this process, producers included; 0 where unknown
	P50, P99 time.Duration // of the sampled calls
}

// samplesWanted bounds the calls that are timed: two looks at the clock are as
// long as one decision.
const samplesWanted = 100_000

// Run calls do for each i below n, spread over the producers, which start
// together. A producer that meets an error stops; Run returns all errors.
func Run(producers, n int, do func(producer, i int) error) (Result, error) {
	every := max(1, n/samplesWanted)
	samples := make([][]time.Duration, producers)
	errs := make([]error, producers)
	start := make(chan struct{})
	var ready, done sync.WaitGroup
	for p := range producers {
		from, to := n*p/producers, n*(p+1)/producers
		samples[p] = make([]time.Duration, 0, (to-from)/every+1)
		ready.Add(1)
		done.Go(func() {
			ready.Done()
			<-start
			for i := from; i < to && errs[p] == nil; i++ {
				if (i-from)%every != 0 {
					errs[p] = do(p, i)
					continue
				}
				began := time.Now()
				errs[p] = do(p, i)
				samples[p] = append(samples[p], time.Since(began))
			}
		})
	}
	ready.Wait()
	cpu, began := processCPU(), time.Now()
	close(start)
	done.Wait()
	r := Result{Elapsed: time.Since(began), CPU: processCPU() - cpu}
	all := slices.Concat(samples...)
	slices.Sort(all)
	r.P50, r.P99 = quantile(all, 0.50), quantile(all, 0.99)
	return r, errors.Join(errs...)
}

// quantile returns the q-quantile of sorted values, 0 where there are none.
func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
