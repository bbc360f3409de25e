//go:build !unix

package drive

import "time"

func processCPU() time.Duration { return 0 }
