package engine_test

import (
	"testing"

	"floodgate/engine"
)

// Promise 1, at the edges where it could break.
func TestTheLastUnitsOfAProduct(t *testing.T) {
	table(t, `
		// before                 | command    | outcome                  | remaining held sold
		create 1                  | place a 1  | accepted #0 confirmed    | 0 0 1   // the last unit
		create 1; place a 1       | place b 1  | sold-out remaining=0     | 0 0 1   // one past it
		create 3                  | place a 3  | accepted #0              | 0 0 3   // quantity = remaining
		create 3                  | place a 4  | sold-out remaining=3     | 3 0 0   // all or nothing
		create 3; place a 1       | place b 3  | sold-out remaining=2     | 2 0 1
		create 3; place a 1       | place b 2  | accepted #1              | 0 0 3
		create 0                  | place a 1  | sold-out remaining=0     | 0 0 0   // never had any
		create 1 hold=60          | place a 1  | accepted held deadline=60 | 0 1 0  // a held unit is gone too
		create 1 hold=60; place a 1 | place b 1 | sold-out remaining=0    | 0 1 0
		create 1000000000         | place a 1000000 | accepted            | 999000000 0 1000000
	`)
}

func TestAQuantityIsAllOrNothingAndDoesNotSellTheProductOut(t *testing.T) {
	story(t, `
		create 2   | accepted             | 2 0 0
		place a 3  | sold-out remaining=2 | 2 0 0
		place b 2  | accepted             | 0 0 2
		place c 1  | sold-out remaining=0 | 0 0 2
	`)
}

// The precedence is: idempotency key, not started, ended, paused, buyer's limit,
// sold out. Each row breaks two neighbours' rules at once, or more.
func TestPrecedenceOfRefusals(t *testing.T) {
	table(t, `
		// before                                                     | command              | outcome              | remaining held sold
		create 1; place a 1 key=k; set starts=100                     | place a 1 key=k @50  | replayed #0          | 0 0 1  // replayed > not started
		create 1; place a 1 key=k; set ends=10                        | place a 1 key=k @50  | replayed #0          | 0 0 1  // replayed > ended
		create 1; place a 1 key=k; pause                              | place a 1 key=k      | replayed #0          | 0 0 1  // replayed > paused
		create 5 limit=1; place a 1 key=k                             | place a 1 key=k      | replayed #0          | 4 0 1  // replayed > limit
		create 1; place a 1 key=k                                     | place a 1 key=k      | replayed #0          | 0 0 1  // replayed > sold out
		create 3; place a 1 key=k; set starts=100                     | place a 2 key=k @50  | idempotency-mismatch | 2 0 1  // mismatch > not started
		create 3; place a 1 key=k; set ends=10                        | place a 2 key=k @50  | idempotency-mismatch | 2 0 1  // mismatch > ended
		create 3; place a 1 key=k; pause                              | place a 2 key=k      | idempotency-mismatch | 2 0 1  // mismatch > paused
		create 3 limit=1; place a 1 key=k                             | place a 2 key=k      | idempotency-mismatch | 2 0 1  // mismatch > limit
		create 1; place a 1 key=k                                     | place a 2 key=k      | idempotency-mismatch | 0 0 1  // mismatch > sold out
		create 1 starts=100 ends=10                                   | place a 1 @50        | sale-not-started     | 1 0 0  // not started > ended
		create 1 starts=100; pause                                    | place a 1 @50        | sale-not-started     | 1 0 0  // not started > paused
		create 1 starts=100 limit=1                                   | place a 2 @50        | sale-not-started     | 1 0 0  // not started > limit, sold out
		create 0 starts=100                                           | place a 1 @50        | sale-not-started     | 0 0 0  // not started > sold out
		create 1 ends=10; pause                                       | place a 1 @50        | sale-ended           | 1 0 0  // ended > paused
		create 1 ends=10 limit=1                                      | place a 2 @50        | sale-ended           | 1 0 0  // ended > limit, sold out
		create 0 ends=10                                              | place a 1 @50        | sale-ended           | 0 0 0  // ended > sold out
		create 5 limit=1; pause                                       | place a 2            | product-paused       | 5 0 0  // paused > limit
		create 0; pause                                               | place a 1            | product-paused       | 0 0 0  // paused > sold out
		create 1 limit=1; place a 1                                   | place a 1            | buyer-limit          | 0 0 1  // limit > sold out
		create 1 limit=1                                              | place a 2            | buyer-limit          | 1 0 0
	`)
}

