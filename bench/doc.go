// Package bench measures what a decision, a journal and the whole path cost, and
// checks the books after every measurement: a benchmark that sold one unit too
// many fails, however fast it was. README.md says how to run what.
package bench