func TestLimitPerBuyer(t *testing.T) {
	table(t, `
		// before                                                    | command   | outcome                       | remaining held sold
		create 9 limit=2                                             | place a 2 | accepted                      | 7 0 2  // quantity = limit
		create 9 limit=2                                             | place a 3 | buyer-limit units=0 limit=2   | 9 0 0
		create 9 limit=2; place a 1                                  | place a 1 | accepted                      | 7 0 2
		create 9 limit=2; place a 1                                  | place a 2 | buyer-limit units=1 limit=2   | 8 0 1
		create 9 limit=2; place a 2                                  | place b 2 | accepted                      | 5 0 4  // another buyer's own
		create 9 limit=2; place - 2                                  | place - 2 | accepted                      | 5 0 4  // the anonymous have none
		create 9 limit=2; place - 2                                  | place - 5 | accepted                      | 2 0 7
		create 9; place a 4                                          | place a 5 | accepted                      | 0 0 9  // no limit
		create 9 hold=60 limit=2; place a 2                          | place a 1 | buyer-limit units=2           | 7 2 0  // held units count
		create 9 hold=60 limit=2; place a 2; confirm 0               | place a 1 | buyer-limit units=2           | 7 0 2  // so do confirmed ones
		create 9 hold=60 limit=2; place a 2; cancel 0                | place a 2 | accepted                      | 7 2 0  // freed by a cancel
		create 9 hold=60 limit=2; place a 2; expire @60              | place a 2 | accepted                      | 7 2 0  // freed by an expiry
		create 9 limit=2; place a 2; refund 0 restock                | place a 2 | accepted                      | 7 0 2  // freed by a refund
		create 9 limit=2; place a 2; refund 0                        | place a 2 | accepted                      | 5 0 4  // without its units as well
		create 9 limit=2; place a 2; place b 1; refund 1 restock     | place a 1 | buyer-limit units=2           | 7 0 2  // by one's own only
		create 9 limit=2; place a 2; reset 9                         | place a 2 | accepted run=2                | 7 0 2  // a new run forgets
	`)
}

// Promise 3, as far as one product goes.
func TestIdempotencyKeys(t *testing.T) {
	story(t, `
		create 9 limit=3  | accepted                   | 9 0 0
		place a 1 key=k   | accepted #0                | 8 0 1
		place a 1 key=k   | replayed #0 run=1          | 8 0 1  // the same answer, no second unit
		place a 2 key=k   | idempotency-mismatch #0    | 8 0 1
		place b 1 key=k   | accepted #1                | 7 0 2  // another buyer's key is another key
		place a 1 key=kk  | accepted #2                | 6 0 3
		place - 1 key=k   | accepted #3                | 5 0 4  // the anonymous share theirs
		place - 1 key=k   | replayed #3                | 5 0 4
		place a 1         | accepted #4                | 4 0 5  // without a key every order is new
		place a 1 key=l   | buyer-limit                | 4 0 5  // a refusal is not remembered
		refund 0 restock  | accepted                   | 5 0 4
		place a 1 key=l   | accepted #5                | 4 0 5  // so the same key may buy later
		place a 1 key=k   | replayed #0                | 4 0 5  // and a refunded order is still the answer
	`)
}

func TestABuyerAndAKeyAreNotMixedUp(t *testing.T) {
	story(t, `
		create 9          | accepted     | 9 0 0
		place ab 1 key=c  | accepted #0  | 8 0 1
		place a 1 key=bc  | accepted #1  | 7 0 2
		place abc 1 key=- | accepted #2  | 6 0 3
		place - 1 key=abc | accepted #3  | 5 0 4
		place ab 1 key=c  | replayed #0  | 5 0 4
	`)
}

func TestKeysOfEarlierRunsAreHonouredForADay(t *testing.T) {
	story(t, `
		create 2                     | accepted                          | 2 0 0
		place a 1 key=k @10          | accepted #0 run=1                 | 1 0 1
		place b 1 key=k @11          | accepted #1 run=1                 | 0 0 2
		reset 5 @100                 | accepted run=2                    | 5 0 0
		place a 1 key=k              | replayed #0 run=1                 | 5 0 0
		place a 2 key=k              | idempotency-mismatch #0 run=1     | 5 0 0
		place a 1 key=l              | accepted #0 run=2                 | 4 0 1
		reset 5 @200                 | accepted run=3                    | 5 0 0
		place a 1 key=k              | replayed #0 run=1                 | 5 0 0  // two runs back
		place a 1 key=l              | replayed #0 run=2                 | 5 0 0
		place a 1 key=k @86499.999   | replayed #0 run=1                 | 5 0 0  // the last moment of its day
		place a 1 key=k @86500       | accepted #0 run=3                 | 4 0 1
		place a 1 key=k              | replayed #0 run=3                 | 4 0 1  // from now on the new order
		place a 1 key=l              | replayed #0 run=2                 | 4 0 1
		place a 1 key=l @86600       | accepted #1 run=3                 | 3 0 2
		place b 1 key=k              | accepted #2 run=3                 | 2 0 3
		reset 1 @90000               | accepted run=4                    | 1 0 0
		place b 1 key=k              | replayed #2 run=3                 | 1 0 0
	`)
}

func TestRestock(t *testing.T) {
	table(t, `
		// before                                   | command             | outcome                      | remaining held sold
		create 1; place a 1                         | restock 2           | accepted changed             | 2 0 1  // sells on
		create 5; place a 2                         | restock -3          | accepted changed             | 0 0 2  // all that is unsold
		create 5; place a 2                         | restock -4          | stock-committed remaining=3  | 3 0 2
		create 5 hold=60; place a 2                 | restock -4          | stock-committed remaining=3  | 3 2 0  // held units stay
		create 5                                    | restock 0           | accepted                     | 5 0 0
		create 0                                    | restock -1          | stock-committed remaining=0  | 0 0 0
		create 1                                    | restock 999999999   | accepted                     | 1000000000 0 0
		create 1                                    | restock 1000000000  | stock-exceeded unchanged     | 1 0 0
		create 1; place a 1                         | restock 1000000000  | stock-exceeded               | 0 0 1  // the stock counts, not what is left
		create 5; restock -5                        | place a 1           | sold-out remaining=0         | 0 0 0
		create 1; pause                             | restock 1           | accepted                     | 2 0 0  // does not resume
	`)
}

func TestPauseAndResume(t *testing.T) {
	story(t, `
		create 2 hold=60 | accepted             | 2 0 0
		place a 1        | accepted #0          | 1 1 0
		pause            | accepted changed     | 1 1 0
		pause            | accepted unchanged   | 1 1 0
		place b 1        | product-paused       | 1 1 0
		confirm 0        | accepted confirmed   | 1 0 1  // a pause stops selling, not what was sold
		refund 0 restock | accepted refunded    | 2 0 0
		reset 3          | accepted run=2       | 3 0 0  // a new run does not resume
		place b 1        | product-paused       | 3 0 0
		resume           | accepted changed     | 3 0 0
		resume           | accepted unchanged   | 3 0 0
		place b 1        | accepted             | 2 1 0
	`)
}

func TestResetStartsANewRun(t *testing.T) {
	story(t, `
		create 5 limit=2 hold=60 price=7 | accepted run=1            | 5 0 0
		place a 1                        | accepted #0 run=1         | 4 1 0
		place a 1                        | accepted #1 run=1         | 3 2 0
		place b 1                        | accepted #2 run=1         | 2 3 0
		confirm 1                        | accepted                  | 2 2 1
		reset 4                          | accepted run=2            | 4 0 0  // outstanding holds end with their run
		confirm 1/0                      | hold-expired expired      | 4 0 0
		cancel 1/2                       | order-final expired       | 4 0 0
		confirm 1/1                      | accepted confirmed unchanged | 4 0 0
		place a 2                        | accepted #0 run=2 price=7 | 2 2 0  // the settings stay, the limit is new
		expire @60                       | accepted                  | 4 0 0  // only the present run's holds
		reset 0                          | accepted run=3            | 0 0 0
		place a 1                        | sold-out                  | 0 0 0
	`)
}

// Every status against everything that can be asked of an order, and against
// the end of its hold.
func TestOrderLifeCycle(t *testing.T) {
	table(t, `
		// before                                                | command            | outcome                          | remaining held sold
		create 3 hold=60; place a 2                              | confirm 0          | accepted changed confirmed       | 1 0 2
		create 3 hold=60; place a 2                              | cancel 0           | accepted changed cancelled       | 3 0 0
		create 3 hold=60; place a 2                              | refund 0           | order-not-confirmed held         | 1 2 0
		create 3 hold=60; place a 2                              | refund 0 restock   | order-not-confirmed held         | 1 2 0
		create 3 hold=60; place a 2                              | expire @59.999     | accepted                         | 1 2 0
		create 3 hold=60; place a 2                              | expire @60         | accepted                         | 3 0 0

		create 3 hold=60; place a 2; confirm 0                   | confirm 0          | accepted unchanged confirmed     | 1 0 2
		create 3 hold=60; place a 2; confirm 0                   | cancel 0           | order-final unchanged confirmed  | 1 0 2
		create 3 hold=60; place a 2; confirm 0                   | refund 0           | accepted changed refunded        | 1 0 2
		create 3 hold=60; place a 2; confirm 0                   | refund 0 restock   | accepted changed refunded        | 3 0 0
		create 3 hold=60; place a 2; confirm 0                   | expire @60         | accepted                         | 1 0 2

		create 3 hold=60; place a 2; cancel 0                    | confirm 0          | order-not-held cancelled         | 3 0 0
		create 3 hold=60; place a 2; cancel 0                    | cancel 0           | accepted unchanged cancelled     | 3 0 0
		create 3 hold=60; place a 2; cancel 0                    | refund 0 restock   | order-final cancelled            | 3 0 0
		create 3 hold=60; place a 2; cancel 0                    | expire @60         | accepted                         | 3 0 0  // its units come back once

		create 3 hold=60; place a 2; expire @60                  | confirm 0          | hold-expired expired             | 3 0 0
		create 3 hold=60; place a 2; expire @60                  | cancel 0           | order-final expired              | 3 0 0
		create 3 hold=60; place a 2; expire @60                  | refund 0 restock   | order-final expired              | 3 0 0
		create 3 hold=60; place a 2; expire @60                  | expire @61         | accepted                         | 3 0 0

		create 3 hold=60; place a 2; confirm 0; refund 0         | confirm 0          | order-not-held refunded          | 1 0 2
		create 3 hold=60; place a 2; confirm 0; refund 0         | cancel 0           | order-final refunded             | 1 0 2
		create 3 hold=60; place a 2; confirm 0; refund 0         | refund 0           | accepted unchanged refunded      | 1 0 2
		create 3 hold=60; place a 2; confirm 0; refund 0         | refund 0 restock   | accepted unchanged refunded      | 1 0 2  // the first refund said
		create 3 hold=60; place a 2; confirm 0; refund 0 restock | refund 0 restock   | accepted unchanged refunded      | 3 0 0
		create 3 hold=60; place a 2; confirm 0; refund 0         | expire @60         | accepted                         | 1 0 2

		create 3; place a 2                                      | confirm 0          | accepted unchanged confirmed     | 1 0 2  // sold without a hold
		create 3; place a 2                                      | cancel 0           | order-final confirmed            | 1 0 2
		create 3; place a 2                                      | refund 0 restock   | accepted changed refunded        | 3 0 0
	`)
}

// A hold ends at its deadline, not when somebody looks for it (F80).
func TestAHoldThatRanOutUnseenIsOver(t *testing.T) {
	table(t, `
		// before                   | command           | outcome                        | remaining held sold
		create 3 hold=60; place a 2 | confirm 0 @59.999 | accepted changed confirmed     | 1 0 2
		create 3 hold=60; place a 2 | confirm 0 @60     | hold-expired expired           | 3 0 0
		create 3 hold=60; place a 2 | cancel 0 @60      | order-final expired            | 3 0 0
		create 3 hold=60; place a 2 | refund 0 @60      | order-final expired            | 3 0 0
		create 2 hold=60; place a 2 | place b 1 @60     | sold-out remaining=0           | 0 2 0  // the shard expires before it sells
	`)
}

func TestAnExpiredHoldIsReturnedOnce(t *testing.T) {
	story(t, `
		create 2 hold=60 | accepted             | 2 0 0
		place a 2        | accepted             | 0 2 0
		confirm 0 @60    | hold-expired         | 2 0 0  // noticed by the confirm
		expire @61       | accepted             | 2 0 0  // and not again by the clock
		place b 2        | accepted #1          | 0 2 0
		expire @60       | accepted             | 0 2 0  // a clock set back
		expire @120.999  | accepted             | 0 2 0
		expire @121      | accepted             | 2 0 0
	`)
}

// The ledger lags behind the shard by a batch: what it told may be history.
func TestTheShardKnowsBetterThanAStaleLedger(t *testing.T) {
	table(t, `
		// before                                                    | command                             | outcome                      | remaining held sold
		create 3 hold=60; place a 2; confirm 0                       | cancel 0 stale=held                 | order-final confirmed        | 1 0 2
		create 3 hold=60; place a 2; cancel 0                        | confirm 0 stale=held                | order-not-held cancelled     | 3 0 0
		create 3; place a 2; refund 0 restock                        | refund 0 restock stale=confirmed    | accepted unchanged refunded  | 3 0 0
		create 3; place a 2; reset 3; refund 1/0                     | refund 1/0 stale=confirmed          | accepted unchanged refunded  | 3 0 0
		create 3; place a 2; refund 0; reset 3                       | refund 1/0 stale=confirmed          | accepted unchanged refunded  | 3 0 0  // refunded before the reset, asked after it
	`)
}

func TestRefundsOfEarlierRuns(t *testing.T) {
	story(t, `
		create 3 limit=2 | accepted                    | 3 0 0
		place a 2        | accepted #0                 | 1 0 2
		reset 5          | accepted run=2              | 5 0 0
		place a 1        | accepted #0 run=2           | 4 0 1
		refund 1/0 restock | accepted changed refunded run=1 #0 | 4 0 1  // its units are of another run
		refund 1/0 restock | accepted unchanged refunded        | 4 0 1
		cancel 1/0       | order-final refunded        | 4 0 1
		confirm 1/0      | order-not-held refunded     | 4 0 1
		place a 2        | buyer-limit units=1         | 4 0 1  // and do not count for its limit
		refund 0 restock | accepted changed refunded run=2 #0   | 5 0 0
	`)
}

func TestTheWindowOpensAndCloses(t *testing.T) {
	table(t, `
		// before                     | command          | outcome          | remaining held sold
		create 2 starts=10            | place a 1 @9.999 | sale-not-started | 2 0 0
		create 2 starts=10            | place a 1 @10    | accepted         | 1 0 1
		create 2 ends=10              | place a 1 @9.999 | accepted         | 1 0 1
		create 2 ends=10              | place a 1 @10    | sale-ended       | 2 0 0
		create 2 starts=10 ends=20    | place a 1 @10    | accepted         | 1 0 1
		create 2 starts=10 ends=20    | place a 1 @20    | sale-ended       | 2 0 0
		create 2 starts=10 ends=20    | pause @5         | accepted         | 2 0 0
		create 2 hold=60 ends=10; place a 1 | confirm 0 @11 | accepted confirmed | 1 0 1  // the end stops selling, not paying
	`)
}

// Opening and closing are journaled once they were seen (F30).
func TestAClockSetBackNeitherClosesNorReopens(t *testing.T) {
	story(t, `
		create 9 starts=10 ends=20 | accepted         | 9 0 0
		place a 1 @9               | sale-not-started | 9 0 0
		place a 1 @10              | accepted         | 8 0 1
		place a 1 @5               | accepted         | 7 0 2  // it was open: it stays open
		place a 1 @20              | sale-ended       | 7 0 2
		place a 1 @15              | sale-ended       | 7 0 2  // it was over: it stays over
		place a 1 @5               | sale-ended       | 7 0 2
	`)
}

func TestANewWindowArmsTheSaleAgain(t *testing.T) {
	story(t, `
		create 9 starts=10 ends=20 | accepted         | 9 0 0
		place a 1 @15              | accepted         | 8 0 1
		place a 1 @20              | sale-ended       | 8 0 1
		set price=5                | accepted changed | 8 0 1  // the same window: still over
		place a 1                  | sale-ended       | 8 0 1
		set ends=30                | accepted         | 8 0 1  // prolonged
		place a 1                  | accepted         | 7 0 2
		place a 1 @5               | accepted         | 6 0 3  // and it stays open
		set starts=40 ends=50      | accepted         | 6 0 3
		place a 1 @39              | sale-not-started | 6 0 3
		place a 1 @40              | accepted         | 5 0 4
		place a 1 @50              | sale-ended       | 5 0 4
		set starts=0 ends=0        | accepted         | 5 0 4  // no window at all
		place a 1                  | accepted         | 4 0 5
		set ends=60                | accepted         | 4 0 5
		place a 1 @60              | sale-ended       | 4 0 5
		reset 9                    | accepted run=2   | 9 0 0  // a new run looks at the clock again
		place a 1 @59              | accepted         | 8 0 1
	`)
}

func TestSettingsChangeMidSale(t *testing.T) {
	story(t, `
		create 9 limit=4 price=100       | accepted                       | 9 0 0
		place a 3                        | accepted price=100 deadline=none | 6 0 3
		set limit=2                      | accepted changed               | 6 0 3  // below what a buyer has: nothing is taken back
		place a 1                        | buyer-limit units=3 limit=2    | 6 0 3
		place b 2                        | accepted #1                    | 4 0 5
		set limit=2                      | accepted unchanged             | 4 0 5
		set limit=5 price=250            | accepted                       | 4 0 5
		place a 1                        | accepted #2 price=250          | 3 0 6  // only new orders see a new price
		place a 2                        | buyer-limit units=4            | 3 0 6
		set limit=0                      | accepted                       | 3 0 6
		place a 1                        | accepted #3                    | 2 0 7
		set hold=60                      | accepted                       | 2 0 7
		place c 1 @100                   | accepted held deadline=160     | 1 1 7
		set hold=5                       | accepted                       | 1 1 7
		place d 1 @101                   | accepted held deadline=106     | 0 2 7  // a later hold may run out first
		expire @106                      | accepted                       | 1 1 7
		set hold=0                       | accepted                       | 1 1 7
		place e 1                        | accepted confirmed deadline=none | 0 1 8
		expire @160                      | accepted                       | 1 0 8
		create 100                       | product-exists                 | 1 0 8
	`)
}

func TestALimitRaisedLaterCountsWhatWasBoughtWithoutOne(t *testing.T) {
	story(t, `
		create 9     | accepted            | 9 0 0
		place a 3    | accepted            | 6 0 3
		set limit=3  | accepted            | 6 0 3
		place a 1    | buyer-limit units=3 | 6 0 3
	`)
}

// Corrupt memory must not reach the journal.
func TestAnOrderOfNothingIsAProgrammersError(t *testing.T) {
	for _, quantity := range []int64{0, -1} {
		s := newScene(t)
		s.do("create 5")
		c := engine.AcquireCommand()
		c.Op, c.Quantity = engine.OpPlace, quantity
		if !panics(func() { s.product.Decide(c, s.now, nil) }) {
			t.Errorf("an order of %d units was decided", quantity)
		}
	}
}

func TestAnUnknownOperationIsAProgrammersError(t *testing.T) {
	if !panics(func() { engine.NewProduct("p").Decide(engine.AcquireCommand(), 0, nil) }) {
		t.Error("a command without an operation was decided")
	}
}

func TestIDsAndKeysAreBounded(t *testing.T) {
	c := engine.AcquireCommand()
	long := make([]byte, engine.MaxID+1)
	if !panics(func() { c.SetBuyer(long) }) || !panics(func() { c.SetKey(make([]byte, engine.MaxKey+1)) }) {
		t.Error("a command took an id or a key longer than its limit")
	}
	c.SetBuyer(long[1:])
	if len(c.Buyer()) != engine.MaxID {
		t.Error("a command did not take an id of the longest kind")
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func TestStateOfASale(t *testing.T) {
	for _, row := range []struct {
		name   string
		view   engine.View
		starts int64
		ends   int64
		now    int64
		want   engine.State
	}{
		{"units remain", engine.View{Remaining: 1}, 0, 0, 50, engine.Open},
		{"none remain", engine.View{}, 0, 0, 50, engine.Exhausted},
		{"paused and none remain", engine.View{Paused: true}, 0, 0, 50, engine.OnPause},
		{"before the start", engine.View{Remaining: 1}, 51, 0, 50, engine.Scheduled},
		{"at the start", engine.View{Remaining: 1}, 50, 0, 50, engine.Open},
		{"before the start, paused", engine.View{Paused: true}, 51, 0, 50, engine.Scheduled},
		{"before the start, but seen open", engine.View{Remaining: 1, Opened: true}, 51, 0, 50, engine.Open},
		{"before the end", engine.View{Remaining: 1}, 0, 51, 50, engine.Open},
		{"at the end", engine.View{Remaining: 1}, 0, 50, 50, engine.Over},
		{"at the end, paused", engine.View{Paused: true}, 0, 50, 50, engine.Over},
		{"before the end, but seen closed", engine.View{Remaining: 1, Closed: true}, 0, 51, 50, engine.Over},
	} {
		row.view.Settings = &engine.Settings{StartsAt: row.starts, EndsAt: row.ends}
		if got := row.view.State(row.now); got != row.want {
			t.Errorf("%s: %v, want %v", row.name, got, row.want)
		}
		if want := row.starts != 0 || row.ends != 0; row.view.Windowed() != want {
			t.Errorf("%s: Windowed is not %v", row.name, want)
		}
	}
}
